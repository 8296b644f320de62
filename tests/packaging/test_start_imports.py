"""What the server imports, and when: it is made quicker by means that must not be felt later."""

import json
import subprocess
import sys


def test_server_is_imported_without_what_only_some_requests_need() -> None:
    """It competes with the first worker's imports, and half of what it would bring is aiohttp."""
    code = """
import json, sys
import mlserve.server
late = ("aiohttp", "prometheus_client", "mlserve.rest.slow", "mlserve.core.workflows", "mlserve.protocols.openapi")
print(json.dumps([name for name in late if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_server_trusts_nobody_or_everybody_when_it_downloads() -> None:
    code = """
import json, ssl
before = ssl.create_default_context
from mlserve.rest.standin import import_slow
import_slow()
import aiohttp, mlserve.archive.download as download
seen = {}
class Connector:
    def __init__(self, *, ssl, **options):
        seen["context"] = ssl
        raise OSError("as far as this goes")
aiohttp.TCPConnector = Connector
import asyncio, pathlib
try:
    asyncio.run(download._fetch("https://example.invalid/m.mar", pathlib.Path("m"),
        download.AllowedUrls(("https://.*",)), download.DownloadLimits(), {}))
except OSError:
    pass
context = seen["context"]
print(json.dumps([before is ssl.create_default_context, context.cert_store_stats(), before().cert_store_stats(),
    context.check_hostname, context.verify_mode]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    restored, trusted, known, checks, mode = json.loads(done.stdout)
    assert restored
    assert trusted == known
    assert checks
    assert mode == 2  # ssl.CERT_REQUIRED
