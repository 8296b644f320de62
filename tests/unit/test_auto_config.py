"""``--auto-config``: what is written of what a model says and answers, and that the user's own words stay."""

import asyncio
import json

import pytest
import yaml

from mlserve.cli.auto_config import Found, added, examined, joined, outputs_of, zeros
from mlserve.cli.trial import Answer
from mlserve.errors import ArchiveError


def described(name="x", datatype="FP32", shape=(-1, 4), batch_axis=0):
    return {"name": name, "datatype": datatype, "shape": shape and list(shape), "batch_axis": batch_axis}


class Model:
    """A trial of a model that takes up to ``most`` rows and answers ``shape(rows)`` for each of its outputs."""

    def __init__(self, most=100, least=1, **outputs):
        self.most, self.least, self.outputs = most, least, outputs

    async def send(self, inputs):
        [(body, content_type)] = inputs
        assert content_type == "application/json"
        rows = json.loads(body)["inputs"][0]["shape"][0]
        if not self.least <= rows <= self.most:
            return [Answer(error=f"no {rows} rows")], 0.1
        outputs = [{"name": name, "shape": shape(rows), "datatype": "FP32"} for name, shape in self.outputs.items()]
        return [Answer(json.dumps({"outputs": outputs}).encode())], 0.1


def found(model, *inputs, outputs=()):
    return asyncio.run(examined(model, {"runtime": "r", "inputs": list(inputs), "outputs": list(outputs)}))


def test_outputs_that_the_file_does_not_describe_are_learned_from_batches_of_several_lengths():
    model = Model(y=lambda rows: [rows, 3], state=lambda rows: [2, rows, 8], total=lambda rows: [5])
    known = found(model, described())
    assert known.outputs == {
        "y": {"dtype": "float32", "shape": [-1, 3], "batch_axis": 0},
        "state": {"dtype": "float32", "shape": [2, -1, 8], "batch_axis": 1},
        "total": {"dtype": "float32", "shape": [5], "batch_axis": None},
    }
    assert known.batch_size == 8


def test_lengths_that_may_follow_an_inputs_are_not_taken_for_the_models():
    known = found(Model(y=lambda rows: [rows, 1]), described(shape=(-1, -1)))
    assert known.outputs == {"y": {"dtype": "float32", "batch_axis": 0}}


@pytest.mark.parametrize(
    ("most", "least", "shape", "size", "why"),
    [
        (100, 1, (-1, 4), 8, "batches of 1, 2, 3, 8 rows were answered"),
        (1, 1, (-1, 4), 1, "the model has no dynamic batch dimension: a batch of 2 fails"),
        (4, 1, (-1, 4), 3, "a batch of 8 fails"),
        (3, 3, (3, 4), 3, "the model has no dynamic batch dimension: this is its fixed length"),
        (1, 1, (1, 4), 1, "the model has no dynamic batch dimension: this is its fixed length"),
        (100, 9, (-1, 4), 1, "whether the batch dimension varies is not known"),
    ],
)
def test_the_batch_size_is_one_that_the_model_answered(most, least, shape, size, why):
    known = found(Model(most, least, y=lambda rows: [rows, 3]), described(shape=shape))
    assert (known.batch_size, known.why) == (size, why)


def test_a_file_that_calls_a_fixed_batch_dynamic_is_corrected():
    answered = described("y", shape=(1, 3), batch_axis=None)
    known = found(Model(1, y=lambda rows: [1, 3]), described(), outputs=[answered])
    assert known.inputs["x"]["shape"] == [1, 4]
    assert known.outputs["y"] == {"dtype": "float32", "shape": [1, 3], "batch_axis": 0}
    assert "a batch of 2: no 2 rows" in known.notes


def test_what_the_file_does_not_say_is_asked_for_and_not_made_up():
    known = found(Model(), described(datatype=None, shape=None))
    assert known.inputs == {"x": {"batch_axis": 0}}
    assert known.outputs == {}
    assert known.batch_size == 1
    assert "the file does not say dtype and shape of x" in known.notes[0]


def test_a_model_without_a_batch_dimension_says_so():
    known = found(Model(), described(shape=(4,), batch_axis=None))
    assert (known.batch_size, known.why) == (1, "the model has no dynamic batch dimension: its inputs have none")


def test_rows_of_zeros_are_of_every_type():
    sent = json.loads(zeros([described(), described("t", "BYTES", (-1, -1)), described("n", "INT64", (), None)], 2))
    assert [(one["shape"], one["data"]) for one in sent["inputs"]] == [
        ([2, 4], [0] * 8),
        ([2, 1], ["", ""]),
        ([], [0]),
    ]
    assert zeros([described(shape=(-1, 4096, 4096))], 1) is None


def test_only_what_the_user_has_not_written_is_added():
    known = Found("r", {"x": {"dtype": "float32", "shape": [-1, 4]}}, {"y": {"dtype": "float32"}}, 4, "so")
    everything = added(known, {})
    assert yaml.safe_load(everything) == {"inputs": known.inputs, "outputs": known.outputs, "batchSize": 4}
    assert "  x: {dtype: float32, shape: [-1, 4]}\n" in everything
    assert "batchSize: 4 # so" in everything
    assert set(yaml.safe_load(added(known, {"inputs": {"z": {}}, "batch_size": 2}))) == {"outputs"}
    assert known.notes == ["batch size 2 is kept, but so (4)"]
    assert added(known, {"inputs": {}, "outputs": {}, "batchSize": 4}) == ""


@pytest.mark.parametrize("text", ["# mine\nminWorkers: 2", "{minWorkers: 2}", "# mine\nminWorkers: 2\n...\n", ""])
def test_the_users_text_stays_where_it_can_be_continued(text):
    config = yaml.safe_load(text) or {}
    both = joined(text, "batchSize: 4 # so\n", config, "c.yaml")
    assert yaml.safe_load(both) == {**config, "batchSize": 4}
    assert both.startswith(text) or "..." in text or text.startswith("{")


def test_an_answer_of_several_ranks_has_no_shape():
    answers = {
        1: [{"name": "y", "shape": [3], "datatype": "FP32"}],
        2: [{"name": "y", "shape": [2, 3], "datatype": "FP32"}],
    }
    assert outputs_of(answers, varies=False) == {"y": {"dtype": "float32", "batch_axis": None}}


def test_names_that_yaml_would_read_as_something_else_are_quoted():
    known = Found("r", {"on": {"dtype": "float32"}, "a: b": {}}, {})
    assert list(yaml.safe_load(added(known, {}))["inputs"]) == ["on", "a: b"]


def test_a_configuration_that_is_none_is_refused():
    with pytest.raises(ArchiveError, match="must be a YAML mapping"):
        joined("", "- 1\n", {}, "c.yaml")
