"""``vllm_handler``: a language model served by vLLM, in the form of OpenAI's completions, streamed on request.

The path behind the model's name chooses: ``v1/completions``, ``v1/chat/completions`` or ``v1/models``. The model is
``handler: {model_path: DIR}`` of model-config.yaml, in the archive or elsewhere, or ``handler: {vllm_engine_config:
{model: NAME, ...}}``, which holds the arguments of vLLM's engine. Set ``asyncCommunication: true``: then vLLM batches
requests itself, token by token.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from mlserve.handler import Context, PredictionError

from .optional import required

DONE = "data: [DONE]\n\n"
SAMPLING = (
    "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "seed",
    "presence_penalty", "frequency_penalty", "ignore_eos", "min_tokens",
)  # fmt: skip


class VLLMHandler:
    """One engine per worker. ``handle`` is a coroutine and takes one request at a time."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.vllm: Any = None
        self.served = ""

    def initialize(self, context: Context) -> None:
        """Start the engine."""
        self.vllm = required("vllm", "vllm_handler", "vllm")
        options = context.model_yaml_config.get("handler")
        arguments = engine_arguments(options, Path(context.system_properties["model_dir"]))
        name = arguments.get("served_model_name") or arguments["model"]
        self.served = str(name[0] if isinstance(name, list) else name)
        self.engine = self.vllm.AsyncLLMEngine.from_engine_args(self.vllm.AsyncEngineArgs(**arguments))

    async def handle(self, data: list[Any], context: Context) -> list[Any]:
        """Answer a batch of one request. Raises :class:`PredictionError` for what the protocol does not know."""
        if len(data) != 1:
            raise PredictionError(500, "vllm_handler takes one request at a time: set batchSize: 1")
        path = str(context.get_request_header(0, "url_path") or "").strip("/")
        if path == "v1/models":
            return [{"object": "list", "data": [{"id": self.served, "object": "model", "owned_by": "vllm"}]}]
        if path not in ("v1/completions", "v1/chat/completions"):
            raise PredictionError(404, f"Unknown API endpoint: {path or '(none)'}; known: v1/completions, "
                                  "v1/chat/completions, v1/models")  # fmt: skip
        request, chat = body(data[0]), "chat" in path
        outputs = self.engine.generate(
            await self._prompt(request, chat), self._sampling(request), context.get_request_id(0)
        )
        if request.get("stream"):
            return [await self._stream(outputs, chat, context)]
        last: Any = None
        async for output in outputs:
            last = output
        return [self._answer(last, chat, context)]

    async def _prompt(self, request: Mapping[str, Any], chat: bool) -> str:
        if not chat:
            if not isinstance(request.get("prompt"), str):
                raise PredictionError(400, 'Expected a text "prompt"')
            return str(request["prompt"])
        if not isinstance(request.get("messages"), list):
            raise PredictionError(400, 'Expected a list "messages"')
        tokenizer = await self.engine.get_tokenizer()
        return str(tokenizer.apply_chat_template(request["messages"], tokenize=False, add_generation_prompt=True))

    def _sampling(self, request: Mapping[str, Any]) -> Any:
        chosen = {key: request[key] for key in SAMPLING if request.get(key) is not None}
        try:
            return self.vllm.SamplingParams(**chosen)
        except (TypeError, ValueError) as error:
            raise PredictionError(400, f"Sampling parameters: {error}") from error

    def _head(self, chat: bool, context: Context, chunk: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if chat else "text_completion"
        return {"id": context.get_request_id(0), "object": kind, "created": int(time.time()), "model": self.served}

    def _answer(self, output: Any, chat: bool, context: Context) -> dict[str, Any]:
        choices = []
        for made in output.outputs:
            text = {"message": {"role": "assistant", "content": made.text}} if chat else {"text": made.text}
            choices.append({"index": made.index, **text, "finish_reason": made.finish_reason})
        prompt, completion = len(output.prompt_token_ids or ()), sum(len(made.token_ids) for made in output.outputs)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return {**self._head(chat, context, False), "choices": choices, "usage": usage}

    async def _stream(self, outputs: AsyncIterator[Any], chat: bool, context: Context) -> str:
        """Send what is new of each step as a server-sent event; returns the last one."""
        sent: dict[int, int] = {}
        async for output in outputs:
            choices = []
            for made in output.outputs:
                new = made.text[sent.get(made.index, 0) :]
                sent[made.index] = len(made.text)
                text = {"delta": {"content": new}} if chat else {"text": new}
                choices.append({"index": made.index, **text, "finish_reason": made.finish_reason})
            event = {**self._head(chat, context, True), "choices": choices}
            context.send_piece(0, f"data: {json.dumps(event)}\n\n")
        return DONE


def engine_arguments(options: Any, folder: Path) -> dict[str, Any]:
    """Arguments of vLLM's engine from the section ``handler``. Raises ``ValueError`` if no model is named."""
    options = options if isinstance(options, Mapping) else {}
    arguments = dict(options.get("vllm_engine_config") or {})
    if not arguments.get("model"):
        path = options.get("model_path")
        if not path:
            raise ValueError("model-config.yaml names no model: set handler.model_path or vllm_engine_config.model")
        arguments["model"] = str(folder / path) if (folder / path).exists() else str(path)
    return arguments


def body(row: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of a request. Raises :class:`PredictionError` with status 400 if it is none."""
    value = row.get("data") or row.get("body")
    if isinstance(value, (bytes, bytearray, str)):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise PredictionError(400, f"The request body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise PredictionError(400, "The request body must be a JSON object")
    return value
