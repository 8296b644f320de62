"""Batches that are preprocessed while another computes: in order, each with its own context, none lost."""

import pytest
from support.worker_driver import Driver

from mlserve.wire.frames import Kind, frame


@pytest.fixture
def loaded():
    drivers = []

    def start(handler="phases:Phases", **settings):
        drivers.append(Driver())
        kind, _, meta, _ = drivers[-1].load(handler, **settings)
        assert kind == Kind.READY, meta
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.close()


def test_preprocessing_overlaps_with_inference_and_answers_keep_their_order(loaded):
    driver = loaded("phases:Meets", preprocess_threads=1)
    bodies = [b"meets"] * 4 + [b"last"]
    for number, body in enumerate(bodies):
        driver.batch(number, body, name=f"q{number}.")
    for number, body in enumerate(bodies):
        meta, answers = driver.result(number)
        assert answers == [b"%s q%d.0 MainThread" % (body, number)]
        assert meta.items[0].headers == [("prepared-in", "mlserve-preprocess_0")]


def test_a_batch_that_lay_prepared_is_told_the_times_of_its_phases_and_not_that_of_lying(loaded):
    driver = loaded("phases:Timed", preprocess_threads=1)
    driver.batch(1, b"0.5")
    driver.batch(2, b"0.01")
    driver.result(1)
    meta, (answer,) = driver.result(2)
    preprocess, lay, inference = map(float, answer.split())
    assert lay > 0.25  # while the first one computed
    assert preprocess <= meta.preprocess < preprocess + lay / 2
    assert inference <= meta.inference < inference + lay / 2


def test_one_bad_item_of_a_batch_prepared_ahead_fails_alone(loaded):
    driver = loaded(preprocess_threads=1)
    driver.batch(1, b"0.1")
    driver.batch(2, b"ok", b"refuse", b"ok")
    driver.batch(3, b"ok", b"raise", b"ok")
    driver.result(1)
    meta, answers = driver.result(2)
    assert [answer[:2] for answer in answers] == [b"ok", "ha", b"ok"]
    assert (meta.items[1].status, meta.items[1].message) == (422, "not this one")
    meta, answers = driver.result(3)
    assert [answer[:2] for answer in answers] == [b"ok", "ha", b"ok"]
    assert "cannot be preprocessed" in meta.items[1].message


def test_metrics_of_a_batch_name_its_own_requests(loaded):
    driver = loaded(preprocess_threads=1)
    driver.batch(1, b"0.2", name="first")
    driver.batch(2, b"0", name="second")
    records = [record for number in (1, 2) for record in driver.result(number)[0].metrics]
    assert [record.request_id for record in records if record.name == "prepared"] == ["first0", "second0"]


def test_a_lost_device_ends_the_worker_with_its_code(loaded):
    driver = loaded(preprocess_threads=1)
    driver.batch(1, b"lost")
    driver.result(1)
    assert driver.end()[0] == 5


def test_drain_answers_what_was_prepared_and_ends(loaded):
    driver = loaded(preprocess_threads=2)
    driver.batch(1, b"0.1")
    driver.batch(2, b"0")
    driver.send(frame(Kind.DRAIN))
    assert [driver.result(number)[1][0].split()[0] for number in (1, 2)] == [b"0.1", b"0"]
    assert driver.end() == (0, "", "")


@pytest.mark.parametrize(("handler", "threads"), [("phases:Whole", 1), ("phases:Phases", 0), ("phases:Phases", -1)])
def test_nothing_is_prepared_ahead_unless_asked_and_possible(loaded, handler, threads):
    driver = loaded(handler, preprocess_threads=threads)
    meta, answers = driver.ask(b"0")
    assert meta.items[0].headers == [("prepared-in", "MainThread")]
    assert answers == [b"0 r0 MainThread"]
    warned = [record.message for record in driver.logs if "not preprocessed ahead" in record.message]
    assert len(warned) == (1 if threads == 1 else 0)
