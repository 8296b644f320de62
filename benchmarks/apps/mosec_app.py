"""The job as a mosec server."""

import job
from mosec import Server, Worker


class Model(Worker):
    """One stage, which takes and gives bytes."""

    resp_mime_type = "application/octet-stream"

    def __init__(self):
        super().__init__()
        self.handler = job.load()

    def deserialize(self, data):
        """The body as it is."""
        return data

    def serialize(self, data):
        """The answer as bytes."""
        return job.encode(data)

    def forward(self, data):
        """A list of bodies, or one body if the batch size is 1."""
        return self.handler.run(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=job.WORKERS, max_batch_size=job.BATCH, max_wait_time=job.DELAY_MS)
    server.run()
