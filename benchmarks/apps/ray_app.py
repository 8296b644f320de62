"""The job as a Ray Serve deployment, on a Ray of its own in this process's children."""

import signal
import sys

import job
import ray
from fastapi import Response
from ray import serve


@serve.deployment(num_replicas=job.WORKERS, max_ongoing_requests=4096, ray_actor_options={"num_cpus": 1})
class Model:
    """Takes the raw request; the batch is made by the decorator."""

    def __init__(self):
        self.handler = job.load()

    @serve.batch(max_batch_size=job.BATCH, batch_wait_timeout_s=job.DELAY_MS / 1000)
    async def run(self, bodies):
        """A list of answers."""
        return self.handler.run(bodies)

    async def __call__(self, request):
        """One body in, one answer out."""
        answer = await self.run(await request.body())
        return Response(job.encode(answer), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, object_store_memory=256 << 20, _temp_dir=sys.argv[1])
    serve.start(http_options={"host": "127.0.0.1", "port": job.PORT})
    serve.run(Model.bind(), route_prefix="/predict")
    signal.signal(signal.SIGTERM, lambda number, frame: ray.shutdown() or exit(0))
    signal.pause()
