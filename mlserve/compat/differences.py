"""Every point where the ``torchserve`` profile knowingly differs from TorchServe 0.12, with the reason.

One table for whoever asks: ``mlserve doctor --torchserve`` shows it, the migration guide prints it, and the
compatibility tests may skip a case only by naming a row of it.
"""

from __future__ import annotations

from typing import NamedTuple


class Difference(NamedTuple):
    """``theirs`` and ``ours`` say what each server does; ``setting`` is what brings the other way back, if anything."""

    theirs: str
    ours: str
    why: str
    setting: str = ""


DIFFERENCES: dict[str, Difference] = {
    "junk-archive": Difference(
        "a file that is no archive registers as a model without workers",
        "it is refused with 400",
        "the mistake shows when it is made, not with the first request",
    ),
    "bad-archive": Difference(
        "an archive that cannot be unpacked, or has a path that leaves it, answers 500 `Failed to save model`",
        "400, with the reason",
        "it is the archive's fault, and whoever made it needs to know which",
    ),
    "no-handler": Difference(
        "a model without any handler registers, and its workers fail",
        "it is refused with 400, which names the settings that give it one",
        "the mistake shows when it is made, not with the first request",
    ),
    "unreadable-manifest": Difference(
        "a manifest that is no JSON is refused with `Failed to parse signature.json.`",
        "it is refused with 400 as well, and the text names MANIFEST.json and the place in it",
        "there is no signature.json",
    ),
    "several-classes": Difference(
        "a handler file with several classes and no function `handle` does not load",
        "it loads if just one of them has initialize and handle",
        "helper classes beside the handler are common",
    ),
    "empty-version": Difference(
        "modelVersion may be empty",
        "it is refused with 400",
        "no path can name such a version",
    ),
    "invalid-workflow": Difference(
        "a file that is no workflow, or a specification that cannot be read, answers 500, often with a Java exception",
        "it is refused with 400 InvalidWorkflowException that names what is wrong",
        "the mistake is the caller's",
    ),
    "envelope-input": Difference(
        "a body that its service envelope cannot read answers 503 `Prediction failed`",
        "it answers 400 and says what the envelope expects",
        "the mistake is the caller's, and 503 asks him to try again",
    ),
    "broken-form": Difference(
        "a multipart body without its end, or with no boundary, reaches the handler as an empty row or as bytes",
        "it is refused with 400",
        "half an upload would be taken for a whole one",
    ),
    "client-timeout": Difference(
        "a request that passes clientTimeoutInMills is never answered",
        "it is answered with 504",
        "a client that waits for ever cannot tell a slow model from a dead server",
    ),
    "foreground-exit": Difference(
        "`torchserve --foreground` ends with 0 when the server could not start",
        "it ends with 1",
        "init systems and containers restart by the exit code",
    ),
    "foreground-process": Difference(
        "with --foreground the command waits for a Java process",
        "with --foreground the command is the server",
        "a container's SIGTERM reaches the server, which then drains",
    ),
    "json-batch-delay": Difference(
        "a JSON register call without max_batch_delay sets it to -10000",
        "it gets the default of 100 ms",
        "a slip of the original that describe shows",
    ),
    "numbers-out-of-range": Difference(
        "register takes batch_size=-3 and the like, and describe shows them",
        "such a number counts as not given",
        "a batch of less than one request cannot be",
    ),
    "nameless-archive": Difference(
        "registering an archive without a manifest needs model_name, else 400",
        "the file's name is the model's, as for models loaded at start",
        "one rule for both ways to load",
    ),
    "shared-listener": Difference(
        "on an address of both APIs, /models/NAME/VERSION is 404, and with tokens on a call needs both keys at once",
        "the path describes the version, and a call needs the key of its API",
        "one value of one header cannot be two keys",
    ),
    "grpc-latency": Difference(
        "ts_inference_latency_microseconds and ts_queue_latency_microseconds leave requests over gRPC out",
        "they hold every request that a handler answered",
        "ts_inference_requests_total counts gRPC there too, and averages are made of the two",
    ),
    "grpc-unknown": Difference(
        "a management call that fails in a way without a status of its own ends with UNKNOWN and no text",
        "it ends with the status of the REST answer and its text; only a second registration stays UNKNOWN",
        "a client can tell what to do about it",
    ),
    "scale-minus-one": Difference(
        "min_worker=-1 answers 500 and leaves min and max at -1",
        "it answers 500 and changes nothing",
        "a failed call must not change a model",
    ),
    "first-gpu": Difference(
        "the first worker of the first model gets GPU 1 where there are several",
        "it gets GPU 0",
        "the counter there is raised before it is used",
    ),
    "archiver-staging": Difference(
        "a failed torch-model-archiver leaves its staging folder in the temporary directory",
        "nothing is left",
        "the copies can be gigabytes",
    ),
    "failed-register-stays": Difference(
        "a model whose workers fail to start may stay listed",
        "it is always removed again",
        "the answer said that it was not registered",
    ),
    "stream-of-one": Difference(
        "StreamPredictions on a handler that does not stream ends its worker",
        "its answer is the stream's only piece",
        "a call must not take a worker with it",
    ),
    "grpc-unary-of-stream": Difference(
        "Predictions on a streaming handler never answers",
        "it answers with the whole of the stream",
        "a client cannot know how a handler answers",
    ),
    "grpc-too-large": Difference(
        "a gRPC message beyond max_request_size ends with CANCELLED and no words",
        "it ends with RESOURCE_EXHAUSTED and both sizes",
        "a client cannot tell the other from its own cancelling",
    ),
    "large-response": Difference(
        "an answer beyond max_response_size ends its worker",
        "the request fails, and the worker serves on",
        "a large answer must not take the others in the worker with it",
        "server.max_response_size",
    ),
    "sequence-start": Difference(
        "a request of StreamPredictions2 with ts_request_sequence_start and no sequence_id is refused",
        "the server makes the id, and the answer tells it",
        "it is what the definitions say; the test of the flag there compares the name of a Java object",
    ),
    "sequence-end": Difference(
        "every request of StreamPredictions2 reaches its handler with the header ts_request_sequence_end",
        "only those do that have it in their input",
        "a handler could not tell when a sequence ends",
    ),
    "sequence-failure": Difference(
        "a model that is not there, that fails, or that has no sequences ends StreamPredictions2 with UNKNOWN",
        "that request is answered with a status, and the call goes on",
        "one failed request must not end the others' sequences",
    ),
    "sequence-id": Difference(
        "answers of StreamPredictions2 leave sequence_id empty",
        "each names its sequence",
        "answers of several sequences come in one stream",
    ),
    "unary-to-sequence": Difference(
        "Predictions on a model with sequenceBatching is never answered",
        "it is answered, as a sequence of its own unless it names one",
        "a call that cannot be served must not hang",
    ),
    "open-inference-ready": Difference(
        "ServerReady is true whatever the models do, and ModelReady is true of a model without workers",
        "both tell whether a worker is ready",
        "load balancers send requests there",
    ),
    "handler-with-function": Difference(
        "torch-model-archiver fails on `--handler file.py:function`",
        "it packs the file and keeps the function",
        "the server reads such handlers",
    ),
    "archiver-steps": Difference(
        "package_model calls ModelExportUtils for each step",
        "it packs in one go; the steps are there for scripts that call them",
        "no copy of the weights is made before they are packed",
    ),
    "model-log-levels": Difference(
        "what a handler logs is an INFO line of model_log whatever its level",
        "it keeps its level",
        "errors can be told from the rest",
    ),
    "temporary-files": Difference(
        "models are unpacked to $TEMP/models, and workers listen on $TEMP/.ts.sock.9000 and so on",
        "models are in a directory of the server's own below $TEMP, and a worker's socket has no name",
        "two servers share a $TEMP, nothing is left by one that crashed, and nobody else can connect to a worker",
    ),
    "metrics-on-stdout": Difference(
        "lines `[METRICS]...` that a handler prints become metrics",
        "they are log lines; context.metrics reports metrics",
        "metrics travel with the answers, where nothing else can be taken for them",
    ),
    "cpp-runtime": Difference(
        "runtime LSP runs C++ handlers",
        "such an archive is refused with 400",
        "there is no C++ worker",
    ),
    "plugins": Difference(
        "plugins_path loads Java endpoints and snapshot serializers",
        "it is ignored with a warning",
        "there is no Java",
    ),
    "log4j": Difference(
        "--log-config takes a log4j2 file",
        "the file is not read; log.* settings choose level, form and directory",
        "there is no log4j",
    ),
    "system-metrics-command": Difference(
        "a Python process is started every metric_time_interval to measure the machine",
        "the server measures the machine itself; only a system_metrics_cmd of the user's own is run, as there",
        "a process a minute is not needed for it",
        "metrics.system_command",
    ),
    "tls-versions": Difference(
        "TLS 1.2 with two cipher suites",
        "TLS 1.2 and later with the system's suites",
        "current clients expect TLS 1.3",
    ),
    "keystore-jks": Difference(
        "keystore_type=JKS is read",
        "PKCS12 and PEM are read; the error for JKS names the keytool command that converts it",
        "JKS is Java's own format",
    ),
    "cpu-launcher-rescale": Difference(
        "with the CPU launcher all workers restart when their number changes",
        "those that stay keep their cores until they restart",
        "requests in flight are worth more than an even split",
    ),
    "crash-message": Difference(
        "a worker's death is told as `Worker died.` and a line in a log",
        "describe adds why (signal, out of memory, exit code), the traceback and the last log lines",
        "extra keys behind TorchServe's own",
    ),
    "archive-forms": Difference(
        "a .tar.gz without a top folder loses its files, and a .zip cannot be registered",
        "both are read like any other archive",
        "what is in them says that they are models",
    ),
    "archiver-manifest": Difference(
        "MANIFEST.json has the time of packing in createdOn",
        "createdOn is 01/01/1980 unless SOURCE_DATE_EPOCH is set, and `checksums` holds a digest of each file",
        "the same files give the same archive, and a damaged one is found when it is loaded",
    ),
    "models-json-keys": Difference(
        "runtimeType in the key `models` replaces that of the archive; marName is not read",
        "both are noted at start and not read",
        "the archive says how it runs, and load_models names the archives",
    ),
    "timeouts-of-the-call": Difference(
        "a model-config.yaml that sets no timeout sets 120 s, and one of the key `models` beats a register call's",
        "a timeout of the call counts unless model-config.yaml has one; the default is default_response_timeout's",
        "what is said in so many words comes before what nobody said",
    ),
    "yaml-workers": Difference(
        "minWorkers and maxWorkers of model-config.yaml count together or not at all",
        "one of them is enough",
        "minWorkers: 2 says what it means",
    ),
    "yaml-delay": Difference(
        "maxBatchDelay: 0 in model-config.yaml means 100 ms, and fractions are refused",
        "it means 0, and milliseconds may have fractions",
        "0 is the natural way to ask for no wait",
    ),
    "values-at-start": Difference(
        "a wrong number may be found with the first model, and an unknown metrics_mode is `log`",
        "every value is checked at start; the error names file, line and key",
        "a typing error must not change what is measured",
    ),
    "missing-config-file": Difference(
        "a TS_CONFIG_FILE that does not exist counts as an empty one",
        "the server does not start",
        "a server on default addresses with default limits is not what was asked for",
    ),
    "snapshot-bad-model": Difference(
        "restoring a snapshot ends with the first model that cannot be loaded",
        "the others are restored, and the server tells which one was not",
        "one bad archive must not take the others down",
    ),
    "snapshot-overwritten": Difference(
        "a server that refuses a snapshot, because an archive is gone, writes an empty one when it ends",
        "it writes none",
        "the next start would come up without any models",
    ),
    "head-and-allow": Difference(
        "HEAD on the management API answers 405, and no 405 has an Allow header",
        "HEAD answers as GET without the body, and Allow names the methods",
        "it is what HTTP asks for",
    ),
    "describe-keys": Difference(
        "describe has TorchServe's keys",
        "behind them it has state, defaultVersion, batchPolicy, lastError, provenance, settings, and more of workers",
        "clients read the keys that they know",
    ),
    "worker-comes-back": Difference(
        "a worker that loads and dies again at once is started again a second later each time",
        "the waits grow until it has been ready for a minute",
        "a model that dies with each request would load without end",
    ),
    "log-lines-once": Difference(
        "ts_log.log holds the server's own lines twice",
        "each is there once",
        "the doubling is a slip of the log4j2 file",
    ),
    "queue-time": Difference(
        "QueueTime is in whole milliseconds",
        "it has decimals",
        "most waits are shorter than a millisecond",
    ),
    "broken-image": Difference(
        "what a handler that comes with the server cannot take, as a broken image, fails its whole batch with 503",
        "that request is answered with 400, or 501 where there are no explanations, and the others as always",
        "the mistake is the client's, and sending it again does not help",
    ),
    "pippy": Difference(
        "ts.torch_handler.distributed.base_pippy_handler and ts.handler_utils.distributed.pt_pippy drive PiPPy",
        "importing them fails with their name, unless a torchserve is installed beside mlserve",
        "PiPPy is archived; torch.distributed.pipelining has taken its place",
    ),
}
