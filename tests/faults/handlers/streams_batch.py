"""handle() is a generator itself: each value holds one piece per request, None for one that has ended."""


def handle(data, context):
    if data is None:
        return
    counts = [int(bytes(row["body"])) for row in data]
    for step in range(max(counts)):
        yield [f"{step} " if step < count else None for count in counts]
