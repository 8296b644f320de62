"""Settings predicted from measured batches, and the configuration that is written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlserve.archive.spec import Sources, build_spec
from mlserve.archive.yamlfile import parse_config
from mlserve.cli.sources import CommandLine, read_settings
from mlserve.cli.tune import at_once_of
from mlserve.cli.tune_measure import Answers, Refused, point_of
from mlserve.cli.tune_report import config_text
from mlserve.cli.tune_search import (
    Curve,
    Point,
    Setting,
    Setup,
    Slo,
    predictions,
    setups_of,
    slos_of,
    strain_of,
    trials,
    variations,
)
from mlserve.cli.tune_verify import settings_text, without
from mlserve.core.model import ModelKey, ModelSpec
from mlserve.errors import SettingError

SPEC = ModelSpec(ModelKey("model", "1.0"), "", "handler")
ONE = Setup(1, 2)
SIZES = (1, 2, 4, 8, 16, 32, 64)


def linear(each: float, fixed: float, setup: Setup = ONE, slow: float = 1.0) -> Curve:
    return Curve(setup, tuple(Point(size, each * size + fixed, (each * size + fixed) * slow) for size in SIZES))


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["p99=50ms"], {"p99": 0.05}),
        (["p99 = 0.5 s"], {"p99": 0.5}),
        (["p50=20ms,p99.9=1s"], {"p50": 0.02, "p99.9": 1.0}),
        (["p90=1.5ms", "p95=2ms"], {"p90": 0.0015, "p95": 0.002}),
    ],
)
def test_targets_are_read_as_people_write_them(texts: list[str], found: dict[str, float]) -> None:
    assert {slo.name: pytest.approx(slo.seconds) for slo in slos_of(texts)} == found


@pytest.mark.parametrize("text", ["", "p99", "p99=50", "p98=50ms", "p99=-1ms", "p99=0ms", "p99=1s,p99=2s", "99=5ms"])
def test_a_target_that_is_none_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(SettingError, match="--slo"):
        slos_of([text])


def test_the_largest_batch_that_is_in_time_wins_where_a_batch_costs_much_by_itself() -> None:
    best = predictions([linear(0.001, 0.020)], [Slo("p99", 0.060)])[0]
    assert best.clients == best.batch_size, "each in the batch that is computed"
    assert 32 <= best.batch_size <= 37  # 20 + 37 = 57 ms, 95 % of 60
    assert best.strain <= 1


def test_batches_are_kept_small_where_they_save_nothing() -> None:
    best = predictions([linear(0.010, 0.0)], [Slo("p99", 0.045)])[0]
    assert best.clients == 2 * best.batch_size, "the next batch waits already: the worker never pauses"
    assert best.batch_size in (1, 2)


def test_slow_batches_count_for_high_quantiles_only() -> None:
    curve = linear(0.001, 0.010, slow=3.0)
    tight = predictions([curve], [Slo("p99", 0.060)])[0]
    loose = predictions([curve], [Slo("p50", 0.060)])[0]
    assert loose.batch_size > 2 * tight.batch_size


def test_the_setup_with_more_answers_is_preferred() -> None:
    two = Setup(2, 1)
    slower = [linear(0.001, 0.010), linear(0.0015, 0.015, two)]
    assert predictions(slower, [Slo("p99", 0.1)])[0].setup == two
    much_slower = [linear(0.001, 0.010), linear(0.003, 0.030, two)]
    assert predictions(much_slower, [Slo("p99", 0.1)])[0].setup == ONE


@given(each=st.floats(0.0001, 0.05), fixed=st.floats(0, 0.1), slow=st.floats(1, 2), target=st.floats(0.005, 2))
def test_the_best_prediction_is_the_best_of_all(each: float, fixed: float, slow: float, target: float) -> None:
    curve, slos = linear(each, fixed, slow=slow), [Slo("p99", target)]
    found = predictions([curve], slos)
    good = [one for one in found if one.strain <= 1]
    if good:
        assert found[0].rate == max(one.rate for one in good)
    else:
        assert found[0].strain == min(one.strain for one in found)
    chosen = trials(found, [curve], slos, 4)
    assert 1 <= len(chosen) <= 4
    assert all(0 <= one.setting.delay_ms <= 100 for one in chosen)
    assert chosen[0].setting.batch_size == found[0].batch_size


def test_a_target_out_of_reach_is_tried_once_where_it_is_nearest() -> None:
    curve, slos = linear(0.010, 0.040), [Slo("p99", 0.010)]
    (only,) = trials(predictions([curve], slos), [curve], slos, 4)
    assert (only.setting.batch_size, only.clients) == (1, (1,))


def test_a_request_may_wait_as_long_as_the_target_leaves() -> None:
    curve, slos = linear(0.010, 0.010), [Slo("p50", 0.2), Slo("p99", 0.060)]
    delays = {
        one.setting.batch_size: one.setting.delay_ms for one in trials(predictions([curve], slos), [curve], slos, 9)
    }
    assert delays[2] == 29  # 60 - 30 ms, less the way to and from the worker


def test_clients_that_come_back_together_are_waited_for_although_the_target_leaves_nothing() -> None:
    curve, slos = linear(0.010, 0.020), [Slo("p99", 0.0605)]
    best = trials(predictions([curve], slos), [curve], slos, 9)[0]
    assert best.setting.batch_size == 4
    assert best.setting.delay_ms == 3, "5 % of 60 ms"


def test_variations_keep_batch_and_setup() -> None:
    best = Setting(ONE, 8, 12.0)
    adaptive, plain = variations(best, [Slo("p50", 0.02), Slo("p99", 0.05)], [100, 120])
    assert (adaptive.policy, adaptive.target_ms, adaptive.batch_size) == ("adaptive", 20.0, 8)
    assert (plain.policy, plain.delay_ms) == ("eager", 0.0)
    assert variations(Setting(ONE, 1, 12.0), [Slo("p99", 0.05)], [1, 9]) == [], "nothing to cut"


def test_batches_of_similar_inputs_are_tried_where_inputs_differ() -> None:
    policies = [one.policy for one in variations(Setting(ONE, 8, 12.0), [Slo("p99", 0.05)], [100, 160])]
    assert policies == ["bucket", "adaptive", "eager"]


def test_cpus_are_shared_out_and_gpus_have_a_worker_each() -> None:
    assert setups_of(8, 0, at_once=[1]) == [Setup(1, 8), Setup(2, 4), Setup(4, 2), Setup(8, 1)]
    assert setups_of(1.5, 0) == [Setup(1, 1)]
    assert setups_of(16, 2) == [Setup(1, 0), Setup(2, 0)]
    assert setups_of(8, 0, [3], [1, 2], [1]) == [Setup(3, 1), Setup(3, 2)]


def test_a_batch_per_core_in_one_worker_is_not_left_out() -> None:
    assert setups_of(2, 0) == [Setup(1, 2), Setup(1, 2, 2), Setup(2, 1)]
    assert setups_of(8, 0, [1]) == [Setup(1, 8), Setup(1, 8, 8)]
    assert setups_of(8, 0, [1], [4], [2]) == [Setup(1, 4, 2)]


def test_batches_at_once_count_as_so_many_workers() -> None:
    found = predictions([linear(0.001, 0.010), linear(0.0015, 0.015, Setup(1, 2, 2))], [Slo("p99", 0.1)])
    assert found[0].setup == Setup(1, 2, 2)
    assert found[0].clients in (2 * found[0].batch_size, 4 * found[0].batch_size)
    config = trials(found, [linear(0.0015, 0.015, found[0].setup)], [Slo("p99", 0.1)], 1)[0].setting.config()
    assert (config["minWorkers"], config["threadsPerWorker"], config["handlerThreads"]) == (1, 2, 2)


@pytest.mark.parametrize("setup", [Setup(2, 1), Setup(1, 0), Setup(1, 4, 2)])
@pytest.mark.parametrize("before", ["", "handlerThreads: 4\n", "handler_threads: 4\nthreads_per_worker: 3\n"])
def test_the_written_file_is_served_with_other_settings_than_were_measured(before: str, setup: Setup) -> None:
    """``[model.NAME]`` and ``[defaults]`` of the server fill in what a file leaves open."""
    setting = Setting(setup, 8, 12.0)
    settings = {"handler_threads": 2, "threads_per_worker": 7, "batch_policy": "adaptive", "min_workers": 3}
    for config in (
        yaml.safe_load(config_text(before, setting.config(), "c.yaml", "said")),
        {**without(parse_config(before.encode(), "c.yaml") if before else {}), **setting.config()},  # as it is verified
    ):
        spec = build_spec(
            Sources(
                Path(), "m", "m", {"handler": "h"}, config=config, defaults=settings, model_settings={"m": settings}
            )
        )
        assert (spec.handler_threads, spec.threads_per_worker) == (setup.at_once, setup.threads)
        assert (spec.min_workers, spec.max_workers) == (setup.workers, setup.workers)
        assert (spec.batch_size, spec.max_batch_delay_ms, spec.batch_policy) == (8, 12.0, "eager")


def test_a_setting_is_verified_with_other_settings_than_it_was_measured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the archive are in its own file."""
    monkeypatch.chdir(tmp_path)
    sources = Sources(
        Path(), "", "m", {"handler": "h"}, config={"responseTimeout": 7, "batchSize": 9},
        defaults={"startup_timeout": 600.0, "isolate_errors": False, "batch_policy": "window"},
        model_settings={"m": {"device_type": "gpu", "device_ids": (1, 3), "response_timeout": 5.0, "workers": 4}},
    )  # fmt: skip
    (tmp_path / "mlserve.toml").write_text(settings_text(build_spec(sources), [1, 3]))
    settings = read_settings(CommandLine())
    assert settings.gpu.ids == (1, 3)
    given = settings.model["tuned"]
    expected = {"startup_timeout": 600.0, "isolate_errors": False, "device_type": "gpu", "device_ids": (1, 3)}
    assert {name: given[name] for name in expected} == expected
    assert not {"response_timeout", "batch_size", "batch_policy", "min_workers"} & given.keys()
    (tmp_path / "mlserve.toml").write_text(settings_text(build_spec(Sources(Path(), "", "m", {"handler": "h"})), []))
    assert read_settings(CommandLine()).gpu.ids == ()


def test_answers_that_several_batches_at_once_change_are_taken_for_right() -> None:
    answers = Answers()
    answers.note([(0, b'{"score": 0.5}'), (1, b"cat"), (0, b'{"score": 0.501}')], 1)
    answers.note([(0, b'{"score": 0.499}'), (1, b"cat")], 2)
    with pytest.raises(Refused, match=r"input 2 differs"):
        answers.note([(1, b"dog")], 2)
    assert not answers.vary


def test_answers_that_vary_by_themselves_are_compared() -> None:
    answers = Answers()
    answers.note([(0, b"12:01"), (0, b"12:02")], 1)
    assert answers.vary
    answers.note([(0, b"12:03")], 2)


@pytest.mark.parametrize("other", [{"async_communication": True}, {"preprocess_threads": 1}, {"parallel_level": 2}])
def test_several_batches_at_once_are_tried_where_they_cannot_be(other: dict[str, Any]) -> None:
    spec = replace(SPEC, **other)
    assert at_once_of(SPEC, []) == []
    assert at_once_of(spec, []) == [1]
    with pytest.raises(SettingError, match="--handler-threads"):
        at_once_of(spec, [1, 2])


def test_no_answer_meets_no_target() -> None:
    assert strain_of({"p99": math.nan}, [Slo("p99", 1.0)]) == math.inf
    assert strain_of({"p50": 0.01, "p99": 0.03}, [Slo("p50", 0.02), Slo("p99", 0.02)]) == pytest.approx(1.5)


def test_one_outlier_of_many_batches_is_left_out_and_of_few_is_not() -> None:
    assert point_of(4, [0.01] * 39 + [1.0]).slow == 0.01
    assert point_of(4, [0.01] * 4 + [1.0]).slow == 1.0
    assert point_of(4, [0.01] * 4 + [1.0]).median == 0.01


def test_comments_and_other_keys_of_the_configuration_stay() -> None:
    text = "# ours\nbatchSize: 1 # old\nmax_batch_delay: 7\nonnx: {threads: 2}\nminWorkers: 3\nhandler:\n  topk: 3\n"
    config = Setting(ONE, 8, 12.0).config()
    written = config_text(text, config, "c.yaml", "said")
    assert "# ours" in written
    assert "# said" in written
    assert "old" not in written
    expected = {"onnx": {"threads": 2}, "handler": {"topk": 3}, "max_batch_delay": 7, **config}
    assert yaml.safe_load(written) == expected


def test_what_an_earlier_tuning_said_stays() -> None:
    text = config_text("# ours\nlabels: [a]\n", Setting(ONE, 8, 12.0).config(), "c.yaml", "mlserve tune: 99 answers/s")
    again = config_text(text, Setting(ONE, 4, 5.0).config(), "c.yaml", "mlserve tune: 77 answers/s")
    assert again == text.replace("99", "77").replace("batchSize: 8", "batchSize: 4").replace("Delay: 12", "Delay: 5")


def test_a_configuration_that_is_no_lines_is_written_anew() -> None:
    config = Setting(ONE, 8, 12.0, "adaptive", 50.0).config()
    written = config_text("{batchSize: 1, labels: [a]}", config, "c.yaml", "said")
    assert yaml.safe_load(written) == {"labels": ["a"], **config}
    assert config["latencyTarget"] == 50
