"""A TorchServe ``config.properties`` on the settings tree."""

import re
from pathlib import Path

import pytest

from mlserve.errors import SettingError
from mlserve.settings import Settings, all_options, load_settings
from mlserve.settings.torchserve import SWITCHES

KNOWN_TO_TORCHSERVE = """
inference_address management_address metrics_address grpc_inference_address grpc_management_address
grpc_inference_port grpc_management_port grpc_inference_max_connection_age_ms
grpc_inference_max_connection_age_grace_ms grpc_management_max_connection_age_ms
grpc_management_max_connection_age_grace_ms enable_grpc_ssl load_models model_store workflow_store models model_snapshot
default_workers_per_model job_queue_size default_response_timeout default_startup_timeout unregister_model_timeout
number_of_gpu number_of_netty_threads netty_client_threads max_request_size max_response_size limit_max_image_pixels
decode_input_request default_service_handler service_envelope model_server_home blacklist_env_vars metrics_config
metrics_mode model_metrics_auto_detect disable_system_metrics system_metrics_cmd metric_time_interval enable_metrics_api
disable_token_authorization token_expiration_min enable_model_api allowed_urls use_env_allowed_urls
install_py_dep_per_model ts_open_inference_protocol ts_header_key_sequence_id ts_header_key_sequence_start
ts_header_key_sequence_end keystore keystore_pass keystore_type private_key_file certificate_file cors_allowed_origin
cors_allowed_methods cors_allowed_headers cpu_launcher_enable cpu_launcher_args ipex_enable ipex_gpu_enable
async_logging debug initial_worker_port initial_distribution_port vmargs plugins_path prefer_direct_buffer use_native_io
io_ratio cpp_log_config enable_envvars_config
"""
FLAGS = {item.torchserve for item in all_options() if item.kind == "bool"}
FLAGS |= {"disable_system_metrics", "disable_token_authorization", "debug", "enable_grpc_ssl", *SWITCHES}
VALUES = {
    **dict.fromkeys(("inference_address", "management_address", "metrics_address"), "http://127.0.0.1:1"),
    "models": '{"m": {"1.0": {"batchSize": 3}}}',
    "model_snapshot": '{"models": {}}',
    "service_envelope": "json",
    "metrics_mode": "log",
}


def from_properties(*entries: tuple[str, str]) -> Settings:
    lines = [(key, value, number) for number, (key, value) in enumerate(entries, 1)]
    return load_settings(config_file=Path("/etc/ts/config.properties"), properties=lines)


def refused(*entries: tuple[str, str]) -> str:
    with pytest.raises(SettingError) as caught:
        from_properties(*entries)
    return str(caught.value)


# Keys that set no field of their own: what shows that they are read.
READ = {
    "models": lambda settings: settings.model == {"m:1.0": {"batch_size": 3}},
    "model_snapshot": lambda settings: settings.model_snapshot == {"models": {}},
    "enable_envvars_config": lambda settings: settings.defaults.job_queue_size == 7,
    "use_env_allowed_urls": lambda settings: settings.models.allowed_urls == ("https://only/.*",),
}


@pytest.mark.parametrize("key", KNOWN_TO_TORCHSERVE.split())
def test_every_key_of_torchserve_is_honoured_or_reported_as_ignored_with_its_reason(key):
    entries = [(key, VALUES.get(key, "true" if key in FLAGS else "1"), 1), ("enable_envvars_config", "true", 2)]
    environ = {"TS_JOB_QUEUE_SIZE": "7", "TS_ALLOWED_URLS": "https://only/.*"}
    settings = load_settings(
        config_file=Path("config.properties"),
        properties=entries[: 1 if key == "enable_envvars_config" else 2],
        environ=environ if key in READ else {},
    )
    honoured = READ[key](settings) if key in READ else "config.properties:1" in settings.sources.values()
    ignored = any(
        re.fullmatch(rf"config\.properties:1: {key} is accepted and ignored: .+", note) for note in settings.notes
    )
    assert honoured != ignored, settings.notes


@pytest.mark.parametrize(
    ("key", "text", "section", "field", "value"),
    [
        ("model_store", "/models", "models", "store", "/models"),
        ("load_models", "a.mar, n=b.mar", "models", "load", ("a.mar", "n=b.mar")),
        ("load_models", "", "models", "load", ()),
        ("enable_model_api", "false", "models", "model_api", False),
        ("allowed_urls", "https://a/.*,file:///x", "models", "allowed_urls", ("https://a/.*", "file:///x")),
        ("default_service_handler", "h.py:f", "models", "default_handler", "h.py:f"),
        ("default_workers_per_model", "3", "defaults", "workers", 3),
        ("decode_input_request", "false", "defaults", "decode_input", False),
        ("default_startup_timeout", "7", "defaults", "startup_timeout", 7.0),
        ("number_of_gpu", "2", "gpu", "limit", 2),
        ("max_request_size", "6553500", "server", "max_request_size", 6553500),
        ("disable_token_authorization", "true", "server", "insecure", True),
        ("disable_token_authorization", "true", "auth", "tokens", False),
        ("disable_token_authorization", "false", "auth", "tokens", True),
        ("debug", "true", "defaults", "startup_workers", 1),
        ("enable_grpc_ssl", "true", "tls", "apis", ("grpc_inference", "grpc_management")),
        ("metrics_mode", " Prometheus", "metrics", "mode", "prometheus"),
        ("service_envelope", "kserve", "models", "envelope", "kserve"),
        ("unregister_model_timeout", "0", "models", "unregister_timeout", 0.0),
        ("token_expiration_min", "0.5", "auth", "token_expiration_min", 0.5),
        ("ts_open_inference_protocol", "TRUE", "server", "open_inference", True),
        ("inference_address", "unix:/run/mlserve.sock", "server", "host", "unix:/run/mlserve.sock"),
        ("management_address", "HTTPS://h:1", "tls", "apis", ("management",)),
        ("disable_system_metrics", "true", "metrics", "system", False),
        ("enable_metrics_api", "false", "metrics", "enabled", False),
        ("grpc_inference_port", "7777", "server", "grpc_inference_port", 7777),
    ],
)
def test_key_sets_its_field(key, text, section, field, value):
    settings = from_properties((key, text))
    assert getattr(getattr(settings, section), field) == value
    assert settings.sources[f"{section}.{field}"] == "config.properties:1"
    assert settings.notes == ()


def test_addresses_are_split_so_that_management_can_stay_on_loopback():
    settings = from_properties(
        ("inference_address", "http://0.0.0.0:9000"),
        ("management_address", "http://127.0.0.1"),
        ("metrics_address", "http://[::1]:9002/"),
    )
    assert settings.server.address("inference") == ("0.0.0.0", 9000)
    assert settings.server.address("management") == ("127.0.0.1", 8081)
    assert settings.server.address("metrics") == ("::1", 9002)


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("unix:tmp/x.sock", "a socket is unix:/path"),
        ("https://Incorrect?*binding:11111", "expected an address such as"),
        ("127.0.0.1:8080", "expected an address such as"),
        ("http://127.0.0.1:99999", "expected an address such as"),
        ("http://", "expected an address such as"),
    ],
)
def test_address_that_cannot_be_served_is_an_error_not_a_note(address, cause):
    text = refused(("model_store", "x"), ("inference_address", address))
    assert text.startswith("config.properties:2: inference_address: ")
    assert cause in text
    assert address in text


def test_wrong_value_names_the_line():
    text = refused(("model_store", "x"), ("job_queue_size", "many"))
    assert text == ("config.properties:2: defaults.job_queue_size: expected a whole number of at least 1, got 'many'")


@pytest.mark.parametrize("key", ["blacklist_env_vars", "allowed_urls"])
def test_a_broken_pattern_is_found_at_start_not_with_the_first_worker(key):
    assert refused((key, "AWS_[")).startswith("config.properties:1: ")


def test_last_of_two_entries_counts():
    settings = from_properties(("job_queue_size", "1"), ("job_queue_size", "2"))
    assert settings.defaults.job_queue_size == 2
    assert settings.sources["defaults.job_queue_size"] == "config.properties:2"


def test_what_is_ignored_is_said_with_line_and_reason():
    settings = from_properties(("io_ratio", "70"), ("my_own", "1"))
    assert settings.notes[0].startswith("config.properties:1: io_ratio is accepted and ignored: ")
    assert settings.notes[1].startswith("config.properties:2: my_own is not a setting")


def test_models_json_becomes_overrides_per_version():
    json = (
        '{"m": {"1.0": {"minWorkers": 1, "maxWorkers": 2, "batchSize": 4, "maxBatchDelay": 50, "responseTimeout": 9,'
        ' "startupTimeout": 8, "marName": "m.mar", "parallelLevel": 2},'
        ' "2.0": {"defaultVersion": true, "batchSize": 0}}}'
    )
    settings = from_properties(("models", json))
    assert settings.model == {
        "m:1.0": {
            "min_workers": 1,
            "max_workers": 2,
            "batch_size": 4,
            "max_batch_delay_ms": 50.0,
            "response_timeout": 9.0,
            "startup_timeout": 8.0,
            "parallel_level": 2,
        },
        "m:2.0": {},
    }
    assert settings.sources["model.m:1.0.batch_size"] == "config.properties:1"
    assert settings.default_versions == {"m": "2.0"}
    assert settings.notes == (
        "config.properties:1: models: marName of m 1.0 is accepted and ignored: load_models names the archives",
        "config.properties:1: models: batchSize of m 2.0 is 0, which leaves it at the default",
    )


@pytest.mark.parametrize(
    ("json", "cause"),
    [
        ("{", "models: expected JSON"),
        ("[]", "expected a JSON object"),
        ('{"m": 1}', "'m' must map each version"),
        ('{"m": {"1.0": 1}}', "'m' must map each version"),
        ('{"m": {"1.0": {"batchSize": "x"}}}', "model.m:1.0.batch_size: expected a whole number of at least 1, got"),
        ('{"m": {"1.0": {"defaultVersion": 1}}}', "defaultVersion of m 1.0: expected true or false, got 1"),
    ],
)
def test_wrong_models_json_is_refused_with_its_line(json, cause):
    text = refused(("models", json))
    assert text.startswith("config.properties:1: ")
    assert cause in text
