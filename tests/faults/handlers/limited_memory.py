"""May use 64 MiB more than it has; the body says how many MiB it takes."""

import resource


def handle(data, context):
    if data is None:
        return None
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    return [str(len(bytearray(int(bytes(row["body"])) << 20))) for row in data]
