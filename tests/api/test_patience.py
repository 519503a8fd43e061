"""How long requests wait, and how many may: the clamps to settings."""

import time
from contextlib import ExitStack

import pytest

from tests.conftest import Server, StartServer, new_meter, wait_for
from tests.faulty_meter import FaultyMeter

POLL_TIME = 9.5
"""Seconds to respond to a client that polls, unless the setting is shorter."""


@pytest.mark.parametrize('path', ['/metrics', '/api/v1/data'])
def test_the_timeout_holds_for_polls_too(path: str, start_server: StartServer) -> None:
    """With a [meter] timeout below 9.5 s, a poll of a silent meter ends after that timeout."""
    with new_meter(source=lambda: b'') as meter:
        server = start_server(meter.port, meter={'timeout': 0.5}, server={'homewizard_api': 'yes'})
        began = time.monotonic()
        server.get(path)
        assert 0.5 <= time.monotonic() - began < POLL_TIME - 1


def begin_stream(server: Server, stack: ExitStack) -> bytes:
    """The status line of a stream that stays open."""
    client = stack.enter_context(server.connect())
    client.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
    return client.recv(16)


def test_one_connection_is_left_for_requests(start_server: StartServer, meter: FaultyMeter) -> None:
    """When max_streams is not below max_connections, streams take all connections but one."""
    server = start_server(meter.port, server={'max_connections': 3, 'max_streams': 3})
    with ExitStack() as stack:
        for _ in range(2):
            assert begin_stream(server, stack).startswith(b'HTTP/1.1 200 ')
        with ExitStack() as refused:
            assert begin_stream(server, refused).startswith(b'HTTP/1.1 503 ')
        wait_for(lambda: server.get('/').status == 200)
