"""Memory is lent as long as somebody looks at it, wherever that is, and no longer."""

import gc
import os
import sys
import threading

import pytest

from mlserve.wire.arena import Arena, ArenaError
from mlserve.wire.lending import LendingArena

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux only")
STEP = 64 << 10
SIZE = 4 * STEP


@pytest.fixture
def arena():
    arena = LendingArena.create(SIZE, read_only=True)
    yield arena
    arena.close()


def test_a_block_is_not_lent_again_while_a_piece_of_it_is_looked_at(arena):
    view = arena.lend(SIZE)
    piece = view[100:200][10:20]
    del view
    assert arena.lend(1) is None
    del piece
    assert arena.lend(SIZE) is not None


def test_blocks_of_any_length_are_lent_without_overlap(arena):
    views = [arena.lend(length) for length in (1, STEP, STEP + 1)]
    for number, view in enumerate(views):
        view[:] = bytes([number]) * len(view)
    assert [set(bytes(view)) for view in views] == [{0}, {1}, {2}]
    assert [len(view) for view in views] == [1, STEP, STEP + 1]
    assert arena.lend(1) is None


def test_what_is_to_be_spared_is_not_lent(arena):
    assert arena.lend(STEP, spare=SIZE) is None
    first = arena.lend(STEP, spare=2 * STEP)
    second = arena.lend(STEP, spare=2 * STEP)
    assert first is not None
    assert second is not None
    assert arena.lend(STEP, spare=2 * STEP) is None
    assert arena.lend(2 * STEP) is not None


def test_a_view_may_end_in_another_thread_and_in_a_cycle(arena):
    held = [arena.lend(SIZE)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    cycle = [arena.lend(SIZE)]
    assert cycle[0] is not None
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert arena.lend(SIZE) is not None


def test_where_a_view_lies_is_known_only_of_what_was_lent_here(arena):
    other = LendingArena.create(SIZE)
    first, second = arena.lend(10), arena.lend(STEP)
    assert (arena.offset_of(first), arena.offset_of(second[7:])) == (0, STEP + 7)
    for data in (other.lend(10), memoryview(bytearray(10)), memoryview(b"x"), b"x", bytearray(1)):
        assert arena.offset_of(data) is None
    other.close()


def test_the_peer_sees_the_same_bytes_and_cannot_change_them(arena):
    view = arena.lend(5)
    view[:] = b"hello"
    peer = Arena.attach(os.dup(arena.fd), SIZE)
    assert bytes(peer.view(arena.offset_of(view), 5)) == b"hello"
    with pytest.raises(TypeError):
        peer.write(0, b"other")
    with pytest.raises(PermissionError):
        Arena.attach(os.dup(arena.fd), SIZE, owner=True)
    peer.close()


def test_what_is_lent_outlives_the_arena_and_nothing_is_lent_after_it():
    arena = LendingArena.create(SIZE)
    view = arena.lend(3)
    view[:] = b"abc"
    arena.close()
    arena.close()
    assert bytes(view) == b"abc"
    del view
    assert arena.lend(1) is None


def test_the_end_of_a_lease_is_told_once_also_at_the_edge_of_the_arena(arena):
    ended = []
    view = arena.lease(SIZE - 5, 5, lambda: ended.append(True))
    assert (len(view), ended) == (5, [])
    del view
    assert ended == [True]
    for offset, length in ((SIZE - 1, 2), (-1, 1), (0, 0), (SIZE, 1)):
        with pytest.raises(ArenaError, match="outside"):
            arena.lease(offset, length, ended.clear)
