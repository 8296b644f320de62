"""gRPC doors over the same service as ``rest``. None yet; ports 7070 and 7071 are kept for them in the settings."""
