"""Folders of transformers, served with nothing but their name: the answers of the library's own pipelines."""

import io
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from mlserve.archive import pack
from mlserve.handler import Context, PredictionError
from mlserve.handlers.huggingface import HuggingFaceHandler
from tests.support import tiny
from tests.support.pretrained import serving

TEXTS = ["the cat sat on a mat", "dogs run", "where is the blue house and what is the red house ?", "a"]
CONTEXT = "the cat sat on a mat while dogs run in green parks and birds sing. " * 6  # more than one window of 64 tokens
QUESTIONS = [("where is the cat?", CONTEXT), ("who?", "dogs run in parks"), ("what is red", "the red house is a house")]
TOLERANCE = 1e-5  # of scores: float32 summed in another order
JSON = {"content_type": "application/json"}
TEXT = {"content_type": "text/plain; charset=utf-8"}


def photo(seed, kind="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50 + seed, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    made = {
        "classes": tiny.bert(root / "classes", "BertForSequenceClassification", num_labels=3),
        "tokens": tiny.bert(root / "tokens", "BertForTokenClassification", num_labels=3),
        "answers": tiny.bert(root / "answers", "BertForQuestionAnswering"),
        "features": tiny.bert(root / "features", "BertModel"),
        "images": tiny.vit(root / "images"),
        "generation": tiny.gpt2(root / "generation"),
    }
    (made["tokens"] / "model-config.yaml").write_text("huggingface: {parameters: {aggregation_strategy: simple}}\n")
    (made["generation"] / "model-config.yaml").write_text("huggingface: {parameters: {max_new_tokens: 6}}\n")
    return made


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    config = folders["generation"] / "model-config.yaml"
    extra = [folders["generation"]]
    pack(
        model_name="generation",
        version="1.0",
        handler="huggingface",
        extra_files=extra,
        config_file=config,
        export_path=store,
    )
    models = [f"{name}={path}" for name, path in folders.items() if name != "generation"]
    with serving(tmp_path_factory.mktemp("server"), *models, "generation.mar", store=store) as live:
        yield live


def ask(server, model, item, parameters=None):
    """The answer to an item, sent in each way that an item of its kind can be sent."""
    if isinstance(item, bytes):
        reply = server.predict(model, item, content_type="application/octet-stream")
    elif parameters is not None:
        reply = server.predict(model, json.dumps({"inputs": item, "parameters": parameters}).encode(), **JSON)
    elif isinstance(item, str):
        reply = server.predict(model, item.encode(), **TEXT)
    else:
        reply = server.predict(model, json.dumps(item).encode(), **JSON)
    assert reply.status == 200, reply
    return reply.json()


def close(given, wanted):
    """Whether two answers are equal but for the last digits of their numbers."""
    if isinstance(wanted, dict):
        return given.keys() == wanted.keys() and all(close(given[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(close, given, wanted))
    if isinstance(wanted, (float, np.floating)):
        return abs(given - wanted) < TOLERANCE
    return given == wanted


def alone_and_together(server, model, items, wanted):
    for item, one in zip(items, wanted, strict=True):
        assert close(ask(server, model, item), one), item
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda item: ask(server, model, item), items * 2))
    assert all(map(close, answers, wanted * 2))


def test_text_classification(server, folders):
    pipe = transformers.pipeline("text-classification", model=str(folders["classes"]))
    alone_and_together(server, "classes", TEXTS, [pipe([text])[0] for text in TEXTS])
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    assert close(ask(server, "classes", pair), pipe([pair])[0])
    assert close(ask(server, "classes", TEXTS[0], {"top_k": 2}), pipe([TEXTS[0]], top_k=2)[0])


def test_token_classification(server, folders):
    pipe = transformers.pipeline("token-classification", model=str(folders["tokens"]), aggregation_strategy="simple")
    alone_and_together(server, "tokens", TEXTS, [pipe(text) for text in TEXTS])
    raw = ask(server, "tokens", TEXTS[0], {"aggregation_strategy": "none"})
    assert [one["word"] for one in raw] == TEXTS[0].split()


def test_image_classification(server, folders):
    pipe = transformers.pipeline("image-classification", model=str(folders["images"]))
    photos = [photo(1), photo(2), photo(3, "JPEG")]
    wanted = [pipe(Image.open(io.BytesIO(one))) for one in photos]
    alone_and_together(server, "images", photos, wanted)


def test_feature_extraction_answers_no_vectors_of_padding(server, folders):
    pipe = transformers.pipeline("feature-extraction", model=str(folders["features"]))
    alone_and_together(server, "features", TEXTS, [pipe(text) for text in TEXTS])


def test_generation_from_an_archive(server, folders):
    pipe = transformers.pipeline("text-generation", model=str(folders["generation"]))
    wanted = [pipe(text, max_new_tokens=6, do_sample=False) for text in TEXTS]
    alone_and_together(server, "generation", TEXTS, wanted)
    short = ask(server, "generation", TEXTS[0], {"max_new_tokens": 1, "return_full_text": False})
    assert len(short[0]["generated_text"]) < len(wanted[0][0]["generated_text"]) - len(TEXTS[0]) + 1


def test_question_answering(server, folders):
    wanted = [best_span(folders["answers"], *one) for one in QUESTIONS]
    items = [{"question": question, "context": context} for question, context in QUESTIONS]
    alone_and_together(server, "answers", items, wanted)
    top = ask(server, "answers", items[0], {"top_k": 3, "max_answer_len": 4})
    assert len(top) == 3
    assert all(len(one["answer"].replace(".", " .").split()) <= 4 for one in top)


def best_span(folder, question, context):
    """The best answer by trying every span of every window, one window at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    options = {"truncation": "only_second", "max_length": 64, "stride": 32, "return_overflowing_tokens": True}
    windows = tokenizer(question, context, return_offsets_mapping=True, **options)
    best = {"score": -1.0}
    for index, ids in enumerate(windows["input_ids"]):
        kinds = torch.tensor([windows["token_type_ids"][index]])
        with torch.inference_mode():
            output = model(input_ids=torch.tensor([ids]), token_type_ids=kinds)
        inside = [at for at, kind in enumerate(windows.sequence_ids(index)) if kind == 1]
        starts, ends = output.start_logits[0][inside].softmax(0), output.end_logits[0][inside].softmax(0)
        for first in range(len(inside)):
            for last in range(first, min(first + 15, len(inside))):
                score = float(starts[first] * ends[last])
                if score > best["score"]:
                    begin, end = (
                        windows["offset_mapping"][index][inside[at]][side] for at, side in ((first, 0), (last, 1))
                    )
                    best = {"score": score, "start": begin, "end": end, "answer": context[begin:end]}
    return best


@pytest.mark.parametrize(
    ("model", "body", "headers", "said"),
    [
        ("classes", b"5", JSON, "expected a text as the body"),
        ("classes", b" ", TEXT, "empty"),
        ("classes", b"cat " * 100, TEXT, "102 tokens; the model takes 64"),
        ("classes", b'{"inputs": "cat", "parameters": {"top_k": 0}}', JSON, "a whole number from 1"),
        (
            "classes",
            b'{"inputs": "cat", "parameters": {"device": 1}}',
            JSON,
            "Unknown parameter 'device'; known are top_k",
        ),
        ("answers", b'{"question": "who?"}', JSON, '{"question": "…", "context": "…"}'),
        ("answers", b"who?", TEXT, "not JSON"),
        ("answers", '{"question": "who?", "context": "\u200b"}'.encode(), JSON, "no token in the context"),
        ("answers", b'{"inputs": {}, "parameters": {"top_k": 18446744073709551616}}', JSON, "from 1 to 2147483647"),
        ("images", b"GIF89a", {"content_type": "image/gif"}, "Not an image"),
        ("images", b'"http://127.0.0.1/x.png"', JSON, "the bytes of a JPEG"),
        ("generation", b'{"inputs": "cat", "parameters": {"max_new_tokens": 500}}', JSON, "500 new ones"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_expected(server, model, body, headers, said):
    reply = server.predict(model, body, **headers)
    assert reply.status == 400, reply
    assert said in reply.json()["message"]


def test_describe_shows_the_task(server):
    shown = server.describe("answers")["signature"]
    assert shown["task"] == "question-answering"
    assert "top_k" in shown["parameters"]


# -- in this process ---------------------------------------------------------------------------------------------------


def loaded(folder, **options):
    context = Context("m", str(folder), model_yaml_config={"huggingface": options})
    handler = HuggingFaceHandler()
    handler.initialize(context)
    return handler, context


@pytest.mark.parametrize("name", ["classes", "tokens", "answers", "features", "images"])
def test_a_batch_is_one_forward_pass_and_one_bad_item_fails_alone(folders, name):
    handler, context = loaded(folders[name])
    model = handler.task.model if name in ("answers", "features") else handler.task.pipe.model
    sizes = []
    model.register_forward_pre_hook(lambda module, args, kwargs: sizes.append(1), with_kwargs=True)
    good = {"answers": [dict(zip(("question", "context"), one, strict=True)) for one in QUESTIONS]}
    items = good.get(name) or ([photo(1), photo(2)] if name == "images" else TEXTS)
    answers = handler.handle([{"body": item} for item in [items[0], 7, *items[1:]]], context)
    assert len(sizes) == 1
    assert [index for index, one in enumerate(answers) if isinstance(one, PredictionError)] == [1]


@pytest.mark.parametrize("name", ["classes", "tokens", "answers", "features", "images", "generation"])
def test_warm_up_runs_the_model_in_every_size_before_the_first_request(folders, name, monkeypatch):
    sizes = []
    kept = torch.nn.Module.__call__

    def counting(module, *args, **kwargs):
        if isinstance(module, transformers.PreTrainedModel) and module.base_model is not module:
            sizes.extend(len(one) for key, one in kwargs.items() if key in ("input_ids", "pixel_values"))
        return kept(module, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", counting)
    config = {"warmup": {"sizes": [1, 3]}, "huggingface": {}}
    HuggingFaceHandler().initialize(Context("m", str(folders[name]), batch_size=8, model_yaml_config=config))
    assert {1, 3} <= set(sizes) or name == "features"  # that one is a base model itself


def test_a_sample_that_the_model_refuses_stops_the_load(folders, tmp_path):
    context = Context("m", str(folders["classes"]), model_yaml_config={"warmup": {"samples": ["vocab.txt"]}})
    with pytest.raises(ValueError, match=r"warmup: the model refuses a sample: The text has \d+ tokens"):
        HuggingFaceHandler().initialize(context)
    context = Context("m", str(folders["classes"]), model_yaml_config={"warmup": {"samples": "../secret"}})
    with pytest.raises(ValueError, match=r"there is no file \.\./secret"):
        HuggingFaceHandler().initialize(context)


def test_nothing_is_asked_from_the_network(folders, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **_: asked.append(args) or [])
    monkeypatch.setattr("socket.socket.connect", lambda self, address: asked.append(address))
    loaded(folders["classes"])
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders["classes"] / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["_name_or_path"] = config["auto_map"] = "someone/something"
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoTokenizer": ["a/b--c.D", None]}}))
    with pytest.raises(ValueError, match="no tokenizer in"):
        loaded(tmp_path, trust_remote_code=True)
    assert not asked


def test_the_folder_may_lie_below_the_models_directory(folders):
    handler, context = loaded(folders["classes"].parent, model="classes")
    same, there = loaded(folders["classes"])
    assert handler.handle([{"body": "a cat"}], context)[0].body == same.handle([{"body": "a cat"}], there)[0].body


def test_long_texts_are_cut_when_asked(folders):
    handler, context = loaded(folders["classes"], truncation=True)
    long, same = (handler.handle([{"body": "cat " * count}], context)[0].body for count in (100, 62))
    assert long == same


def test_a_long_prompt_is_cut_to_leave_room_for_new_tokens_and_does_not_overrun_the_model(folders):
    handler, context = loaded(folders["generation"], truncation=True)
    limit = handler.task.texts.limit
    parameters = {"max_new_tokens": 6, "return_full_text": False}

    def ask(count, **more):
        item = {"inputs": " ".join(["dogs"] + ["cat"] * count), "parameters": {**parameters, **more}}
        (answer,) = handler.handle([{"body": item}], context)
        return answer

    assert ask(2 * limit).body == ask(limit - 6).body
    refused = ask(2, max_new_tokens=limit)
    assert (refused.status, "leave no room" in refused.message) == (400, True)


def test_a_model_that_answers_nan_gets_valid_json_or_an_error_that_says_so(folders):
    import torch

    def answer(name, layer, item):
        handler, context = loaded(folders[name])
        model = handler.task.model if name == "answers" else handler.task.pipe.model
        torch.nn.init.constant_(getattr(model, layer).bias, float("nan"))
        (found,) = handler.handle([{"body": item}], context)
        return found

    assert json.loads(answer("classes", "classifier", "the cat").body)["score"] is None
    refused = answer("answers", "qa_outputs", {"question": "who sat?", "context": "the cat sat"})
    assert (refused.status, "(NaN)" in refused.message) == (500, True)


def test_weights_of_another_task_are_refused(folders):
    with pytest.raises(ValueError, match=r"do not fill BertForTokenClassification: classifier\.bias"):
        loaded(folders["features"], task="token-classification")


def test_an_architecture_without_a_task_asks_for_one(folders, tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["BertForMaskedLM"], "model_type": "bert"}')
    with pytest.raises(ValueError, match=r"huggingface: \{task: …\}"):
        loaded(tmp_path)


def test_code_in_a_folder_runs_only_when_told(tmp_path):
    tiny.bert(tmp_path, "BertForSequenceClassification")
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(
        model_type="mine", auto_map={"AutoConfig": "mine.Mine", "AutoModelForSequenceClassification": "mine.M"}
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text("raise OSError('the code ran')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        loaded(tmp_path)
    with pytest.raises(ValueError, match="the code ran"):
        loaded(tmp_path, trust_remote_code=True)


def test_a_missing_package_is_named_with_its_install_line(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'mlserve\[transformers\]'"):
        loaded(folders["classes"])
