"""Text in, sentence embedding of MiniLM out, with torch and tokenizers alone. Runs unchanged on every server.

A batch is padded to its longest text, so that what a server puts together decides how much is computed for nothing.
"""

import json
import os

import tokenizers
import torch

LIMIT = 256  # tokens: the model's own


class Handler:
    """The class form of a handler, and ``load`` and ``run`` for servers that call plain code."""

    def load(self, folder):
        """Load tokenizer and TorchScript model. The thread count is the same in every way of running it."""
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.tokenizer.enable_truncation(LIMIT)
        self.tokenizer.enable_padding()
        self.model = torch.jit.load(os.path.join(folder, "minilm.pt")).eval()

    def run(self, bodies):
        """The mean of each text's token vectors, as a unit vector: 384 numbers as JSON text per body."""
        texts = [body if isinstance(body, str) else bytes(body).decode() for body in bodies]
        found = self.tokenizer.encode_batch(texts)
        ids = torch.tensor([each.ids for each in found])
        mask = torch.tensor([each.attention_mask for each in found])
        with torch.inference_mode():
            vectors = self.model(ids, mask)
            weights = mask.unsqueeze(-1).float()
            mean = (vectors * weights).sum(1) / weights.sum(1)
            rows = torch.nn.functional.normalize(mean).tolist()
        return [json.dumps([round(value, 6) for value in row]) for row in rows]

    def initialize(self, context):
        """As archives are loaded."""
        self.load(context.system_properties["model_dir"])

    def handle(self, data, context):
        """As archives are asked."""
        return self.run([row.get("data") or row.get("body") for row in data])
