"""Failures: in making a response, which are the server's own, and of clients that vanish or never shake hands."""

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsmr_rest.config import ServerSettings
from dsmr_rest.faults import NotWantedError
from dsmr_rest.http.listener import PROBE_AFTER, PROBE_PAUSE, PROBES, UNACKNOWLEDGED_TIME
from dsmr_rest.http.message import Request, Response
from dsmr_rest.http.server import REFUSAL_TIME, REQUEST_TIME, HttpServer
from tests.conftest import HOST, is_problem, receive_all, split_responses, wait_for

PATIENCE = 60.0
"""Seconds that a test waits for what needs far less, also on a busy machine."""
TWO_MINUTES = 120.0


class Events:
    """Events that end with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield b'data: 1\n\n'
        raise self._error

    def close(self) -> None:
        self.closed += 1


class Failing:
    """An application whose every response is this error, or events that end with it when the path is /stream."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.events = Events(error)

    @property
    def header_fields(self) -> Mapping[str, str]:
        return {}

    def respond(self, request: Request) -> Response:
        if request.path == '/stream':
            return Response(b'', 'text/event-stream', events=self.events)
        raise self._error

    def respond_at_once(self, request: Request) -> Response:
        return self.respond(request)

    def count(self, response: Response) -> None:
        pass


@contextmanager
def started(application: Any, **settings: Any) -> Iterator[HttpServer]:
    """A server in this process."""
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0, **settings), application)
    server.start()
    try:
        yield server
    finally:
        server.close()


def connected(server: HttpServer) -> socket.socket:
    return socket.create_connection(('127.0.0.1', server.port), PATIENCE)


def response_to(server: HttpServer, path: str) -> bytes:
    """Everything that a server sends in response to one request."""
    with connected(server) as client:
        client.sendall(f'GET {path} HTTP/1.0\r\n{HOST}\r\n'.encode())
        return receive_all(client)


ERRORS_OF_THE_SYSTEM = [
    FileNotFoundError(
        2, 'on purpose'
    ),  # a file of the server has gone, after an upgrade for example
    OSError(5, 'on purpose'),  # an SD card cannot be read
    OSError(24, 'on purpose'),  # no file descriptor
    BrokenPipeError(32, 'on purpose'),  # also what a client that has gone is reported with
    TimeoutError('on purpose'),
    MemoryError('on purpose'),
]


@pytest.mark.parametrize('error', ERRORS_OF_THE_SYSTEM, ids=repr)
def test_an_error_of_the_system_is_500(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the system while a response is made is 500 internal_error, and in the log."""
    with started(Failing(error)) as server:
        (response,) = split_responses(response_to(server, '/'))
    assert is_problem(response, 500, 'internal_error')
    assert [record.message for record in caplog.records] == ['a request failed']
    assert 'on purpose' in caplog.text


@pytest.mark.parametrize('error', ERRORS_OF_THE_SYSTEM, ids=repr)
def test_an_error_of_the_system_ends_a_stream(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the system while an event is made ends the stream, and is in the log."""
    application = Failing(error)
    with started(application) as server:
        received = response_to(server, '/stream')
    assert received.endswith(b'data: 1\n\n')
    assert [record.message for record in caplog.records] == ['a stream failed']
    assert application.events.closed == 1


@pytest.mark.parametrize('path', ['/', '/stream'])
def test_a_response_that_nobody_wants_is_no_error(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the application finds that the client has gone, the connection ends without a log line."""
    with started(Failing(NotWantedError())) as server:
        received = response_to(server, path)
    assert b' 500 ' not in received
    assert not caplog.records


class Waiting(Failing):
    """An application that never responds to / while the client is there."""

    def __init__(self) -> None:
        super().__init__(NotWantedError())
        self.is_waiting = False

    def respond(self, request: Request) -> Response:
        self.is_waiting = True
        while request.is_wanted(lambda: None):
            time.sleep(0.05)
        return super().respond(request)


def test_a_refused_client_that_does_not_shake_hands(
    certificate: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent TLS client for which there is no place has REFUSAL_TIME for the handshake as well."""
    monkeypatch.setattr('dsmr_rest.http.server.SPARE_TIME', 3600.0)
    settings = {name: str(path) for name, path in certificate.items()}
    with started(Waiting(), max_connections=1, **settings) as server, ExitStack() as stack:
        stack.enter_context(connected(server))
        wait_for(server.places.connections, PATIENCE)
        began = time.monotonic()
        second = stack.enter_context(connected(server))
        assert receive_all(second) == b''
        waited = time.monotonic() - began
    assert REFUSAL_TIME <= waited < REQUEST_TIME - 1


def test_every_connection_notices_a_vanished_client() -> None:
    """Connections have keep-alive probes and a limit for unacknowledged bytes: within two minutes, whatever is sent."""
    with started(Waiting()) as server, connected(server):
        accepted = wait_for(lambda: list(server.places.connections()), PATIENCE)

        def option(name: str) -> int:
            return int(accepted[0].getsockopt(socket.IPPROTO_TCP, getattr(socket, name)))

        assert accepted[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert option('TCP_KEEPIDLE') == PROBE_AFTER
        assert option('TCP_KEEPINTVL') == PROBE_PAUSE
        assert option('TCP_KEEPCNT') == PROBES
        assert option('TCP_USER_TIMEOUT') == UNACKNOWLEDGED_TIME * 1000
    # At worst something is sent right before the first probe would be.
    assert PROBE_AFTER + UNACKNOWLEDGED_TIME < TWO_MINUTES
    assert PROBE_AFTER + PROBES * PROBE_PAUSE < TWO_MINUTES
