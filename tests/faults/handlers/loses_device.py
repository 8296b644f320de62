"""Fails as torch does when a kernel has read a bad address: nothing on that device works in this process any more."""


def handle(data, context):
    if data is None:
        return None
    if any(row["body"] == b"lose" for row in data):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return [row["body"] for row in data]
