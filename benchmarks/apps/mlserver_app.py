"""The job as a runtime of MLServer: requests of one string, which the server joins on their first axis."""

import json

import job
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Model(MLModel):
    """What model-settings.json names."""

    async def load(self) -> bool:
        """Load the handler."""
        self.handler = job.load()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The batch's strings, each a JSON object with ``text`` or ``base64``; answers likewise."""
        bodies = [job.unwrap(json.loads(text)) for text in payload.inputs[0].data.root]
        answers = [json.dumps(job.wrap(answer)) for answer in self.handler.run(bodies)]
        output = ResponseOutput(name="out", shape=[len(answers), 1], datatype="BYTES", data=answers)
        return InferenceResponse(model_name=self.name, outputs=[output])
