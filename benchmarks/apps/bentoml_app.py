"""The job as a BentoML service. Its requests are JSON; a batchable API takes and gives lists, of one here."""

import bentoml
import job


@bentoml.service(
    workers=job.WORKERS, traffic={"timeout": 120, "max_concurrency": 4096}, logging={"access": {"enabled": False}}
)
class Model:
    """One API."""

    def __init__(self) -> None:
        self.handler = job.load()

    @bentoml.api(batchable=True, max_batch_size=job.BATCH)
    def predict(self, bodies: list[dict[str, str]]) -> list[dict[str, str]]:
        """A list of bodies, each in an object with ``text`` or ``base64``, and answers likewise."""
        return [job.wrap(answer) for answer in self.handler.run([job.unwrap(body) for body in bodies])]
