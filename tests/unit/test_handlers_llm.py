"""Handlers around other people's engines: the missing package is named, and requests are told apart.

The engines are stand-ins: they show what the handler asks of one, not that one answers.
"""

import asyncio
import json
import sys
import types

import pytest

from mlserve.handler import Context, PredictionError, RequestInfo
from mlserve.worker.loader import find_module, the_class


def made(name, config, path="", sent=None):
    handler = the_class(find_module(name, ""))()
    context = Context("m", "/models", {}, model_yaml_config={"handler": config})
    context.begin([RequestInfo("r1", (), {"url_path": path})], None, lambda *piece: sent.append(piece))
    return handler, context


@pytest.mark.parametrize(
    ("name", "package", "module"),
    [
        ("vllm_handler", "vllm", "vllm"),
        ("trt_llm_handler", "tensorrt-llm", "tensorrt_llm"),
        ("dali_image_classifier", "nvidia-dali-cuda120", "nvidia.dali.pipeline"),
    ],
)
def test_the_missing_package_is_named(name, package, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    handler, context = made(name, {})
    with pytest.raises(ImportError, match=f"{name} needs the package {package}: pip install {package}"):
        handler.initialize(context)


def output(text, reason=None):
    choice = types.SimpleNamespace(index=0, text=text, token_ids=list(text), finish_reason=reason)
    return types.SimpleNamespace(outputs=[choice], prompt_token_ids=[1, 2])


class Engine:
    def __init__(self, arguments):
        self.arguments = arguments

    async def generate(self, prompt, sampling, request_id):
        self.asked = prompt, sampling, request_id
        for text in ("He", "Hello"):
            yield output(text, "stop" if text == "Hello" else None)

    async def get_tokenizer(self):
        def template(messages, tokenize, add_generation_prompt):
            return "|".join(message["content"] for message in messages)

        return types.SimpleNamespace(apply_chat_template=template)


@pytest.fixture
def vllm(monkeypatch):
    module = types.ModuleType("vllm")
    module.AsyncEngineArgs = lambda **arguments: arguments
    module.SamplingParams = lambda **parameters: parameters
    module.AsyncLLMEngine = types.SimpleNamespace(from_engine_args=Engine)
    monkeypatch.setitem(sys.modules, "vllm", module)


def ask(path, request, sent=None, config=None):
    handler, context = made("vllm_handler", config or {"model_path": "llama"}, path, sent)
    handler.initialize(context)
    return handler, asyncio.run(handler.handle([{"body": json.dumps(request).encode()}], context))[0]


def test_a_completion_is_answered_with_what_it_cost(vllm):
    handler, answer = ask("v1/completions", {"prompt": "Hi", "max_tokens": 5, "unknown": 1})
    assert handler.engine.asked == ("Hi", {"max_tokens": 5}, "r1")
    assert (answer["id"], answer["object"], answer["model"]) == ("r1", "text_completion", "llama")
    assert answer["choices"] == [{"index": 0, "text": "Hello", "finish_reason": "stop"}]
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}


def test_a_chat_goes_through_the_template_and_streams_what_is_new(vllm):
    sent = []
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    handler, last = ask("v1/chat/completions", {"messages": messages, "stream": True}, sent)
    assert handler.engine.asked[0] == "a|b"
    events = [json.loads(piece.removeprefix("data: ")) for _, piece in sent]
    assert [event["choices"][0]["delta"]["content"] for event in events] == ["He", "llo"]
    assert last == "data: [DONE]\n\n"


def test_models_are_listed(vllm):
    config = {"vllm_engine_config": {"model": "x", "served_model_name": ["mine"], "dtype": "half"}}
    handler, answer = ask("v1/models", {}, config=config)
    assert [model["id"] for model in answer["data"]] == ["mine"]
    assert handler.engine.arguments["dtype"] == "half"


@pytest.mark.parametrize(
    ("path", "request_", "status"),
    [("v1/nope", {}, 404), ("v1/completions", {}, 400), ("v1/chat/completions", {"prompt": "x"}, 400)],
)
def test_what_the_protocol_does_not_know_is_refused(vllm, path, request_, status):
    with pytest.raises(PredictionError) as caught:
        ask(path, request_)
    assert caught.value.status == status


def test_a_model_must_be_named(vllm):
    handler, context = made("vllm_handler", {})
    with pytest.raises(ValueError, match=r"handler\.model_path"):
        handler.initialize(context)


def test_tensorrt_streams_pieces_and_ends_empty(monkeypatch):
    class LLM:
        def __init__(self, model):
            assert model == "engine"

        async def generate_async(self, prompt, sampling_params, streaming):
            assert (prompt, sampling_params) == ("Hi", {"max_tokens": 3})
            for text in ("He", "Hello"):
                yield output(text)

    module = types.ModuleType("tensorrt_llm")
    module.LLM, module.SamplingParams = LLM, lambda **parameters: parameters
    monkeypatch.setitem(sys.modules, "tensorrt_llm", module)
    sent = []
    handler, context = made("trt_llm_handler", {"engine_dir": "engine"}, sent=sent)
    handler.initialize(context)
    request = {"prompt": "Hi", "max_tokens": 3}
    assert asyncio.run(handler.handle([{"body": dict(request)}], context)) == ["Hello"]
    assert asyncio.run(handler.handle([{"body": {**request, "streaming": True}}], context)) == [""]
    assert [json.loads(piece) for _, piece in sent] == [{"text": "He"}, {"text": "llo"}]
