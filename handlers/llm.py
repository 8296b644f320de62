"""``llm``: a causal language model of Hugging Face ``transformers``, its text streamed token by token on request.

A request is a prompt as text, or a JSON object with ``prompt`` or ``messages`` and parameters of its own; requests of a
batch are generated together. With ``"stream": true`` the answer is server-sent events, one per piece of text. A batch
ends with its longest item; vLLM (``vllm_handler``) lets new requests in between, where there is a GPU for it. The
section ``llm`` of model-config.yaml: ``model`` (the folder), ``parameters`` (where a request has none), ``dtype``,
``trust_remote_code``.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from mlserve.handler import Context, PredictionError, Response

from . import pretrained
from .copies import copied
from .pretrained import FLAG, Check, number, whole
from .readying import make_ready
from .rows import read_rows

if TYPE_CHECKING:
    from typing_extensions import Self

    from .decoding import Item

logger = logging.getLogger(__name__)

KNOWN = (*pretrained.SHARED, "parameters")
EXPECTED = 'a prompt as text, or {"prompt": "…"} or {"messages": [{"role": "user", "content": "…"}]} with parameters'
EVENTS = "text/event-stream"


def _is_stop(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return isinstance(texts, list) and len(texts) <= 16 and all(isinstance(one, str) and one for one in texts)


PARAMETERS: Mapping[str, Check] = {
    "max_new_tokens": whole(1),
    "do_sample": FLAG,
    "temperature": number(0, 100),
    "top_k": whole(0),
    "top_p": number(0.001, 1),
    "repetition_penalty": number(0.01, 100),
    "seed": (lambda value: type(value) is int and 0 <= value < 1 << 63, "a whole number from 0"),
    "stop": (_is_stop, "a text or a list of up to 16 texts"),
    "stream": FLAG,
}


class LlmHandler:
    """The handler class."""

    model_signature: Mapping[str, Any]  # shown by ``describe``

    def initialize(self, context: Context) -> None:
        """Load the folder. Raises ``ValueError`` or ``ImportError`` with what is wrong."""
        transformers = pretrained.library("llm")
        options = pretrained.section(context, "llm", KNOWN)
        folder = pretrained.folder_of(context, options, "llm")
        device = pretrained.device_of(context)
        self.tokenizer = pretrained.load_tokenizer(transformers, folder, options)
        self.model = pretrained.load_model(transformers.AutoModelForCausalLM, folder, options, device)
        own = self.model.generation_config
        # What the folder recommends is a default like any other; generate() would take it behind our back.
        names = ("repetition_penalty", *(("temperature", "top_k", "top_p") if own.do_sample is True else ()))
        recommended = {name: getattr(own, name) for name in names if getattr(own, name, None) is not None}
        self.defaults = {**recommended, **pretrained.defaults(options, PARAMETERS, "llm")}
        ends = own.eos_token_id if own.eos_token_id is not None else self.tokenizer.eos_token_id
        self.ends = set(ends if isinstance(ends, list) else [ends]) - {None}
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        if self.tokenizer.pad_token_id is None:
            raise ValueError(f"The tokenizer of {folder} has no padding, end or unknown token: items cannot batch")
        self.model.generation_config = transformers.GenerationConfig()
        self.limit = pretrained.longest(self.tokenizer, self.model.config)
        self.model_signature = {
            "runtime": f"transformers {transformers.__version__}, {type(self.model).__name__}, {device}",
            "task": "text-generation",
            "input": EXPECTED,
            "parameters": {name: takes for name, (_, takes) in PARAMETERS.items()},
            "context": self.limit,
        }
        logger.info("%s: %s, context of %s tokens", folder.name, self.model_signature["runtime"], self.limit)
        make_ready(self.handle, context, {"prompt": "a", "max_new_tokens": 2})

    def __copy__(self) -> Self:
        return copied(self, tokenizer=copy.deepcopy(self.tokenizer))

    def handle(self, data: list[Any], context: Context) -> list[Any]:
        """Answer a batch: one element per row. Rows that stream have had all but their last piece by then."""
        from .decoding import generate, groups

        begun = perf_counter()
        items, answers = read_rows(range(len(data)), lambda index: self.item(data[index], index, context), data)
        ready = perf_counter()
        rows, prompts = list(items), list(items.values())
        for group in groups(prompts, self.limit):
            indices = [rows[one] for one in group]
            gone = partial(lambda indices, row: context.is_cancelled(indices[row]), indices)
            generate(self.model, self.tokenizer, [prompts[one] for one in group], self.ends, gone)
        for index, item in items.items():
            answers[index] = answer(item)
        context.phases.add("preprocess", ready - begun)
        context.phases.add("inference", perf_counter() - ready)
        return [answers[index] for index in range(len(data))]

    def item(self, row: Any, index: int, context: Context) -> Item:
        """The row's prompt and parameters. Raises :class:`PredictionError` with status 400."""
        from .decoding import Item, sampling_of

        value, parameters = asked(row)
        chosen = {**self.defaults, **pretrained.checked(parameters, PARAMETERS)}
        sampling = sampling_of(chosen)
        tokens = self._tokens(value)
        room = None if self.limit is None else self.limit - len(tokens)
        if room is not None and "max_new_tokens" not in chosen and 0 < room < sampling.max_new_tokens:
            sampling = sampling._replace(max_new_tokens=room)
        if room is not None and sampling.max_new_tokens > room:
            raise PredictionError(
                400,
                f"The prompt has {len(tokens)} tokens, and max_new_tokens is {sampling.max_new_tokens}: together "
                f"more than the {self.limit} that the model takes",
            )
        if not chosen.get("stream"):
            return Item(tokens, sampling)
        context.set_response_content_type(index, EVENTS)
        return Item(tokens, sampling, lambda text: context.send_piece(index, event({"text": text})))

    def _tokens(self, value: Mapping[str, Any]) -> list[int]:
        if "prompt" in value:
            text, special = value["prompt"], True
            if not isinstance(text, str) or not text:
                raise PredictionError(400, f"prompt must be a text with something in it: expected {EXPECTED}")
        else:
            text, special = self._chat(value["messages"]), False  # templates write these tokens themselves
        tokens: list[int] = self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return tokens

    def _chat(self, messages: Any) -> str:
        if not self.tokenizer.chat_template:
            raise PredictionError(400, "This model's tokenizer has no chat template: send a prompt")
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # templates are programs that raise what they like
            raise PredictionError(400, f"messages do not fit the model's chat template: {error}") from error


def asked(row: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The prompt or the messages of a row, and what else it says. Raises :class:`PredictionError` with status 400."""
    value, parameters = pretrained.request_of(row)
    if isinstance(value, str):
        return {"prompt": value}, dict(parameters)
    if not isinstance(value, Mapping) or len({"prompt", "messages"} & set(value)) != 1:
        raise PredictionError(400, f"Expected {EXPECTED}")
    given = {name: one for name, one in value.items() if name not in ("prompt", "messages")}
    return {name: one for name, one in value.items() if name not in given}, given


def answer(item: Item) -> Response | str:
    """The whole answer to an item, or the last event of one that was streamed."""
    prompt, completion = len(item.prompt), len(item.tokens)
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    end = {"finish_reason": item.reason, "usage": usage}
    if item.send is None:
        return Response(orjson.dumps({"text": item.text, **end}), "application/json")
    return event({"text": "", **end})


def event(value: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {orjson.dumps(value).decode()}\n\n"
