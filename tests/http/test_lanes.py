"""What a connection holds is given back however it ends, and nothing is tried without a pause."""

import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from dsmr_rest.config import ServerSettings
from dsmr_rest.http.listener import FAILURE_PAUSE
from dsmr_rest.http.message import Request, Response
from dsmr_rest.http.server import HttpServer
from dsmr_rest.process import threads
from dsmr_rest.process.threads import NoThreadError
from dsmr_rest.process.trouble import Trouble
from tests.conftest import LAST_REQUEST, receive_all, receive_refusal, split_responses, wait_for

PATIENCE = 20.0


class OneWaits:
    """An application whose response to /waits comes when `go_on` is set."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.is_waiting = threading.Event()

    @property
    def header_fields(self) -> Mapping[str, str]:
        return {}

    def respond(self, request: Request) -> Response:
        if request.path == '/waits':
            self.is_waiting.set()
            self.go_on.wait(PATIENCE)
        return Response(b'{}\n')

    def respond_at_once(self, _request: Request) -> Response:
        return Response(b'at once\n')

    def count(self, response: Response) -> None:
        pass


@contextmanager
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    """A server whose only place is taken, so that others are refused, by one thread at a time."""
    monkeypatch.setattr('dsmr_rest.http.server.MOST_REFUSALS', 1)
    application = OneWaits()
    settings = ServerSettings(host='127.0.0.1', port=0, max_connections=1)
    server = HttpServer(settings, application)
    server.start()
    try:
        with connected(server) as client:
            client.sendall(b'GET /waits HTTP/1.0\r\n\r\n')
            assert application.is_waiting.wait(PATIENCE)
            yield server
    finally:
        application.go_on.set()
        server.close()


def connected(server: HttpServer) -> socket.socket:
    return socket.create_connection(('127.0.0.1', server.port), PATIENCE)


def body_of_refusal(server: HttpServer) -> bytes:
    """What a client gets for which there is no place: 'at once' by a thread of its own."""
    with connected(server) as client:
        client.sendall(LAST_REQUEST.encode())
        (response,) = split_responses(receive_refusal(client))
    return response.body


def test_places_for_refusals_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One refused client after another gets a thread, although only one at a time can have it."""
    with full(monkeypatch) as server:
        for _ in range(3):
            wait_for(lambda: body_of_refusal(server) == b'at once\n', PATIENCE)


@pytest.mark.parametrize('error', [NoThreadError('on purpose'), MemoryError('on purpose')])
def test_a_refusal_without_a_thread_gives_its_place_back(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place of a refused client for which no thread can be started is free for the next one."""

    def fail(_: threading.Thread) -> None:
        raise error

    with full(monkeypatch) as server:
        with monkeypatch.context() as failing:
            failing.setattr(threads, 'start', fail)
            with connected(server) as client:
                client.sendall(LAST_REQUEST.encode())
                assert b'at once' not in receive_refusal(client)
        wait_for(lambda: body_of_refusal(server) == b'at once\n', PATIENCE)


def test_a_client_without_a_thread_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of a client for which no thread can be started is free for the next one, who gets it."""

    def fail(_: threading.Thread) -> None:
        raise NoThreadError('on purpose')

    settings = ServerSettings(host='127.0.0.1', port=0, max_connections=1)
    server = HttpServer(settings, OneWaits())
    server.start()
    try:
        with monkeypatch.context() as failing:
            failing.setattr(threads, 'start', fail)
            for _ in range(3):
                assert b'server_exhausted' in body_of_refusal(server)
        assert body_of_refusal(server) == b'{}\n'
    finally:
        server.close()


def no_thread(_: threading.Thread) -> None:
    raise NoThreadError('on purpose')


@pytest.mark.parametrize(
    ('what', 'value', 'lines'),
    [
        ('dsmr_rest.process.threads.start', no_thread, ('no thread can be', 'threads can be')),
        (
            'dsmr_rest.http.listener.RESERVED_FILES',
            10**9,
            ('no file descriptor is left', 'there are file descriptors'),
        ),
    ],
)
def test_a_shortage_is_in_the_log_until_it_is_over(
    what: str,
    value: object,
    lines: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log has a line when clients begin to be refused, and one when the next is served."""
    monkeypatch.setattr('dsmr_rest.http.listener.Trouble', partial(Trouble, calm=0.0))
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), OneWaits())
    server.start()
    try:
        with monkeypatch.context() as failing:
            failing.setattr(what, value)
            for _ in range(2):
                assert b'server_exhausted' in body_of_refusal(server)
        assert body_of_refusal(server) == b'{}\n'
        wait_for(lambda: len(caplog.messages) > 1, PATIENCE)
    finally:
        server.close()
    begins, ends = caplog.messages
    assert begins.startswith(lines[0])
    assert ends.startswith(lines[1])


def test_a_shortage_is_not_told_to_clients_of_tls(
    certificate: Mapping[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who would have to shake hands first is disconnected: the accepting thread waits for nobody."""
    settings = ServerSettings(
        host='127.0.0.1',
        port=0,
        certificate=str(certificate['certificate']),
        private_key=str(certificate['private_key']),
    )
    server = HttpServer(settings, OneWaits())
    server.start()
    try:
        monkeypatch.setattr(threads, 'start', no_thread)
        with connected(server) as client:
            assert receive_all(client) == b''
    finally:
        server.close()
    (line,) = caplog.messages
    assert line.startswith('no thread can be started')


def check_it_makes_room(
    request: bytes, status_line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has the only place, and keeps its connection after this exchange, makes room for the next one."""
    monkeypatch.setattr('dsmr_rest.http.server.SPARE_TIME', 0.0)
    settings = ServerSettings(host='127.0.0.1', port=0, max_connections=1)
    server = HttpServer(settings, OneWaits())
    server.start()
    try:
        with connected(server) as client:
            client.sendall(request)
            assert client.recv(len(status_line)) == status_line
            wait_for(lambda: body_of_refusal(server) == b'{}\n', PATIENCE)
    finally:
        server.close()


def test_a_client_that_lingers_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps its connection after its last response has a place that another client can take over."""
    monkeypatch.setattr('dsmr_rest.http.server.LINGER_TIME', 2 * PATIENCE)
    check_it_makes_room(b'no request\r\n\r\n', b'HTTP/1.1 400', monkeypatch)


def test_a_client_that_was_served_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps its connection for another request has a place that another client can take over."""
    monkeypatch.setattr('dsmr_rest.http.server.RequestHandler.idle_time', 3 * PATIENCE)
    request = b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'
    check_it_makes_room(request, b'HTTP/1.1 200', monkeypatch)


def test_a_client_that_waits_for_its_response_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long that takes: it is not the one who is silent, and whoever comes later is refused."""
    monkeypatch.setattr('dsmr_rest.http.server.SPARE_TIME', 0.0)
    with full(monkeypatch) as server:
        for _ in range(3):
            wait_for(lambda: body_of_refusal(server) == b'at once\n', PATIENCE)
        assert len(server.places.connections()) == 1


def test_the_last_responses_go_out_when_the_server_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is being served then gets its response, and is not disconnected before it."""
    monkeypatch.setattr('dsmr_rest.http.server.STOP_TIME', PATIENCE)
    application = OneWaits()
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), application)
    server.start()
    closing = threading.Thread(target=server.close)
    try:
        with connected(server) as client:
            client.sendall(b'GET /waits HTTP/1.1\r\nHost: localhost\r\n\r\n')
            assert application.is_waiting.wait(PATIENCE)
            closing.start()
            closing.join(0.5)  # if it did not wait, it would have ended long since
            assert closing.is_alive()
            application.go_on.set()
            (response,) = split_responses(receive_all(client))
    finally:
        application.go_on.set()
        closing.join()
    assert response.status == 200
    assert response.headers['Connection'] == 'close'


def test_closing_the_server_disconnects_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that keeps its connection for another request does not keep it beyond the end of the server."""
    monkeypatch.setattr('dsmr_rest.http.server.RequestHandler.idle_time', 3 * PATIENCE)
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), OneWaits())
    server.start()
    with connected(server) as client:
        client.settimeout(PATIENCE)
        client.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
        received = client.recv(12)
        server.close()
        assert (received + receive_all(client)).startswith(b'HTTP/1.1 200')


def test_a_client_without_a_place_gets_one_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns that its connection is not kept, although it would keep it."""
    with full(monkeypatch) as server, connected(server) as client:
        client.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
        (response,) = split_responses(receive_all(client))
    assert response.body == b'at once\n'
    assert response.headers['Connection'] == 'close'


def test_a_refusal_outlives_what_its_client_has_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived before a client is refused is discarded: unread, it would make the end a reset."""
    monkeypatch.setattr('dsmr_rest.http.server.MOST_REFUSALS', 0)
    monkeypatch.setattr('dsmr_rest.http.server.SPARE_TIME', PATIENCE)
    settings = ServerSettings(host='127.0.0.1', port=0, max_connections=1)
    server = HttpServer(settings, OneWaits())
    try:
        with connected(server), connected(server) as refused:
            refused.sendall(LAST_REQUEST.encode())
            server.start()
            assert b'too_many_connections' in receive_all(refused)
    finally:
        server.close()


class Events:
    """One event, which is the last."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b'data: 1\n\n'])

    def close(self) -> None:
        pass


class OneEvent(OneWaits):
    """An application whose responses have an event after them."""

    def respond(self, _request: Request) -> Response:
        return Response(b'', 'text/event-stream', events=Events())


def test_events_end_with_their_connection() -> None:
    """Nothing else tells a client where they end."""
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), OneEvent())
    server.start()
    try:
        with connected(server) as client:
            client.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
            received = receive_all(client)
    finally:
        server.close()
    assert b'\r\nConnection: close\r\n' in received
    assert received.endswith(b'data: 1\n\n')


def nothing() -> None:
    """For whoever asks again by itself."""


class Probing(OneWaits):
    """An application that asks again and again whether the client is there, and some times after `go_on`."""

    def respond(self, request: Request) -> Response:
        while not self.go_on.wait(0.01):
            assert request.is_wanted(nothing)
        for _ in range(3):
            assert request.is_wanted(nothing)
        return Response(b'{}\n')


def test_a_client_that_stops_sending_is_sent_the_beginning_once() -> None:
    """However often it is asked whether it is there, each of its responses is whole."""
    application = Probing()
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), application)
    server.start()
    try:
        with connected(server) as client:
            client.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' * 2)
            client.shutdown(socket.SHUT_WR)
            received = client.recv(1)
            application.go_on.set()
            responses = split_responses(received + receive_all(client))
    finally:
        application.go_on.set()
        server.close()
    assert [response.body for response in responses] == [b'{}\n'] * 2


def test_a_silent_client_makes_room_when_descriptors_are_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever comes then is served, and the client that has been silent for longest is disconnected."""
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), OneWaits())
    server.start()
    try:
        with connected(server) as silent:
            wait_for(server.places.connections, PATIENCE)
            monkeypatch.setattr('dsmr_rest.http.server.SPARE_TIME', 0.0)
            monkeypatch.setattr('dsmr_rest.http.listener.RESERVED_FILES', 10**9)
            assert body_of_refusal(server) == b'{}\n'
            assert silent.recv(1) == b''
    finally:
        server.close()


def unread(connection: socket.socket) -> int:
    """How many bytes have arrived that nobody has received."""
    count = fcntl.ioctl(connection, termios.FIONREAD, struct.pack('i', 0))
    return int(struct.unpack('i', count)[0])


def test_empty_lines_are_counted_together() -> None:
    """Empty lines that arrive one after another are as many as those that arrive at once: a few, and then 400."""
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), OneWaits())
    server.start()
    try:
        with connected(server) as client:
            (accepted,) = wait_for(server.places.connections, PATIENCE)
            for _ in range(8):
                client.sendall(b'\r\n')
                wait_for(lambda: unread(accepted) == 0, PATIENCE)
            client.sendall(b'\r\n')
            assert receive_all(client).startswith(b'HTTP/1.1 400 ')
    finally:
        server.close()


def test_accepting_that_fails_is_tried_again_after_a_pause() -> None:
    """A client that cannot be accepted does not keep the processor busy: the next attempt comes after a pause."""
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), OneWaits())
    server.server_close()
    began = time.monotonic()
    with pytest.raises(OSError, match='descriptor'):
        server.get_request()
    assert time.monotonic() - began >= FAILURE_PAUSE


class Watching(OneWaits):
    """An application that has its client watched until `go_on` is set or the client may have left."""

    def __init__(self) -> None:
        super().__init__()
        self.has_news = threading.Event()

    def respond(self, request: Request) -> Response:
        assert request.is_wanted(self.has_news.set)
        self.is_waiting.set()
        wait_for(lambda: self.go_on.is_set() or self.has_news.is_set())
        return Response(b'{}\n')


def test_a_client_is_watched_on_a_descriptor_that_another_had() -> None:
    """A client that was watched, and left after its response, does not hide the one that comes after it."""
    application = Watching()
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), application)
    server.start()
    descriptors_before: set[int] = set()
    has_one_of_them = False
    try:
        while not has_one_of_them:
            application.is_waiting.clear()
            with connected(server) as client:
                client.sendall(LAST_REQUEST.encode())
                assert application.is_waiting.wait(PATIENCE)
                (connection,) = server.places.connections()
                descriptor = connection.fileno()
                has_one_of_them = descriptor in descriptors_before
                descriptors_before.add(descriptor)
                assert not application.has_news.is_set()
                if not has_one_of_them:
                    application.go_on.set()
                    assert receive_all(client)
            wait_for(lambda connection=connection: connection.fileno() < 0)  # type: ignore[misc]
            application.go_on.clear()
        assert application.has_news.is_set()
    finally:
        application.go_on.set()
        server.close()
