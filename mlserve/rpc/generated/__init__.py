"""Written by `scripts/protos` from the definitions in `mlserve/rpc/protos`: messages, and stubs for Python clients."""
