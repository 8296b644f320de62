"""``trt_llm_handler``: a language model served by TensorRT-LLM: ``{"prompt": text, ...}`` in, text out.

``streaming: true`` in the request streams ``{"text": piece}``; every other key is a sampling parameter. In
model-config.yaml ``handler: {engine_dir, tokenizer_dir, kv_cache_config}``. Set ``asyncCommunication: true``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlserve.handler import Context, PredictionError

from .optional import required
from .vllm_handler import body


class TRTLLMHandler:
    """One engine per worker. ``handle`` is a coroutine and takes one request at a time."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.api: Any = None

    def initialize(self, context: Context) -> None:
        """Load the engine. Raises ``ValueError`` if model-config.yaml does not name it."""
        self.api = required("tensorrt_llm", "trt_llm_handler", "tensorrt-llm")
        self.api = (
            self.api if hasattr(self.api, "LLM") else required("tensorrt_llm.hlapi", "trt_llm_handler", "tensorrt-llm")
        )
        options = context.model_yaml_config.get("handler")
        if not isinstance(options, Mapping) or not options.get("engine_dir"):
            raise ValueError("model-config.yaml names no engine: set handler.engine_dir")
        arguments: dict[str, Any] = {"model": options["engine_dir"]}
        if options.get("tokenizer_dir"):
            arguments["tokenizer"] = options["tokenizer_dir"]
        if options.get("kv_cache_config"):
            kv_cache = required("tensorrt_llm.llmapi", "trt_llm_handler", "tensorrt-llm").KvCacheConfig
            arguments["kv_cache_config"] = kv_cache(**options["kv_cache_config"])
        self.engine = self.api.LLM(**arguments)

    async def handle(self, data: list[Any], context: Context) -> list[Any]:
        """Answer a batch of one request."""
        if len(data) != 1:
            raise PredictionError(500, "trt_llm_handler takes one request at a time: set batchSize: 1")
        request = body(data[0])
        prompt, streaming = request.pop("prompt", None), bool(request.pop("streaming", False))
        if not isinstance(prompt, str):
            raise PredictionError(400, 'Expected a text "prompt"')
        try:
            sampling = self.api.SamplingParams(**request)
        except (TypeError, ValueError) as error:
            raise PredictionError(400, f"Sampling parameters: {error}") from error
        sent, text = 0, ""
        async for output in self.engine.generate_async(prompt, sampling_params=sampling, streaming=streaming):
            text = output.outputs[0].text
            if streaming and len(text) > sent:
                context.send_piece(0, json.dumps({"text": text[sent:]}))
                sent = len(text)
        return ["" if streaming else text]
