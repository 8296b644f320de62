"""Sets the status that the request says, and has a body all the same: "204 whole" or "204 stream"."""

SPLIT = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"


def pieces():
    yield SPLIT
    yield SPLIT


def handle(data, context):
    if data is None:
        return None
    results = []
    for index, row in enumerate(data):
        status, form = bytes(row["body"]).decode().split()
        context.set_response_status(code=int(status), idx=index)
        results.append(pieces() if form == "stream" else SPLIT)
    return results
