"""The domain: models, queues, batching, workers' states. No sockets, no HTTP, no subprocesses."""
