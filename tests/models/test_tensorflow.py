"""A small Keras network, trained on ``load_breast_cancer`` and served as the SavedModel folder it exports."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from support.asking import ask, ask_npy, ask_together, largest_batch, refused
from support.server import LiveServer, running

TOLERANCE = 1e-5  # of probabilities in float32, computed in batches of another size
CONFIG = "batchSize: 8\nmaxBatchDelay: 150\nbatchPolicy: window\n"


class Served(NamedTuple):
    server: LiveServer
    rows: Any  # what the network was trained on
    labels: Any
    expected: Any  # Keras's own predictions for them


def trained(rows: Any, labels: Any) -> Any:
    tf.keras.utils.set_random_seed(1)
    layers = [
        tf.keras.layers.Dense(8, activation="relu"),
        tf.keras.layers.Dense(1, activation="sigmoid", name="benign"),
    ]
    model = tf.keras.Sequential([tf.keras.Input((30,), name="measured"), *layers])
    model.compile(optimizer=tf.keras.optimizers.Adam(0.02), loss="binary_crossentropy")
    model.fit(rows, labels, epochs=8, batch_size=64, verbose=0)
    return model


class Texts(tf.Module):
    """Text in, text and its length out; a second signature shouts."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def trimmed(self, text: Any) -> dict[str, Any]:
        return {"trimmed": tf.strings.strip(text), "length": tf.strings.length(text, unit="UTF8_CHAR")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def shouted(self, text: Any) -> dict[str, Any]:
        return {"shouted": tf.strings.upper(text)}


def save_texts(folder: Path) -> None:
    model = Texts()
    tf.saved_model.save(model, str(folder), {"serving_default": model.trimmed, "shout": model.shouted})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, cancer: Any) -> Iterator[Served]:
    store = tmp_path_factory.mktemp("tensorflow")
    rows = ((cancer.rows - cancer.rows.mean(0)) / cancer.rows.std(0)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras and NumPy deprecate each other's parts
        model = trained(rows, cancer.labels)
        model.export(store / "cancer", verbose=False)
        expected = model.predict(rows, verbose=0)
        save_texts(store / "texts" / "1")  # as TensorFlow Serving wants it: a folder of versions
        save_texts(store / "shout")
    (store / "cancer" / "model-config.yaml").write_text(CONFIG)
    (store / "shout" / "model-config.yaml").write_text("tensorflow: {signature: shout}\n")
    models = ["cancer=cancer", "texts=texts", "shout=shout"]
    with running(store / "run", *models, store=store) as server:
        yield Served(server, rows, cancer.labels, expected)


def test_the_network_has_learned_something(served):
    """Else equal answers would say little."""
    assert np.mean((served.expected[:, 0] > 0.5) == served.labels) > 0.9


def test_a_row_gets_keras_s_own_answer(served):
    for row in (0, 20, 568):
        (answer,) = ask(served.server, "cancer", served.rows[row].tolist()).values()
        np.testing.assert_allclose(answer, served.expected[row], atol=TOLERANCE)
        (answer,) = ask_npy(served.server, "cancer", served.rows[row]).values()
        np.testing.assert_allclose(answer, served.expected[row], atol=TOLERANCE)


def test_requests_that_come_together_are_one_batch_and_each_gets_its_own_answer(served):
    answers = ask_together(served.server, "cancer", [served.rows[row].tolist() for row in range(16)])
    found = [next(iter(answer.values())) for answer in answers]
    np.testing.assert_allclose(found, served.expected[:16], atol=TOLERANCE)
    assert largest_batch(served.server, "cancer") > 1


def test_text_goes_in_and_out(served):
    assert ask(served.server, "texts", " grüß dich ") == {"length": 11, "trimmed": "grüß dich"}


def test_another_signature_is_served_when_the_configuration_says_so(served):
    assert ask(served.server, "shout", {"text": "hey"}) == {"shouted": "HEY"}


def test_what_the_model_does_not_take_is_refused_with_what_it_takes(served):
    described = served.server.request("GET", "/models/cancer?customized=true", api="management").json()[0]
    assert "'datatype': 'FP32', 'shape': [-1, 30]" in str(described)
    name = refused(served.server, "cancer", {"size": 3}).rpartition("the model takes ")[2].partition(":")[0]
    takes = f"the model takes {name}: FP32 [30]"
    assert refused(served.server, "cancer", {"size": 3}) == f"input {name!r} is missing; unknown input 'size': {takes}"
    assert refused(served.server, "cancer", [1, 2]) == f"Input {name!r} has the shape [2]: {takes}"
    assert refused(served.server, "cancer", ["a"] * 30) == f"Input {name!r} is text: expected {name}: FP32 [30]"


def test_a_signature_that_is_not_there_is_named_with_those_that_are(tmp_path):
    from mlserve.handlers.formats import Source, open_model

    save_texts(tmp_path / "m")
    with pytest.raises(ValueError, match=r"has no signature classify; it has serving_default, shout"):
        open_model("tensorflow", Source(tmp_path / "m" / "saved_model.pb", options={"signature": "classify"}))


def test_a_folder_that_is_no_model_says_so_at_load(tmp_path):
    from mlserve.handlers.formats import Source, open_model

    (tmp_path / "saved_model.pb").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"saved_model\.pb is not a SavedModel that tensorflow can load"):
        open_model("tensorflow", Source(tmp_path / "saved_model.pb"))


class Narrow(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.bfloat16, name="x")])
    def doubled(self, x: Any) -> dict[str, Any]:
        return {"y": x * 2}


def test_bfloat16_comes_and_goes_as_float32(tmp_path):
    from mlserve.handlers.formats import Source, open_model

    model = Narrow()
    tf.saved_model.save(model, str(tmp_path), {"serving_default": model.doubled})
    opened = open_model("tensorflow", Source(tmp_path / "saved_model.pb"))
    (given,), (answered,) = opened.signature
    assert (given.dtype, answered.dtype) == ("bfloat16", "float32")
    found = opened.infer({"x": np.array([[1.1, 2, 3]], np.float32)})["y"]
    np.testing.assert_allclose(found, [[2.2, 4, 6]], rtol=2**-8)  # bfloat16 has 8 bits of mantissa
