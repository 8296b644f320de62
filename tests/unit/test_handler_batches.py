"""Items to calls and back: every item gets its own rows, in its own order, whatever shares a call with it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy")

from mlserve.handlers.batches import run  # noqa: E402
from mlserve.handlers.items import Item  # noqa: E402
from mlserve.handlers.signature import Signature, Tensor  # noqa: E402

STATE = Tensor("state", "float32", (2, "batch"), 1)


def signature(batch=None, width=None):
    inputs = (
        Tensor("x", "float32", (batch, width)),
        STATE._replace(shape=(2, batch)),
        Tensor("rate", "int64", (), None),
    )
    return Signature(inputs, (Tensor("y", "float32", (batch, width)), Tensor("state", "float32", (2, batch), 1)))


def item(first, rows=1, width=3, rate=1):
    x = np.arange(first, first + rows, dtype=np.float32)[:, None].repeat(width, 1)
    return Item({"x": x, "state": np.stack([x[:, 0], -x[:, 0]]), "rate": np.asarray(rate)}, rows)


class Doubler:
    """A model that remembers its calls."""

    def __init__(self, batch=None):
        self.calls = []
        self.batch = batch

    def __call__(self, inputs):
        assert self.batch in (None, len(inputs["x"]))
        assert inputs["state"].shape[1] == len(inputs["x"])
        self.calls.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2 * inputs["rate"], "state": inputs["state"] + 1}


def check(items, outputs):
    for one, found in zip(items, outputs, strict=True):
        assert np.array_equal(found["y"], one.arrays["x"] * 2 * one.arrays["rate"])
        assert np.array_equal(found["state"], one.arrays["state"] + 1)


def test_items_that_fit_together_are_one_call():
    model, items = Doubler(), [item(0), item(5, rows=3), item(9)]
    check(items, run(model, signature(), items))
    assert model.calls == [5]


def test_items_of_different_lengths_or_shared_values_do_not_share_a_call():
    model = Doubler()
    items = [item(0, width=3), item(1, width=4), item(2, width=3, rate=7), item(3, width=3)]
    check(items, run(model, signature(), items))
    assert sorted(model.calls) == [1, 1, 2]


@given(
    batch=st.sampled_from([None, 1, 2, 3, 8]),
    given=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=8),
)
def test_no_item_gets_rows_of_another_whatever_the_batch_length_of_the_model(batch, given):
    items = [item(10 * index, rows, width, rate) for index, (rows, width, rate) in enumerate(given)]
    check(items, run(Doubler(batch), signature(batch), items))


def test_a_batch_that_came_to_nothing_calls_nothing():
    model = Doubler()
    assert run(model, signature(), []) == []
    assert model.calls == []


@pytest.mark.parametrize("count", [1, 2])
def test_an_output_without_the_batch_axis_is_an_error_that_says_what_to_set(count):
    with pytest.raises(ValueError, match=r"outputs: \{y: \{batch_axis: N\}\}"):
        run(lambda inputs: {"y": np.zeros(7)}, signature(), [item(number) for number in range(count)])


X = Tensor("x", "float32", (1, 3))


def rows(*values):
    return [Item({"x": np.full((1, 3), value, np.float32)}, 1) for value in values]


def test_a_model_of_one_row_gives_each_item_its_own_output_without_a_batch_axis():
    one = Signature((X,), (Tensor("y", "float32", (3,), None), Tensor("boxes", "float32", (None, 4), None)))

    def infer(inputs):
        count = int(inputs["x"][0, 0])
        return {"y": inputs["x"][0], "boxes": np.full((count, 4), count)}

    found = run(infer, one, rows(1, 2))
    assert [answer["y"].tolist() for answer in found] == [[1, 1, 1], [2, 2, 2]]
    assert [answer["boxes"].shape for answer in found] == [(1, 4), (2, 4)]


def test_an_output_of_a_varying_length_is_not_cut_to_the_number_of_items():
    found = Signature((X,), (Tensor("boxes", "float32", (None, 4)),))
    with pytest.raises(ValueError, match="axis 0 is not the batch"):
        run(lambda inputs: {"boxes": np.zeros((7, 4))}, found, rows(1, 2))


def test_calls_that_differ_in_a_shared_output_are_an_error_and_not_the_first_ones_answer():
    two = Signature((X._replace(shape=(2, 3)),), (Tensor("sum", "float32", (), None),))
    with pytest.raises(ValueError, match="set batchSize to 2"):
        run(lambda inputs: {"sum": inputs["x"].sum()}, two, rows(1, 2, 3))
    assert run(lambda inputs: {"sum": np.float32(7)}, two, rows(1, 2, 3))[2]["sum"] == 7


def test_what_a_model_gets_is_its_own_to_write_to_and_to_keep():
    def infer(inputs):
        kept.append(inputs)
        for array in inputs.values():
            array += 1
        return {"y": inputs["x"], "state": inputs["state"]}

    kept = []
    for count in (1, 2):
        given = [item(number) for number in range(count)]
        for one in given:
            for array in one.arrays.values():
                array.flags.writeable = False  # as where a request's body is looked at in place
        before = [{name: array.copy() for name, array in one.arrays.items()} for one in given]
        run(infer, signature(), given)
        for one, was in zip(given, before, strict=True):
            for name, array in one.arrays.items():
                np.testing.assert_array_equal(array, was[name])
                assert not any(np.shares_memory(array, mine) for mine in kept[-1].values())
