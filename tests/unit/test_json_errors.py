"""What the middleware next to an app's handlers makes of their exceptions."""

import asyncio
import logging
from unittest import mock

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from mlserve.rest.json_errors import json_errors


def ask(error: Exception, *, gone: bool) -> web.StreamResponse:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise error

    async def run() -> web.StreamResponse:
        transport = mock.Mock()
        transport.is_closing.return_value = gone
        return await json_errors()(make_mocked_request("POST", "/predictions/m", transport=transport), handler)

    return asyncio.run(run())


def test_a_client_that_goes_while_it_is_answered_leaves_no_traceback(caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(asyncio.CancelledError):
        ask(ConnectionResetError("Cannot write to closing transport"), gone=True)
    assert not caplog.records


def test_another_connection_s_reset_is_a_failure_that_is_told(caplog):
    with caplog.at_level(logging.ERROR):
        assert ask(ConnectionResetError("of a database"), gone=False).status == 500
    assert "Traceback" in caplog.text
