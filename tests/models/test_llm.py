"""Language models served from their folders: the library's own text, alone, in a batch, and piece by piece."""

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers

from mlserve.handler import Context, PredictionError
from mlserve.handlers import decoding
from mlserve.handlers.llm import LlmHandler
from tests.support import tiny
from tests.support.pretrained import serving

PROMPTS = ["the cat sat on", "dogs run", "where is the blue house and what is the red house ?", "a"]
JSON = {"content_type": "application/json"}
TEMPLATE = "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}assistant:"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    made = {"gpt2": tiny.gpt2(root / "gpt2"), "llama": tiny.llama(root / "llama")}
    (made["gpt2"] / "model-config.yaml").write_text("llm: {parameters: {max_new_tokens: 12}}\n")
    (made["llama"] / "chat_template.jinja").write_text(TEMPLATE)
    return made


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory):
    models = [f"{name}={path}" for name, path in folders.items()]
    with serving(tmp_path_factory.mktemp("server"), *models) as live:
        yield live


def completed(folder, prompt, count):
    """What the library's generate() adds to a prompt."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    encoded = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**encoded, max_new_tokens=count, do_sample=False, pad_token_id=tokenizer.eos_token_id)[0]
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return whole[len(prompt) :], len(ids) - encoded["input_ids"].shape[1]


def ask(server, model, **request):
    reply = server.predict(model, json.dumps(request).encode(), **JSON)
    assert reply.status == 200, reply
    return reply.json()


def events(body):
    return [json.loads(one.removeprefix("data: ")) for one in body.decode().split("\n\n") if one]


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_greedy_text_is_the_librarys_alone_and_in_a_batch(server, folders, model):
    counts = [5, 12, 3, 9]
    wanted = [completed(folders[model], prompt, count) for prompt, count in zip(PROMPTS, counts, strict=True)]
    requests = [{"prompt": prompt, "max_new_tokens": count} for prompt, count in zip(PROMPTS, counts, strict=True)]
    for request, (text, tokens) in zip(requests, wanted, strict=True):
        answer = ask(server, model, **request)
        assert (answer["text"], answer["usage"]["completion_tokens"]) == (text, tokens)
    with ThreadPoolExecutor(8) as pool:  # each of its own length, and all in one batch
        together = list(pool.map(lambda request: ask(server, model, **request), requests * 2))
    assert [one["text"] for one in together] == [text for text, _ in wanted] * 2


def test_plain_text_takes_the_parameters_of_the_configuration(server, folders):
    reply = server.predict("gpt2", PROMPTS[0].encode(), content_type="text/plain")
    assert reply.json()["text"] == completed(folders["gpt2"], PROMPTS[0], 12)[0]
    assert reply.json()["finish_reason"] == "length"


def test_streamed_pieces_are_the_whole_text(server):
    whole = ask(server, "llama", prompt="the cat", max_new_tokens=40)
    request = {"prompt": "the cat", "max_new_tokens": 40, "stream": True}
    reply = server.predict("llama", json.dumps(request).encode(), **JSON)
    pieces = events(reply.body)
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["transfer-encoding"] == "chunked"
    assert len(pieces) > 10
    assert "".join(one["text"] for one in pieces) == whole["text"]
    assert pieces[-1]["usage"] == whole["usage"]
    assert pieces[-1]["finish_reason"] == "length"


def test_a_batch_may_mix_streams_and_whole_answers(server):
    requests = [{"prompt": prompt, "max_new_tokens": 20, "stream": at % 2 == 0} for at, prompt in enumerate(PROMPTS)]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda one: server.predict("llama", json.dumps(one).encode(), **JSON), requests))
    for request, reply in zip(requests, replies, strict=True):
        text = "".join(one["text"] for one in events(reply.body)) if request["stream"] else reply.json()["text"]
        assert text == ask(server, "llama", **{**request, "stream": False})["text"]


def test_a_client_that_goes_stops_the_generation(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port(), timeout=120)
    body = json.dumps({"prompt": "the cat", "max_new_tokens": 90_000, "stream": True})
    connection.request("POST", "/predictions/llama", body, {"content-type": "application/json"})
    response = connection.getresponse()
    assert b"data: " in response.readline()  # comes long before the end: that takes minutes
    connection.close()
    response.close()
    begun = time.monotonic()
    assert ask(server, "llama", prompt="dogs", max_new_tokens=2)["usage"]["completion_tokens"] == 2
    assert time.monotonic() - begun < 60
    assert len(server.worker_pids("llama")) == 1
    assert server.restarts() == 0


def test_a_seed_draws_the_same_text_whatever_else_is_in_the_batch(server):
    request = {"prompt": "the cat", "temperature": 1.5, "max_new_tokens": 20, "seed": 7}
    alone = ask(server, "gpt2", **request)["text"]
    others = [{**request, "seed": seed} for seed in (7, 8, 9)] + [{"prompt": prompt} for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as pool:
        drawn = [one["text"] for one in pool.map(lambda one: ask(server, "gpt2", **one), others)]
    assert drawn[0] == alone
    assert len(set(drawn[:3])) == 3


@pytest.mark.parametrize(
    "parameters", [{"temperature": 0}, {"temperature": 0.01, "seed": 1}, {"top_k": 1}, {"top_p": 0.001}]
)
def test_sampling_with_nothing_to_choose_from_is_greedy(server, folders, parameters):
    wanted = completed(folders["gpt2"], "the cat", 10)[0]
    assert ask(server, "gpt2", prompt="the cat", max_new_tokens=10, **parameters)["text"] == wanted


def test_text_ends_before_a_stop_text_also_when_it_is_streamed(server, folders):
    text = completed(folders["llama"], "the cat", 60)[0]
    stop = text[20:23]
    request = {"prompt": "the cat", "max_new_tokens": 60, "stop": ["never there", stop]}
    answer = ask(server, "llama", **request)
    assert answer["text"] == text[: text.index(stop)]
    assert answer["finish_reason"] == "stop"
    reply = server.predict("llama", json.dumps({**request, "stream": True}).encode(), **JSON)
    assert "".join(one["text"] for one in events(reply.body)) == answer["text"]


def test_messages_go_through_the_models_chat_template(server, folders):
    messages = [{"role": "user", "content": "where is the cat ?"}]
    prompt = "user: where is the cat ?\nassistant:"
    wanted = completed(folders["llama"], prompt, 8)[0]
    assert ask(server, "llama", messages=messages, max_new_tokens=8)["text"] == wanted


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"text": "cat"}, '{"prompt": "…"}'),
        ({"prompt": ""}, "a text with something in it"),
        ({"prompt": "cat", "max_tokens": 5}, "Unknown parameter 'max_tokens'; known are max_new_tokens"),
        ({"prompt": "cat", "temperature": -1}, "a number from 0 to 100"),
        ({"prompt": "cat", "stop": [1]}, "a list of up to 16 texts"),
        ({"prompt": "cat", "max_new_tokens": 500}, "more than the 128 that the model takes"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no chat template"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(server, request_, said):
    reply = server.predict("gpt2", json.dumps(request_).encode(), **JSON)
    assert reply.status == 400, reply
    assert said in reply.json()["message"]


# -- in this process ---------------------------------------------------------------------------------------------------


def loaded(folder, **options):
    context = Context("m", str(folder), model_yaml_config={"llm": options})
    handler = LlmHandler()
    handler.initialize(context)
    return handler, context


def test_long_prompts_and_long_answers_do_not_share_a_call_beyond_the_models_limit(folders):
    handler, context = loaded(folders["gpt2"])
    rows = [{"prompt": "cat " * 30, "max_new_tokens": 2}, {"prompt": "a", "max_new_tokens": 120}]
    together = handler.handle([{"body": row} for row in rows], context)
    assert [one.body for one in together] == [handler.handle([{"body": row}], context)[0].body for row in rows]


def test_one_bad_item_fails_alone(folders):
    handler, context = loaded(folders["gpt2"], parameters={"max_new_tokens": 2})
    answers = handler.handle([{"body": "a"}, {"body": 5}, {"body": "b"}], context)
    assert [isinstance(one, PredictionError) for one in answers] == [False, True, False]


def test_what_the_folder_recommends_is_the_default(folders, tmp_path):
    tiny.gpt2(tmp_path)
    transformers.GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9).save_pretrained(tmp_path)
    handler, _ = loaded(tmp_path)
    assert handler.defaults["temperature"] == 0.6
    assert decoding.sampling_of({**handler.defaults, "temperature": 0}).temperature == 0


def test_an_end_token_ends_the_text(folders):
    handler, context = loaded(folders["gpt2"], parameters={"max_new_tokens": 12})
    free, ended = (handler.item({"body": "dogs"}, 0, context) for _ in range(2))
    decoding.generate(handler.model, handler.tokenizer, [free], set(), lambda _: False)
    end = free.tokens[5]
    decoding.generate(handler.model, handler.tokenizer, [ended], {end}, lambda _: False)
    assert ended.tokens == free.tokens[: free.tokens.index(end)]
    assert (free.reason, ended.reason) == ("length", "stop")


def test_wrong_defaults_stop_the_load(folders):
    with pytest.raises(ValueError, match=r"llm: parameters in model-config\.yaml: Unknown parameter 'beams'"):
        loaded(folders["gpt2"], parameters={"beams": 2})


def test_a_character_of_several_tokens_is_not_torn_apart(folders):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["gpt2"])
    sent = []
    tokens = tokenizer("ä€😀x")["input_ids"]
    item = decoding.Item(tokenizer("a")["input_ids"], decoding.Sampling(), sent.append)
    for token in tokens:
        item.take(token, set(), tokenizer)
    assert sent == ["ä", "€", "😀", "x"]
    assert len(tokens) > 8


def test_half_precision_runs(folders):
    handler, context = loaded(folders["gpt2"], dtype="bfloat16", parameters={"max_new_tokens": 4})
    assert next(handler.model.parameters()).dtype == torch.bfloat16
    assert handler.handle([{"body": {"prompt": "a", "temperature": 1, "seed": 1}}], context)[0].body


def test_a_missing_package_is_named_with_its_install_line(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'mlserve\[transformers\]'"):
        loaded(folders["gpt2"])
