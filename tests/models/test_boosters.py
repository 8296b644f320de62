"""XGBoost and LightGBM models of ``load_breast_cancer``, served as bare files and asked for rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pytest
import xgboost
from support.asking import ask, ask_npy, ask_together, largest_batch, refused
from support.server import LiveServer, running

TOLERANCE = 1e-6  # of probabilities: JSON carries float32 whole, a batch of another size sums no tree differently
CONFIG = "batchSize: 8\nmaxBatchDelay: 150\nbatchPolicy: window\n"


class Served(NamedTuple):
    server: LiveServer
    expected: dict[str, Any]  # model -> the library's own answers to every row


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, cancer: Any) -> Iterator[Served]:
    store = tmp_path_factory.mktemp("boosters")
    data = xgboost.DMatrix(cancer.rows, cancer.labels, feature_names=cancer.names)
    xgb = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, data, num_boost_round=20)
    xgb.save_model(store / "xgb.ubj")
    xgb.save_model(store / "xgbtext.json")
    unnamed = xgboost.XGBClassifier(n_estimators=40, max_depth=3, early_stopping_rounds=1, n_jobs=1)
    unnamed.fit(cancer.rows[:300], cancer.labels[:300], eval_set=[(cancer.rows[300:], cancer.labels[300:])], verbose=0)
    unnamed.save_model(store / "early.ubj")
    table = lightgbm.Dataset(cancer.rows, cancer.labels, feature_name=[one.replace(" ", "_") for one in cancer.names])
    lgb = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, table, num_boost_round=20)
    lgb.save_model(store / "lgb.txt")
    lgb.save_model(store / "lgbtoo.lgb")
    for name in ("xgb", "lgb"):
        (store / f"{name}.yaml").write_text(CONFIG)
    expected = {
        "xgb": xgb.predict(data),
        "xgbtext": xgb.predict(data),
        "early": unnamed.predict_proba(cancer.rows)[:, 1],
        "lgb": lgb.predict(cancer.rows),
        "lgbtoo": lgb.predict(cancer.rows),
    }
    assert unnamed.best_iteration + 1 < unnamed.get_booster().num_boosted_rounds(), "nothing stopped early"
    models = ["xgb=xgb.ubj", "xgbtext=xgbtext.json", "early=early.ubj", "lgb=lgb.txt", "lgbtoo=lgbtoo.lgb"]
    with running(store / "run", *models, store=store) as server:
        yield Served(server, expected)


def named(model: str, cancer: Any, row: int) -> dict[str, float]:
    names = [one.replace(" ", "_") if model.startswith("lgb") else one for one in cancer.names]
    return dict(zip(names, cancer.rows[row].tolist(), strict=True))


@pytest.mark.parametrize("model", ["xgb", "xgbtext", "early", "lgb", "lgbtoo"])
def test_a_row_gets_the_library_s_own_answer(served, cancer, model):
    for row in (0, 20, 100, 568):
        answer = ask(served.server, model, {"x": cancer.rows[row].tolist()})
        assert answer == {"predict": pytest.approx(served.expected[model][row], abs=TOLERANCE)}
        assert ask(served.server, model, cancer.rows[row].tolist()) == answer


@pytest.mark.parametrize("model", ["xgb", "lgb"])
def test_a_row_of_named_features_needs_no_order(served, cancer, model):
    row = named(model, cancer, 20)
    backwards = dict(reversed(row.items()))
    expected = pytest.approx(served.expected[model][20], abs=TOLERANCE)
    assert ask(served.server, model, backwards) == {"predict": expected}


@pytest.mark.parametrize("model", ["xgb", "lgb"])
def test_a_list_of_rows_is_answered_by_a_list(served, cancer, model):
    expected = {"predict": pytest.approx(served.expected[model][:5], abs=TOLERANCE)}
    assert ask(served.server, model, cancer.rows[:5].tolist()) == expected
    assert ask(served.server, model, [named(model, cancer, row) for row in range(5)]) == expected
    assert ask_npy(served.server, model, cancer.rows[:5]) == expected


@pytest.mark.parametrize("model", ["xgb", "lgb"])
def test_requests_that_come_together_are_one_batch_and_each_gets_its_own_answer(served, cancer, model):
    answers = ask_together(served.server, model, [cancer.rows[row].tolist() for row in range(16)])
    np.testing.assert_allclose([one["predict"] for one in answers], served.expected[model][:16], atol=TOLERANCE, rtol=0)
    assert largest_batch(served.server, model) > 1


@pytest.mark.parametrize("model", ["xgb", "lgb"])
def test_null_is_a_missing_value_as_in_training(served, cancer, model):
    row = named(model, cancer, 3)
    row[next(iter(row))] = None  # type: ignore[assignment]
    array = cancer.rows[3].copy()
    array[0] = np.nan
    answer = ask(served.server, model, row)["predict"]
    assert answer == pytest.approx(ask_npy(served.server, model, array)["predict"])
    assert 0 <= answer <= 1


def test_a_wrong_row_is_refused_with_what_the_model_takes(served, cancer):
    row = named("xgb", cancer, 0)
    assert refused(served.server, "xgb", {**row, "mean radius": "large"}).startswith(
        "Feature mean radius is 'large': the model takes numbers only"
    )
    assert refused(served.server, "xgb", [*cancer.rows[0].tolist()[:-1], "large"]).startswith(
        "Feature worst fractal dimension is 'large'"
    )
    assert refused(served.server, "early", ["large", *cancer.rows[0].tolist()[1:]]).startswith("Feature number 0 is")
    row.pop("mean area")
    assert refused(served.server, "xgb", {**row, "age": 3}).startswith(
        "feature 'mean area' is missing; unknown feature 'age': the model takes mean radius, mean texture"
    )
    assert refused(served.server, "lgb", [1, 2]) == "A row of 2 values, expected 30: the model takes x: FP64 [30]"
    assert refused(served.server, "lgb", {"x": [1, 2]}) == "Input 'x' has the shape [2]: the model takes x: FP64 [30]"
    assert refused(served.server, "early", {"mean radius": 1}) == (
        "input 'x' is missing; unknown input 'mean radius': the model takes x: FP32 [30]"
    )


def test_infinity_is_refused_to_its_sender_where_the_library_would_fail_the_batch(served, cancer):
    row = cancer.rows[0].tolist()
    row[1] = float("inf")
    assert refused(served.server, "xgb", row) == "Feature mean texture is infinite: the model takes finite numbers only"


def test_describe_names_the_features(served, cancer):
    found = served.server.request("GET", "/models/xgb?customized=true", api="management").json()[0]
    assert "worst fractal dimension" in str(found)


@pytest.mark.parametrize(("runtime", "file"), [("xgboost", "m.ubj"), ("lightgbm", "m.txt")])
def test_a_file_that_is_no_model_says_so_at_load(tmp_path, runtime, file):
    from mlserve.handlers.formats import Source, open_model

    (tmp_path / file).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=f"{file} is not a model that {runtime} can read"):
        open_model(runtime, Source(tmp_path / file))
