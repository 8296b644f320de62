"""The child program of the server, one process per worker: imported by nobody, started by name."""
