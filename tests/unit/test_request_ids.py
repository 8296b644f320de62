"""Ids of requests that brought none."""

import re

from mlserve.protocols.request_ids import RequestIds


def test_ids_count_on_where_their_last_digits_begin_anew():
    ids = RequestIds()
    made = [ids() for _ in range(3 * 4096)]
    prefix = made[0][:-12]
    assert made == [f"{prefix}{number:012x}" for number in range(1, 3 * 4096 + 1)]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-", prefix)


def test_two_servers_do_not_give_the_same_ids():
    assert RequestIds()() != RequestIds()()


def test_a_clients_own_id_is_kept_only_if_it_can_be_sent_back():
    ids = RequestIds()
    assert ids(b"trace-1") == "trace-1"
    assert ids(b"two words") != "two words"
    assert RequestIds(echo=False)(b"trace-1") != "trace-1"
