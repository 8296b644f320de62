"""Named tables of defaults: the whole difference between mlserve's own way and TorchServe's on one page.

A profile replaces defaults and nothing else: the settings file, the environment and flags come before it, so that a
user moves from one way to the other setting by setting. Values are TorchServe 0.12.0's defaults, unless a comment says
why not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "torchserve": {
        "auth.tokens": True,
        "defaults.batch_policy": "window",  # wait for a full batch or for the delay
        "defaults.isolate_errors": False,  # a handler that raises fails its whole batch
        "defaults.job_queue_size": 100,
        "defaults.reject_invalid_json": False,  # handlers get the bytes instead
        "defaults.retry_on_worker_death": 0,  # the requests that a worker died with fail with it
        "defaults.strict_results": True,
        "defaults.workers_without_gpu": 0,  # one per CPU
        "log.access_log": "off",  # it is a file of log.directory
        "log.directory": "logs",
        "log.format": "torchserve",
        "log.metrics_directory": "logs",  # also where $LOG_LOCATION moves the other logs
        "metrics.auto_detect": False,
        "metrics.families": "both",  # dashboards find TorchServe's names; the others are beside them
        "metrics.mode": "log",
        "models.allowed_urls": ("file://.*", "http(s)?://.*"),
        "models.any_directory": True,
        "models.bare_files": False,
        "models.environment_cache": "",  # requirements go into the model's own directory
        "models.keep_going": True,  # a start-up model that does not load is a warning
        "models.model_api": False,
        "models.private_urls": True,  # archives lie on servers of the own network
        "models.snapshots": True,
        "models.start_in_background": True,
        "server.echo_request_id": False,
        "server.error_detail": "none",
        "server.grpc_inference_host": "127.0.0.1",  # this and the other hosts: wherever `server.host` listens
        "server.grpc_management_host": "127.0.0.1",
        "server.handler_error_status": 503,
        "server.healthy_while_retrying": True,
        "server.http_style": "torchserve",
        "server.infer_content_type": False,
        "server.management_host": "127.0.0.1",
        "server.max_request_size": 6_553_500,
        "server.max_response_size": 6_553_500,
        "server.metrics_host": "127.0.0.1",
        "server.typed_form_fields": False,  # handlers get such fields as bytes
        "tls.weak_keys": True,  # Java takes them
        "workers.first_retry_wait": 1.0,
        "workers.retry_first_load": True,
    }
}

ENVIRONMENT: Mapping[str, Mapping[str, str]] = {
    "torchserve": {
        "LOG_LOCATION": "log.directory",
        "METRICS_LOCATION": "log.metrics_directory",
        "SM_TELEMETRY_LOG": "log.telemetry",
        "TEMP": "server.temp_directory",
    }
}
"""Profile -> variables, besides ``MLSERVE_*``, that its users set: variable -> setting. An ``MLSERVE_*`` one wins."""
