"""The job as a LitServe server. Its requests are JSON: text as it is, anything else as base64."""

import job
import litserve
from fastapi import Response


class Model(litserve.LitAPI):
    """The hooks of a batched API; ``batch`` and ``unbatch`` stay lists."""

    def setup(self, device):
        """Load the handler in the worker."""
        self.handler = job.load()

    def decode_request(self, request):
        """JSON to the handler's body."""
        return job.unwrap(request)

    def batch(self, inputs):
        """The list as it is."""
        return inputs

    def predict(self, bodies):
        """A list of answers."""
        return self.handler.run(bodies)

    def unbatch(self, output):
        """The list as it is."""
        return output

    def encode_response(self, output):
        """The answer without JSON around it."""
        return Response(job.encode(output), media_type="application/octet-stream")


if __name__ == "__main__":
    api = Model(max_batch_size=job.BATCH, batch_timeout=job.DELAY_MS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=job.WORKERS, timeout=120)
    server.run(host="127.0.0.1", port=job.PORT, generate_client_file=False, log_level="warning")
