"""What travels between the server and its workers: frames, their metadata, and shared memory for large payloads."""
