"""TorchServe's variables, and who wins: variables, command line, file."""

from pathlib import Path

import pytest

from mlserve.cli.sources import read_torchserve_settings
from mlserve.errors import SettingError
from mlserve.settings import Settings
from mlserve.settings.torchserve import known_keys
from mlserve.settings.torchserve_env import FILE_ONLY, variable


@pytest.fixture
def read(tmp_path):
    """Reads the settings of a ``torchserve`` started in a directory with this ``config.properties``."""

    def settings(text: str = "", environ: dict[str, str] | None = None, **options) -> Settings:
        if text:
            (tmp_path / "config.properties").write_text(text)
        return read_torchserve_settings(environ=environ or {}, directory=tmp_path, **options)

    return settings


ON = "enable_envvars_config=true\n"


@pytest.mark.parametrize(
    ("text", "value", "flag", "tokens"),
    [
        ("", None, False, True),
        ("", None, True, False),
        ("disable_token_authorization=true", None, False, False),
        ("disable_token_authorization=false", None, True, False),  # the flag comes before the file
        (ON + "disable_token_authorization=false", "true", False, False),  # the variable before both
        (ON, "false", True, True),
        ("disable_token_authorization=true", "false", False, False),  # but only where the file lets it
    ],
)
def test_token_switch_is_decided_as_by_torchserve(read, text, value, flag, tokens):
    environ = {"TS_DISABLE_TOKEN_AUTHORIZATION": value} if value else {}
    settings = read(text, environ, disable_token_auth=flag)
    assert settings.auth.tokens is tokens
    assert settings.server.insecure is not tokens


@pytest.mark.parametrize(
    ("text", "value", "flag", "allowed"),
    [
        ("", None, False, False),
        ("", None, True, True),
        ("enable_model_api=true", None, False, True),
        ("enable_model_api=false", None, True, True),
        (ON + "enable_model_api=false", "true", False, True),
        (ON + "enable_model_api=true", "false", True, False),
        ("enable_model_api=false", "true", False, False),
    ],
)
def test_model_control_is_decided_as_by_torchserve(read, text, value, flag, allowed):
    environ = {"TS_ENABLE_MODEL_API": value} if value else {}
    assert read(text, environ, enable_model_api=flag).models.model_api is allowed


def test_variable_wins_over_flag_and_is_named_as_the_source(read):
    settings = read(ON, {"TS_MODEL_STORE": "/env", "TS_LOAD_MODELS": "e.mar"}, model_store="/cli", models=["c.mar"])
    assert (settings.models.store, settings.models.load) == ("/env", ("e.mar",))
    assert settings.sources["models.store"] == "env TS_MODEL_STORE"
    assert settings.properties["model_store"] == "/env"


def test_flag_wins_over_file_and_is_named_as_the_source(read):
    settings = read("model_store=/file\nload_models=f.mar", model_store="/cli", models=["a.mar", "n=b.mar"])
    assert (settings.models.store, settings.models.load) == ("/cli", ("a.mar", "n=b.mar"))
    assert settings.sources["models.load"] == "flag --models"


def test_variable_that_is_not_read_is_not_passed_over_in_silence(read):
    settings = read("job_queue_size=7", {"TS_JOB_QUEUE_SIZE": "8"})
    assert settings.defaults.job_queue_size == 7
    assert settings.notes == ("env TS_JOB_QUEUE_SIZE is set and not read: enable_envvars_config is not true",)


def test_allowed_urls_need_a_switch_of_their_own(read):
    environ = {"TS_ALLOWED_URLS": "https://evil/.*"}
    closed = read(ON + "allowed_urls=https://good/.*", environ)
    assert closed.models.allowed_urls == ("https://good/.*",)
    assert "use_env_allowed_urls is not true" in closed.notes[0]
    assert read(ON + "use_env_allowed_urls=true", environ).models.allowed_urls == ("https://evil/.*",)


@pytest.mark.parametrize(
    ("text", "value", "on"),
    [
        ("", "oip", True),
        ("", "", False),
        ("", "true", False),
        ("ts_open_inference_protocol=true", "other", False),
        ("ts_open_inference_protocol=true", "", True),
        ("ts_open_inference_protocol=true", None, True),
        (ON, "true", False),
    ],
)
def test_open_inference_variable_counts_always_and_takes_only_oip(read, text, value, on):
    environ = {} if value is None else {"TS_OPEN_INFERENCE_PROTOCOL": value}
    assert read(text, environ).server.open_inference is on


def test_wrong_variable_is_named(read):
    with pytest.raises(SettingError, match=r"env TS_JOB_QUEUE_SIZE: defaults.job_queue_size: expected a whole number"):
        read(ON, {"TS_JOB_QUEUE_SIZE": "many"})


def test_addresses_of_variable_and_file_make_one_list_of_tls(read):
    settings = read(ON + "inference_address=https://h:1", {"TS_MANAGEMENT_ADDRESS": "https://h:2"})
    assert settings.tls.apis == ("inference", "management")
    assert read(ON + "inference_address=https://h:1", {"TS_INFERENCE_ADDRESS": "http://h:1"}).tls.apis == ()


def test_locations_are_torchserves_variables_and_mlserves_own_come_first(read):
    environ = {"LOG_LOCATION": "/l", "METRICS_LOCATION": "/m", "TEMP": "/t"}
    settings = read("", environ)
    assert (settings.log.directory, settings.log.metrics_directory, settings.server.temp_directory) == (
        "/l",
        "/m",
        "/t",
    )
    assert settings.sources["log.directory"] == "env LOG_LOCATION"
    assert read("", {**environ, "MLSERVE_LOG_DIRECTORY": "/x"}).log.directory == "/x"
    assert read("", {"LOG_LOCATION": "/l"}).log.metrics_directory == "logs"


def test_every_key_that_has_a_variable_is_read_from_it():
    names = {variable(key) for key in known_keys() - FILE_ONLY}
    assert {"TS_DEBUG", "TS_TOKEN_EXPIRATION_TIME_MIN", "TS_HEADER_KEY_SEQUENCE_ID", "TS_INFERENCE_ADDRESS"} <= names
    assert not names & {"TS_MODELS", "TS_MODEL_SNAPSHOT", "TS_VERSION", "TS_CONFIG_FILE"}
    assert all(name.startswith("TS_") for name in names)


def test_files_are_looked_for_in_torchserves_order(read, tmp_path):
    def store(**sources) -> str:
        return read(**sources).models.store

    assert store() == ""
    (tmp_path / "config.properties").write_text("model_store=default")
    assert store() == "default"
    snapshots = tmp_path / "logs" / "config"
    snapshots.mkdir(parents=True)
    for name, text in (
        ("20260101000000001-startup.cfg", "old"),
        ("20260101000000002-shutdown.cfg", "newest"),
        ("20260101000000002-other.cfg", "other"),
        ("99999999999999999.cfg", "other"),
    ):
        (snapshots / name).write_text(f"model_store={text}")
    assert store() == "newest"
    assert store(ncs=True) == "default"
    elsewhere = tmp_path / "l" / "config"
    elsewhere.mkdir(parents=True)
    (elsewhere / "20250101000000000-snapshot.cfg").write_text("model_store=moved")
    assert store(environ={"LOG_LOCATION": "l"}) == "moved"
    (tmp_path / "given.cfg").write_text("model_store=given")
    assert store(ts_config=Path("given.cfg")) == "given"
    (tmp_path / "env.properties").write_text("model_store=env")
    assert store(ts_config=Path("given.cfg"), environ={"TS_CONFIG_FILE": "env.properties"}) == "env"


def test_missing_file_is_an_error_not_the_next_one(read):
    with pytest.raises(SettingError, match=r"junk-snapshot.cfg: cannot read the settings file"):
        read("model_store=x", ts_config=Path("logs/config/junk-snapshot.cfg"))


def test_no_snapshots_only_without_a_file(read):
    assert read().models.snapshots is True
    assert read(ncs=True).models.snapshots is False
