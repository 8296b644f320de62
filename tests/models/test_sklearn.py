"""scikit-learn estimators served as bare files: skops and joblib, numbers and categories, and what is not trusted."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler
from support.asking import ask, ask_npy, ask_together, largest_batch, refused
from support.server import LiveServer, running

from mlserve.handler import Context, PredictionError
from mlserve.handlers.formats import Source, open_model
from mlserve.handlers.tabular import TabularHandler

TOLERANCE = 1e-9  # of probabilities: float64 all the way, JSON carries it whole; a batch may be multiplied differently

CONFIG = "batchSize: 8\nmaxBatchDelay: 150\nbatchPolicy: window\n"
TREES = "sklearn:\n  trusted: [sklearn.tree._tree.Tree]\n"
FILMS = ["a great film", "a dull film", "great fun", "no fun, dull"]
SEXES = ["female", "male", "male", "female", "male", "female"]
AGES = [22.0, 41.0, 35.0, 28.0, 60.0, 51.0]


class Served(NamedTuple):
    server: LiveServer
    models: dict[str, Any]


def cabins() -> Any:
    """A pipeline on a data frame with a column of text and one of numbers, of which some are missing."""
    encode = make_column_transformer(
        (OneHotEncoder(), ["sex"]), (make_pipeline(SimpleImputer(), StandardScaler()), ["age"])
    )
    frame = pandas.DataFrame({"sex": SEXES, "age": AGES})
    return make_pipeline(encode, LogisticRegression()).fit(frame, ["yes", "no", "no", "yes", "no", "yes"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, cancer: Any) -> Iterator[Served]:
    store = tmp_path_factory.mktemp("sklearn")
    frame = pandas.DataFrame(cancer.rows, columns=cancer.names)
    models = {
        "linear": make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, cancer.labels),
        "forest": RandomForestClassifier(20, random_state=0).fit(cancer.rows, cancer.labels),
        "ridge": Ridge().fit(cancer.rows, cancer.rows[:, :2]),
        "cabins": cabins(),
        "films": make_pipeline(CountVectorizer(), LogisticRegression()).fit(FILMS, ["good", "bad", "good", "bad"]),
    }
    skops.io.dump(models["linear"], store / "linear.skops")
    joblib.dump(models["films"], store / "films.joblib")
    skops.io.dump(models["forest"], store / "forest.skops")
    joblib.dump(models["cabins"], store / "cabins.joblib")
    (store / "ridge.pkl").write_bytes(pickle.dumps(models["ridge"]))
    (store / "linear.yaml").write_text(CONFIG)
    (store / "forest.yaml").write_text(CONFIG + TREES)
    files = [
        "linear=linear.skops",
        "forest=forest.skops",
        "ridge=ridge.pkl",
        "cabins=cabins.joblib",
        "films=films.joblib",
    ]
    with running(store / "run", *files, store=store) as server:
        yield Served(server, models)


@pytest.mark.parametrize("model", ["linear", "forest"])
def test_a_row_gets_the_estimator_s_own_class_and_probabilities(served, cancer, model):
    for row in (0, 20, 100, 568):
        given = cancer.rows[row : row + 1]
        own = served.models[model]
        given = pandas.DataFrame(given, columns=cancer.names) if model == "linear" else given
        assert ask(served.server, model, {"x": cancer.rows[row].tolist()}) == {
            "predict": own.predict(given)[0],
            "predict_proba": pytest.approx(own.predict_proba(given)[0], abs=TOLERANCE),
        }


def test_a_row_of_named_features_needs_no_order(served, cancer):
    row = dict(zip(cancer.names, cancer.rows[20].tolist(), strict=True))
    answer = ask(served.server, "linear", dict(reversed(row.items())))
    assert answer == ask(served.server, "linear", cancer.rows[20].tolist())


def test_several_targets_and_several_rows_keep_their_shape(served, cancer):
    expected = served.models["ridge"].predict(cancer.rows[:3])
    np.testing.assert_allclose(ask(served.server, "ridge", cancer.rows[:3].tolist())["predict"], expected)
    np.testing.assert_allclose(ask_npy(served.server, "ridge", cancer.rows[:3])["predict"], expected)
    np.testing.assert_allclose(ask(served.server, "ridge", cancer.rows[0].tolist())["predict"], expected[0])


@pytest.mark.parametrize("model", ["linear", "forest"])
def test_requests_that_come_together_are_one_batch_and_each_gets_its_own_answer(served, cancer, model):
    answers = ask_together(served.server, model, [cancer.rows[row].tolist() for row in range(16)])
    given = pandas.DataFrame(cancer.rows[:16], columns=cancer.names) if model == "linear" else cancer.rows[:16]
    expected = served.models[model].predict_proba(given)
    np.testing.assert_allclose([one["predict_proba"] for one in answers], expected, atol=TOLERANCE, rtol=0)
    assert largest_batch(served.server, model) > 1


def test_categories_are_named_where_the_pipeline_encodes_them(served):
    frame = pandas.DataFrame({"sex": ["female", "male"], "age": [30.0, np.nan]})
    expected = served.models["cabins"].predict_proba(frame)
    answer = ask(served.server, "cabins", {"age": 30, "sex": "female"})
    assert answer == {"predict": "yes", "predict_proba": pytest.approx(expected[0], abs=TOLERANCE)}
    several = ask(served.server, "cabins", [["female", 30], ["male", None]])
    assert several["predict"] == served.models["cabins"].predict(frame).tolist()
    np.testing.assert_allclose(several["predict_proba"], expected, atol=TOLERANCE)
    assert refused(served.server, "cabins", {"age": 30, "sex": "seal"}) == (
        "Feature sex is 'seal', which the model does not know; known are female, male"
    )
    assert refused(served.server, "cabins", {"age": "old", "sex": "male"}).startswith("Feature age is 'old'")
    assert refused(served.server, "cabins", {"age": 3, "sex": 1}) == (
        "Input 'sex' holds more than text: expected sex: BYTES []"
    )


def opened(folder: Path, estimator: Any) -> TabularHandler:
    """The handler with the estimator, as it is after loading its file."""
    joblib.dump(estimator, folder / "m.joblib")
    handler = TabularHandler()
    handler.runtime = open_model("sklearn", Source(folder / "m.joblib"))
    handler.signature = handler.runtime.signature
    return handler


def predicted(handler: TabularHandler, body: Any) -> Any:
    """What ``predict`` answers, or the message of the refusal."""
    (answer,) = handler.handle([{"body": body}], Context("m", "."))
    return answer.message if isinstance(answer, PredictionError) else json.loads(answer.body)["predict"]


CODES, CLASSES = np.array([[1, 5], [2, 6], [1, 6], [2, 5]]), ["a", "b", "a", "b"]


@pytest.mark.parametrize("dtype", [int, float, object])
@pytest.mark.parametrize("named", [False, True])
def test_a_code_that_the_encoder_has_not_seen_is_refused_and_no_error_of_the_model(tmp_path, named, dtype):
    table = pandas.DataFrame(CODES, columns=["cabin", "deck"]) if named else CODES
    table = table.astype(dtype)
    columns = ["cabin"] if named else [0]
    parts = make_column_transformer((OneHotEncoder(), columns), remainder="passthrough")
    name = "cabin" if named else "number 0"
    for first in (OneHotEncoder(), OrdinalEncoder(), parts):
        handler = opened(tmp_path, make_pipeline(first, LogisticRegression()).fit(table, CLASSES))
        assert predicted(handler, [1, 5]) == "a"
        assert predicted(handler, [[1, 5], [2, 5]]) == ["a", "b"]
        assert predicted(handler, [7, 5]).startswith(f"Feature {name} is 7.0, which the model does not know; known are")
        assert predicted(handler, [None, 5]).startswith(f"Feature {name} is ")
    handler = opened(tmp_path, make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge()).fit(table, [1, 2, 1, 2]))
    assert isinstance(predicted(handler, [7, 5]), float)


def test_a_code_that_another_step_changes_first_is_not_compared_with_the_encoder_s(tmp_path):
    gaps = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(), LogisticRegression())
    assert predicted(opened(tmp_path, gaps.fit(CODES, CLASSES)), [None, 5]) == "a"
    negated = make_pipeline(FunctionTransformer(np.negative), OneHotEncoder(), Ridge()).fit(CODES, [1, 2, 1, 2])
    assert isinstance(predicted(opened(tmp_path, negated), [1, 5]), float)


@pytest.mark.parametrize("named", [False, True])
def test_a_pipeline_that_begins_with_an_encoder_takes_the_text_it_was_fitted_to(tmp_path, named):
    table: Any = np.array([["red", 1], ["blue", 2], ["red", 2], ["blue", 1]], object)
    names = ["color", "size"] if named else ["x0", "x1"]
    table = pandas.DataFrame(table, columns=names) if named else table
    handler = opened(tmp_path, make_pipeline(OneHotEncoder(), LogisticRegression()).fit(table, CLASSES))
    assert predicted(handler, {names[1]: 1, names[0]: "red"}) == "a"
    assert predicted(handler, [["red", 1], ["blue", 2]]) == ["a", "b"]
    assert predicted(handler, ["green", 1]).startswith(f"Feature {names[0]} is 'green', which the model does not know")
    assert predicted(handler, ["red", 3]).startswith(f"Feature {names[1]} is 3.0, which the model does not know")


def test_a_pipeline_of_texts_takes_text(served):
    expected = served.models["films"].predict_proba(["great great fun"])[0]
    answer = {"predict": "good", "predict_proba": pytest.approx(expected, abs=TOLERANCE)}
    assert ask(served.server, "films", {"x": "great great fun"}) == answer
    reply = served.server.request("POST", "/predictions/films", b"great great fun", {"content-type": "text/plain"})
    assert reply.json() == answer
    assert refused(served.server, "films", {"x": 3}) == "Input 'x' holds more than text: expected x: BYTES []"


def test_a_wrong_row_is_refused_with_what_the_model_takes(served, cancer):
    row = cancer.rows[0].tolist()
    server = served.server
    assert refused(server, "linear", [None, *row[1:]]).startswith("Feature mean radius is missing (NaN)")
    assert refused(server, "linear", ["M", *row[1:]]).startswith("Feature mean radius is 'M': the model takes numbers")
    assert refused(server, "forest", row[:2]) == "A row of 2 values, expected 30: the model takes x: FP64 [30]"
    assert refused(server, "forest", {"y": row}) == (
        "input 'x' is missing; unknown input 'y': the model takes x: FP64 [30]"
    )
    assert refused(server, "linear", {"mean radius": 1}).startswith("feature 'mean texture' is missing; ")
    assert ask(server, "forest", [None, *row[1:]])["predict"] in (0, 1), "trees take missing values"


def test_a_pickle_is_served_with_a_warning_that_says_what_would_be_safer(served):
    log = served.server.log_text()
    for file in ("cabins.joblib", "films.joblib", "ridge.pkl"):
        (line,) = [line for line in log.splitlines() if f"{file} is a pickle" in line]
        assert "skops" in line
        assert "skl2onnx" in line
    assert "linear.skops is a pickle" not in log


def test_types_that_skops_does_not_trust_are_named_with_the_setting_that_trusts_them(tmp_path, cancer):
    forest = RandomForestClassifier(2, max_depth=2).fit(cancer.rows, cancer.labels)
    skops.io.dump(forest, tmp_path / "m.skops")
    with pytest.raises(ValueError, match=r"sklearn: \{trusted: \[sklearn\.tree\._tree\.Tree\]\} into model-config"):
        open_model("sklearn", Source(tmp_path / "m.skops"))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("m.skops", b"nonsense", "m.skops is not a .skops file"),
        ("m.pkl", b"nonsense", "m.pkl cannot be unpickled"),
        ("m.pkl", pickle.dumps({"a": 1}), "m.pkl holds a dict, which is no estimator"),
    ],
)
def test_a_file_that_is_no_estimator_says_so_at_load(tmp_path, file, content, said):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        open_model("sklearn", Source(tmp_path / file))


def test_targets_of_several_classes_each_have_their_probabilities(tmp_path, cancer):
    targets = np.c_[cancer.labels, np.digitize(cancer.rows[:, 1], (15, 20))]
    own = RandomForestClassifier(3, max_depth=3, random_state=0).fit(cancer.rows, targets)
    joblib.dump(own, tmp_path / "m.joblib")
    found = open_model("sklearn", Source(tmp_path / "m.joblib"))
    answer = found.infer({"x": cancer.rows[:4]})
    assert list(answer) == ["predict", "predict_proba_0", "predict_proba_1"]
    for target, expected in enumerate(own.predict_proba(cancer.rows[:4])):
        np.testing.assert_array_equal(answer[f"predict_proba_{target}"], expected)
    assert [one.features for one in found.signature.outputs] == [(), ("0", "1"), ("0", "1", "2")]


def test_an_estimator_keeps_to_the_worker_s_threads(tmp_path, cancer):
    own = make_pipeline(StandardScaler(), RandomForestClassifier(3, n_jobs=-1)).fit(cancer.rows, cancer.labels)
    joblib.dump(own, tmp_path / "m.joblib")
    loaded = open_model("sklearn", Source(tmp_path / "m.joblib", threads=2))
    assert loaded._estimator[-1].n_jobs == 2


def test_methods_of_the_configuration_are_called_instead(tmp_path, cancer):
    skops.io.dump(LogisticRegression(max_iter=500).fit(cancer.rows[:, :2], cancer.labels), tmp_path / "m.skops")
    chosen = open_model("sklearn", Source(tmp_path / "m.skops", options={"methods": ["decision_function"]}))
    assert list(chosen.infer({"x": cancer.rows[:4, :2]})) == ["decision_function"]
    with pytest.raises(ValueError, match="LogisticRegression has no transform"):
        open_model("sklearn", Source(tmp_path / "m.skops", options={"methods": ["transform"]}))
