"""A TensorRT engine, built on this GPU and served from its file. Needs ``pip install 'mlserve[tensorrt,gpu]'``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.asking import ask, ask_together, largest_batch, refused
from support.server import LiveServer, running

pytestmark = pytest.mark.gpu

CHANNELS, WIDTHS = 3, (8, 16)


def expected(rows: Any) -> Any:
    """``relu(2 x - 1)``."""
    import numpy as np

    return np.maximum(rows * 2 - 1, 0)


def build(path: Path, batches: list[tuple[int, int]]) -> None:
    """An engine with one profile per range of batches."""
    import numpy as np
    import tensorrt as trt

    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    x = network.add_input("x", trt.float32, (-1, CHANNELS, -1, 4))
    full = np.full((CHANNELS,), 1, np.float32)
    scaled = network.add_scale(x, trt.ScaleMode.CHANNEL, trt.Weights(-full), trt.Weights(2 * full), trt.Weights(full))
    output = network.add_activation(scaled.get_output(0), trt.ActivationType.RELU).get_output(0)
    output.name = "y"
    network.mark_output(output)
    config = builder.create_builder_config()
    for low, high in batches:
        profile = builder.create_optimization_profile()
        first, last = WIDTHS
        profile.set_shape("x", (low, CHANNELS, first, 4), (low, CHANNELS, first, 4), (high, CHANNELS, last, 4))
        config.add_optimization_profile(profile)
    path.write_bytes(bytes(builder.build_serialized_network(network, config)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    pytest.importorskip("tensorrt", reason="pip install 'mlserve[tensorrt,gpu]'")
    store = tmp_path_factory.mktemp("tensorrt")
    build(store / "m.plan", [(1, 2), (3, 16)])
    (store / "m.yaml").write_text("batchSize: 16\nmaxBatchDelay: 200\nbatchPolicy: window\n")
    with running(store / "run", "m=m.plan", store=store, settings={"GPU_IDS": "0"}) as live:
        yield live


def image(seed: int, width: int = 8) -> Any:
    import numpy as np

    return np.random.default_rng(seed).random((CHANNELS, width, 4), np.float32)


def test_an_engine_answers_what_it_was_built_to_compute(server):
    import numpy as np

    for width in WIDTHS:
        answer = ask(server, "m", {"x": image(1, width).tolist()})["y"]
        np.testing.assert_allclose(answer, expected(image(1, width)), atol=1e-3)  # 1e-3: TF32 where the GPU has it


def test_requests_that_come_together_are_one_batch_on_the_profile_that_takes_them(server):
    import numpy as np

    answers = ask_together(server, "m", [{"x": image(seed).tolist()} for seed in range(12)])
    for seed, answer in enumerate(answers):
        np.testing.assert_allclose(answer["y"], expected(image(seed)), atol=1e-3)
    assert largest_batch(server, "m") > 2


def test_a_shape_beyond_every_profile_is_refused_with_the_ranges(server):
    assert refused(server, "m", {"x": image(1, 20).tolist()}) == (
        "Input 'x' has the shape [3, 20, 4]: the engine was built for x: [3, 8..16, 4]"
    )


def test_describe_names_the_gpu(server):
    assert "tensorrt" in str(server.request("GET", "/models/m?customized=true", api="management").json()[0])
