"""Putting load on a server and measuring it: arrivals, histograms, clients and the closed and open loops.

    target = Target("http://127.0.0.1:8080", model_path("echo"), (Payload(b"x"),))
    result = await closed_loop(target, concurrency=8, seconds=10, warmup=1)
    result.rate, result.quantile(0.99), result.errors

``mlserve bench`` is the command over it. One thread of one process drives everything; :attr:`LoadResult.cpu_share`
tells when that is what limits a run.
"""

from mlserve.load.histogram import Histogram
from mlserve.load.result import LoadResult
from mlserve.load.runners import closed_loop, open_loop
from mlserve.load.target import Payload, Target, model_path

__all__ = ["Histogram", "LoadResult", "Payload", "Target", "closed_loop", "model_path", "open_loop"]
