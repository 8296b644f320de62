"""``huggingface``: a folder of Hugging Face ``transformers``, served as the library's pipeline of its task.

One request is one item in the pipeline's own form: a text, ``{"question": …, "context": …}``, the bytes of an image; or
``{"inputs": ITEM, "parameters": {…}}``. The answer is what the pipeline gives for that item. Items of a batch that have
the same parameters are one forward pass with padding. The section ``huggingface`` of model-config.yaml: ``task`` (by
the architecture in ``config.json`` where it is missing), ``model`` (the folder), ``parameters`` (where a request has
none), ``truncation``, ``dtype``, ``trust_remote_code``.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson

from mlserve.handler import Context, PredictionError

from . import hf_tasks, pretrained
from .copies import copied
from .items import body_of
from .question_answering import QuestionAnswering
from .readying import make_ready
from .rows import read_rows

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

KNOWN = (*pretrained.SHARED, "task", "parameters", "truncation")


class HuggingFaceHandler:
    """The handler class."""

    task: hf_tasks.Task
    model_signature: Mapping[str, Any]  # shown by ``describe``

    def initialize(self, context: Context) -> None:
        """Load the folder. Raises ``ValueError`` or ``ImportError`` with what is wrong."""
        transformers = pretrained.library("huggingface")
        options = pretrained.section(context, "huggingface", KNOWN)
        folder = pretrained.folder_of(context, options, "huggingface")
        self.name = str(options.get("task") or hf_tasks.task_of(pretrained.config_of(folder)))
        if self.name not in hf_tasks.AUTO:
            raise ValueError(f"huggingface: task {self.name!r} is none of {', '.join(hf_tasks.AUTO)}")
        device = pretrained.device_of(context)
        auto = getattr(transformers, hf_tasks.AUTO[self.name])
        # A bare encoder's pooler has no part in the vectors of its tokens, and many folders come without its weights.
        pooler = self.name == "feature-extraction"
        model = pretrained.load_model(auto, folder, options, device, lambda key: pooler and "pooler" in key)
        self.task = made(transformers, self.name, model, folder, options)
        self.defaults = pretrained.defaults(options, self.task.parameters, "huggingface")
        self.model_signature = {
            "runtime": f"transformers {transformers.__version__}, {type(model).__name__}, {device}",
            "task": self.name,
            "input": self.task.expected,
            "parameters": {name: takes for name, (_, takes) in self.task.parameters.items()},
        }
        logger.info("%s: %s, %s", folder.name, self.name, self.model_signature["runtime"])
        make_ready(self.handle, context, self.task.sample)

    def __copy__(self) -> Self:
        return copied(self, task=copy.copy(self.task))

    def handle(self, data: list[Any], context: Context) -> list[Any]:
        """Answer a batch: one element per row."""
        begun = perf_counter()
        items, answers = read_rows(data, self.read)
        groups: dict[bytes, list[tuple[int, Any]]] = {}
        for index, (item, parameters) in items.items():
            key = orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS)
            groups.setdefault(key, []).append((index, item))
        ready = perf_counter()
        for key, members in groups.items():
            results = self.task.run([item for _, item in members], orjson.loads(key))
            answers.update({index: result for (index, _), result in zip(members, results, strict=True)})
        done = perf_counter()
        for index, answer in answers.items():
            if not isinstance(answer, PredictionError):
                answers[index] = pretrained.answer(answer)
        context.phases.add("preprocess", ready - begun)
        context.phases.add("inference", done - ready)
        context.phases.add("postprocess", perf_counter() - done)
        return [answers[index] for index in range(len(data))]

    def read(self, row: Any) -> tuple[Any, dict[str, Any]]:
        """A row's item and parameters. Raises :class:`PredictionError` with status 400 and what was expected."""
        value, given = (body_of(row), {}) if self.name == "image-classification" else pretrained.request_of(row)
        parameters = {**self.defaults, **pretrained.checked(given, self.task.parameters)}
        try:
            if self.name == "question-answering" and isinstance(value, str):
                value = _from_json(value)
            return self.task.read(value, parameters), parameters
        except hf_tasks.Unexpected as error:
            raise PredictionError(400, f"{error.message}: expected {self.task.expected}") from error


def made(transformers: Any, name: str, model: Any, folder: Path, options: Mapping[str, Any]) -> hf_tasks.Task:
    """The task with all that it needs from the folder."""
    if name == "image-classification":
        processor = pretrained.load(transformers.AutoImageProcessor, folder, options)
        return hf_tasks.ImageClassification(
            transformers.pipeline(name, model=model, image_processor=processor, device=model.device)
        )
    tokenizer = pretrained.load_tokenizer(transformers, folder, options)
    limit = pretrained.longest(tokenizer, model.config)
    if name == "question-answering":
        return QuestionAnswering(model, tokenizer, limit)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ValueError(f"The tokenizer of {folder} has neither a padding token nor an end token: items cannot batch")
    texts = hf_tasks.Texts(tokenizer, limit, options.get("truncation") is True)
    if name == "feature-extraction":
        return hf_tasks.FeatureExtraction(model, texts)
    if name == "text-generation":
        tokenizer.padding_side = "left"
    elif model.config.pad_token_id is None:  # classifiers find a text's last token by it
        model.config.pad_token_id = tokenizer.pad_token_id
    pipe = transformers.pipeline(name, model=model, tokenizer=tokenizer, device=model.device)
    kinds: dict[str, Any] = {
        "text-classification": hf_tasks.TextClassification,
        "token-classification": hf_tasks.TokenClassification,
        "text-generation": hf_tasks.TextGeneration,
    }
    task: hf_tasks.Task = kinds[name](pipe, texts)
    return task


def _from_json(value: str) -> Any:
    try:
        return orjson.loads(value)
    except ValueError as error:
        raise hf_tasks.Unexpected(f"The body is not JSON ({error})") from None
