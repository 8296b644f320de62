"""The job as a model of Triton's Python backend: a string in, a string out, a batch per call of ``execute``."""

import job
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """What the backend looks for."""

    def initialize(self, args):
        """Load the handler."""
        self.handler = job.load()

    def execute(self, requests):
        """One response per request, of the handler's answers to all of them at once."""
        bodies = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().item() for request in requests]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([[job.encode(answer)]], dtype=np.object_))])
            for answer in self.handler.run(bodies)
        ]
