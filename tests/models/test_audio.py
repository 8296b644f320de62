"""Silero's voice activity detector, served as TorchScript and ONNX: the segments of the package, on made speech."""

import io
import json
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from mlserve.archive import pack
from mlserve.handler import Context, PredictionError, RequestInfo
from mlserve.handlers import sound
from mlserve.handlers.audio import AudioHandler
from tests.support.pretrained import serving
from tests.support.speech import pcm, recording, wav

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch calls TorchScript, which the package loads, deprecated
    import silero_vad

DATA = Path(silero_vad.__file__).parent / "data"
SOUNDS = [
    recording(parts, seed=seed) for seed, parts in enumerate([(0.8, 1.6, 1.0, 1.2, 0.7), (0.5, 2.2, 0.4), (1.0,)])
]
KINDS = ("script", "onnx", "package")
WAV = {"content_type": "audio/wav"}
RAW = "inputs: {state: {batch_axis: 1}}\noutputs: {output: {batch_axis: 0}, stateN: {batch_axis: 1}}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    files = {"script": DATA / "silero_vad.jit", "onnx": DATA / "silero_vad.onnx", "package": None}
    for name, file in files.items():
        pack(model_name=name, version="1.0", handler="audio", serialized_file=file, export_path=store)
    (store / "raw.onnx").write_bytes((DATA / "silero_vad.onnx").read_bytes())
    (store / "raw.yaml").write_text(RAW)
    models = [f"{name}.mar" for name in files]
    with serving(tmp_path_factory.mktemp("server"), *models, f"raw={store / 'raw.onnx'}", store=store) as live:
        yield live


def expected(samples, rate=16000, **options):
    """What the package finds in 16-bit samples, in seconds."""
    heard = torch.from_numpy(np.frombuffer(pcm(samples), "<i2").astype(np.float32) / 32768)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = silero_vad.get_speech_timestamps(heard, silero_vad.load_silero_vad(), sampling_rate=rate, **options)
    return [{edge: round(one[edge] / rate, 3) for edge in ("start", "end")} for one in found]


def test_the_made_speech_is_where_it_was_put():
    first = expected(SOUNDS[0])
    assert [abs(one["start"] - at) < 0.1 and abs(one["end"] - at - long) < 0.15 for one, at, long in
            zip(first, (0.8, 3.4), (1.6, 1.2), strict=True)] == [True, True]  # fmt: skip
    assert expected(SOUNDS[2]) == []


@pytest.mark.parametrize("model", KINDS)
def test_segments_are_the_packages_alone_and_in_a_batch(server, model):
    wanted = [{"segments": expected(one), "seconds": round(len(one) / 16000, 3)} for one in SOUNDS]
    bodies = [wav(one) for one in SOUNDS]
    assert [server.predict(model, body, **WAV).json() for body in bodies] == wanted
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda body: server.predict(model, body, **WAV).json(), bodies * 2)) == wanted * 2


def test_bare_samples_are_read_as_their_content_type_says(server):
    wanted = server.predict("script", wav(SOUNDS[0]), **WAV).json()
    assert wanted["segments"]
    little, big = pcm(SOUNDS[0]), np.frombuffer(pcm(SOUNDS[0]), "<i2").astype(">i2").tobytes()
    assert server.predict("script", little, content_type="audio/pcm; rate=16000").json() == wanted
    assert server.predict("script", big, content_type="audio/L16;rate=16000").json() == wanted


def test_other_rates_widths_and_channels(server):
    slow = recording((0.8, 1.6, 1.0), 8000)
    assert server.predict("script", wav(slow, 8000), **WAV).json()["segments"] == expected(slow, 8000) != []
    wanted = server.predict("script", wav(SOUNDS[1]), **WAV).json()
    fast = np.repeat(SOUNDS[1], 3)
    for body in (wav(SOUNDS[1], channels=2), wav(SOUNDS[1], width=3), wav(SOUNDS[1], width=4), wav(fast, 48000)):
        assert server.predict("script", body, **WAV).json() == wanted


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"ID3\x04 an MP3", "audio/mpeg", "no WAV file: expected a WAV file of PCM samples"),
        (b"RIFF\x00\x00\x00\x00WAVE", "audio/wav", "cannot be read"),
        (wav(SOUNDS[2], 44100), "audio/wav", "44100 samples a second: expected 8000"),
        (wav(SOUNDS[2][:0]), "audio/wav", "no samples"),
        (b"\x00" * 100, "audio/pcm", "does not say the rate"),
        (b"\x00" * 101, "audio/pcm;rate=16000", "no whole number"),
        (b"[0.5]", "application/json", "No bytes but a list"),
    ],
)
def test_what_is_no_sound_is_refused_with_what_was_expected(server, body, kind, said):
    reply = server.predict("script", body, content_type=kind)
    assert reply.status == 400, reply
    assert said in reply.json()["message"]


def test_the_raw_onnx_file_takes_its_state_by_name(server):
    """Window by window as the package does it: the state of each request goes into the next one."""
    samples = np.frombuffer(pcm(SOUNDS[0]), "<i2").astype(np.float32)[: 512 * 60] / 32768
    found, state, before = [], np.zeros((2, 128), np.float32), np.zeros(64, np.float32)
    for window in samples.reshape(-1, 512):
        given = np.concatenate([before, window])
        body = json.dumps({"input": given.tolist(), "state": state.tolist(), "sr": 16000}).encode()
        reply = server.predict("raw", body, content_type="application/json")
        assert reply.status == 200, reply
        found.append(reply.json()["output"][0])
        state, before = np.array(reply.json()["stateN"], np.float32), given[-64:]
    model = silero_vad.load_silero_vad(onnx=True)
    wanted = model.audio_forward(torch.from_numpy(samples), 16000)[0].numpy()
    assert np.abs(np.array(found) - wanted).max() < 1e-5
    assert wanted.max() > 0.9


def test_states_that_share_a_batch_stay_apart(server):
    window = np.frombuffer(pcm(SOUNDS[0]), "<i2")[16000:16576].astype(np.float32) / 32768
    states = [np.full((2, 128), value, np.float32) for value in (0.0, 0.1, -0.2)]

    def ask(state):
        body = json.dumps({"input": window.tolist(), "state": state.tolist(), "sr": 16000}).encode()
        return server.predict("raw", body, content_type="application/json").json()

    alone = [ask(state) for state in states]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, states * 2))
    for one, wanted in zip(together, alone * 2, strict=True):
        assert np.abs(np.array(one["stateN"]) - np.array(wanted["stateN"])).max() < 1e-5
        assert abs(one["output"][0] - wanted["output"][0]) < 1e-5
    assert len({round(one["output"][0], 4) for one in alone}) == 3


# -- in this process ---------------------------------------------------------------------------------------------------


def loaded(file=None, **options):
    manifest = {"model": {"serializedFile": file}} if file else None
    handler = AudioHandler()
    context = Context("m", str(DATA), manifest, model_yaml_config={"audio": options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        handler.initialize(context)
    return handler, context


def test_options_of_the_package_change_the_segments():
    handler, context = loaded(min_silence_duration_ms=2000, threshold=0.6)
    answer = json.loads(handler.handle([{"body": wav(SOUNDS[0])}], context)[0].body)
    assert answer["segments"] == expected(SOUNDS[0], min_silence_duration_ms=2000, threshold=0.6)
    assert len(answer["segments"]) == 1


def test_one_bad_item_fails_alone():
    handler, context = loaded(onnx=True)
    context.begin([RequestInfo(str(number)) for number in range(3)])
    answers = handler.handle([{"body": wav(SOUNDS[1])}, {"body": b"x"}, {"body": wav(SOUNDS[0])}], context)
    assert [isinstance(one, PredictionError) for one in answers] == [False, True, False]
    assert json.loads(answers[2].body)["segments"] == expected(SOUNDS[0])


def test_wrong_options_stop_the_load():
    with pytest.raises(ValueError, match=r"threshold.*a number from 0 to 1"):
        loaded(threshold=5)


@pytest.mark.parametrize(("module", "options", "line"), [
    ("silero_vad", {}, r"pip install 'mlserve\[audio\]'"),
    ("onnxruntime", {"onnx": True}, r"pip install 'mlserve\[onnx\]'"),
])  # fmt: skip
def test_a_missing_package_is_named_with_its_install_line(monkeypatch, module, options, line):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=line):
        loaded(**options)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width_are_as_they_were(width):
    given = np.array([-1, -0.5, 0, 0.25, 1])
    read = sound.sound_of(wav(given, width=width))
    assert np.abs(read.samples - given).max() <= 2 / 2 ** (8 * width - 1)


def test_a_wav_file_that_is_cut_off_is_read_to_its_end():
    body = wav(np.linspace(-1, 1, 100), channels=2)
    assert len(sound.sound_of(body[:-3]).samples) == 99
    assert sound.sound_of(io.BytesIO(body).getvalue()).rate == 16000
