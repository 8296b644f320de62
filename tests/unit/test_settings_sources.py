from pathlib import Path

import pytest

from mlserve.errors import SettingError
from mlserve.settings import Settings, find_config_file, load_settings


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mlserve.toml"
    path.write_text(text)
    return path


def refused(**sources) -> str:
    with pytest.raises(SettingError) as caught:
        load_settings(**sources)
    return str(caught.value)


def test_without_sources_everything_is_the_default():
    settings = load_settings()
    assert settings.server == Settings().server
    assert settings.defaults == Settings().defaults
    assert set(settings.sources.values()) == {"default"}
    assert settings.sources["gpu.ids"] == "default"


def test_flag_wins_over_environment_over_file_over_default(tmp_path):
    path = toml(tmp_path, '[defaults]\nbatch_size = 2\nworkers = 2\njob_queue_size = 2\n[server]\nhost = "::1"\n')
    environ = {"MLSERVE_DEFAULTS_BATCH_SIZE": "3", "MLSERVE_DEFAULTS_WORKERS": "3"}
    settings = load_settings(config_file=path, environ=environ, flags={"defaults.batch_size": "4"})
    assert (settings.defaults.batch_size, settings.sources["defaults.batch_size"]) == (4, "flag --batch-size")
    assert (settings.defaults.workers, settings.sources["defaults.workers"]) == (3, "env MLSERVE_DEFAULTS_WORKERS")
    assert (settings.defaults.job_queue_size, settings.sources["defaults.job_queue_size"]) == (2, "mlserve.toml:4")
    assert (settings.server.host, settings.sources["server.host"]) == ("::1", "mlserve.toml:6")
    assert (settings.log.level, settings.sources["log.level"]) == ("info", "default")


def test_properties_take_the_place_of_the_toml_file():
    settings = load_settings(
        config_file=Path("conf/config.properties"),
        properties=[("job_queue_size", "7", 3), ("default_response_timeout", "9", 4)],
        environ={"MLSERVE_DEFAULTS_JOB_QUEUE_SIZE": "8"},
    )
    assert settings.defaults.job_queue_size == 8
    assert settings.sources["defaults.response_timeout"] == "config.properties:4"


@pytest.mark.parametrize(
    ("text", "value"),
    [("auto", None), ("none", ()), ("0", (0,)), ("2, 0", (2, 0))],
)
def test_gpu_ids_are_read_as_meant(text, value):
    assert load_settings(flags={"gpu.ids": text}).gpu.ids == value


@pytest.mark.parametrize(("text", "size"), [("1000", 1000), ("64MiB", 64 << 20), ("2 GB", 2 * 10**9), ("8k", 8192)])
def test_sizes_may_have_units(text, size):
    assert load_settings(environ={"MLSERVE_SERVER_MAX_REQUEST_SIZE": text}).server.max_request_size == size


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("server.inference_port", "abc", "expected a whole number from 0 to 65535, got 'abc'"),
        ("server.inference_port", "65536", "expected a whole number from 0 to 65535, got '65536'"),
        ("server.insecure", "maybe", "expected true or false, got 'maybe'"),
        ("defaults.max_batch_delay_ms", "nan", "expected a number of at least 0, got 'nan'"),
        ("log.level", "loud", "expected one of 'debug', 'info', 'warning', 'error', got 'loud'"),
        ("gpu.ids", "0,0", "expected 'auto', 'none' or distinct GPU ids such as 0,1, got '0,0'"),
        ("gpu.ids", "", "expected 'auto', 'none' or distinct GPU ids such as 0,1, got ''"),
        ("gpu.ids", "-1", "expected 'auto', 'none' or distinct GPU ids such as 0,1, got '-1'"),
    ],
)
def test_wrong_flag_names_flag_key_expectation_and_value(key, given, message):
    text = refused(flags={key: given})
    assert text.startswith("flag --")
    assert text.endswith(f": {key}: {message}")


def test_broken_pattern_is_refused_at_start_not_at_the_first_download():
    text = refused(environ={"MLSERVE_MODELS_ALLOWED_URLS": "https://ok/.*,("})
    assert text.startswith("env MLSERVE_MODELS_ALLOWED_URLS: models.allowed_urls: expected a regular expression")


def test_unknown_variable_is_refused_with_the_nearest_name():
    text = refused(environ={"MLSERVE_SERVER_HOTS": "x"})
    assert text == "environment: unknown variable MLSERVE_SERVER_HOTS; did you mean MLSERVE_SERVER_HOST?"


def test_kubernetes_service_links_do_not_stop_the_server():
    load_settings(
        environ={
            "MLSERVE_SERVICE_HOST": "10.0.0.7",
            "MLSERVE_SERVICE_PORT_HTTP": "8080",
            "MLSERVE_PORT": "tcp://10.0.0.7:8080",
            "MLSERVE_PORT_8080_TCP_ADDR": "10.0.0.7",
            "MLSERVE_CANARY_PORT": "tcp://10.0.0.8:8080",
            "MLSERVE_CANARY_SERVICE_PORT": "8080",
        }
    )


def test_misspelt_port_variable_is_not_taken_for_a_service_link():
    assert "did you mean MLSERVE_SERVER_METRICS_PORT?" in refused(environ={"MLSERVE_SERVER_METRIC_PORT": "8082"})


def test_other_programs_variables_are_left_alone():
    load_settings(environ={"PATH": "/bin", "MLSERVER_HOST": "x", "mlserve_x": "y", "MLSERVE_CONFIG": "f"})


def test_addresses_that_the_client_verbs_read_do_not_stop_a_server():
    load_settings(environ={"MLSERVE_MANAGEMENT_URL": "http://h:1", "MLSERVE_INFERENCE_URL": "http://h:2"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nhosts = 'x'\n", "mlserve.toml:2: unknown key server.hosts; did you mean server.host?"),
        ("\n[serve]\nx=1", "mlserve.toml:2: unknown key serve; did you mean server?"),
        ("batch_size = 3", "mlserve.toml:1: unknown key batch_size; did you mean defaults.batch_size?"),
        (
            "[server]\nbatch_size = 3",
            "mlserve.toml:2: unknown key server.batch_size; did you mean defaults.batch_size?",
        ),
        ("[server]\nzzzzzz = 3", "mlserve.toml:2: unknown key server.zzzzzz"),
        ("[model.m]\n\nbatchsize = 3", "mlserve.toml:3: unknown key model.m.batchsize; did you mean batch_size?"),
        ("server = 3", "mlserve.toml:1: server: expected a table [server], got 3"),
        ("[model]\nm = 3", "mlserve.toml:2: model.m: expected a table [model.m], got 3"),
        ("[defaults]\nbatch_size = '3x'", "mlserve.toml:2: defaults.batch_size: expected a whole number of at least 1"),
        ("[defaults]\nbatch_size = true", "mlserve.toml:2: defaults.batch_size: expected a whole number of at least 1"),
        ("[defaults]\nbatch_size = 0", "mlserve.toml:2: defaults.batch_size: expected a whole number of at least 1"),
        ("[server]\ninsecure = 1", "mlserve.toml:2: server.insecure: expected true or false, got 1"),
        ("[models]\nload = [1]", "mlserve.toml:2: models.load: expected a list of texts, got [1]"),
        ("[log]\nlevel = 5", "mlserve.toml:2: log.level: expected one of"),
        ("[model.m]\nmin_workers=3\nmax_workers=2", "mlserve.toml:3: model.m.max_workers: expected at least min_wo"),
        (
            "[model.m.a]\nbatch_size=1",
            'mlserve.toml:1: unknown key model.m.a (a name with a dot is written [model."a.b"])',
        ),
    ],
)
def test_wrong_file_is_refused_with_line_and_cause(tmp_path, text, message):
    assert refused(config_file=toml(tmp_path, text)).startswith(message)


def test_lines_are_right_behind_what_only_looks_like_keys(tmp_path):
    text = '''# host = 1
[models]
default_handler = """
[server]
host = 2
"""
load = [
  "a=b.mar",
]

[ server ] # the front end
"host" = "h"
inference_port = 1
'''
    settings = load_settings(config_file=toml(tmp_path, text))
    assert settings.models.load == ("a=b.mar",)
    assert settings.sources["models.load"] == "mlserve.toml:7"
    assert settings.sources["server.host"] == "mlserve.toml:12"
    assert settings.sources["server.inference_port"] == "mlserve.toml:13"


def test_dotted_and_inline_tables_have_their_line(tmp_path):
    path = toml(tmp_path, 'server.host = "h"\nlog = {level = "debug", format = "json"}\n')
    settings = load_settings(config_file=path)
    assert settings.sources["server.host"] == "mlserve.toml:1"
    assert settings.sources["log.format"] == "mlserve.toml:2"


def test_model_tables_hold_only_what_was_set(tmp_path):
    path = toml(tmp_path, '[model.m]\nbatch_size = 8\n[model."m:2.0"]\ndevice_ids = [1, 0]\n')
    settings = load_settings(config_file=path)
    assert settings.model == {"m": {"batch_size": 8}, "m:2.0": {"device_ids": (1, 0)}}
    assert settings.sources["model.m:2.0.device_ids"] == "mlserve.toml:4"


def test_unreadable_file_is_named(tmp_path):
    assert "cannot read the settings file: No such file" in refused(config_file=tmp_path / "none.toml")


def test_broken_toml_tells_the_place(tmp_path):
    assert "line 2" in refused(config_file=toml(tmp_path, "[server]\nhost = \n"))


def test_named_file_wins_over_variable_over_the_one_that_happens_to_be_there(tmp_path):
    named, environ = tmp_path / "a.toml", {"MLSERVE_CONFIG": "b.toml"}
    assert find_config_file(named, environ, tmp_path) == named
    assert find_config_file(None, {}, tmp_path) is None
    default = toml(tmp_path, "")
    assert find_config_file(None, environ, tmp_path) == Path("b.toml")
    assert find_config_file(None, {}, tmp_path) == default


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        load_settings().server.host = "0.0.0.0"  # type: ignore[misc]


def test_address_of_an_api_falls_back_to_the_common_host():
    server = load_settings(environ={"MLSERVE_SERVER_HOST": "h", "MLSERVE_SERVER_METRICS_HOST": "m"}).server
    assert server.address("inference") == ("h", 8080)
    assert server.address("management") == ("h", 8081)
    assert server.address("metrics") == ("m", 8082)
    assert server.address("grpc_inference") == ("h", 7070)
