"""gRPC doors over the same service as ``rest``: inference on one port, management on another.

Nothing here is imported unless gRPC is served (``grpc.enabled``): loading it takes a tenth of a second.
"""
