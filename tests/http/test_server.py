"""HTTP/1.1 on the wire, and what happens when the server itself fails."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from dsmr_rest.config import ServerSettings
from dsmr_rest.http.connection import kernel_keeps_timeouts
from dsmr_rest.http.message import HEADER_SECTION_LIMIT, Request, Response
from dsmr_rest.http.server import HttpServer
from tests.conftest import (
    FROM_MEMORY,
    HOST,
    LAST_REQUEST,
    TELEGRAM,
    UNKNOWN,
    Server,
    is_problem,
    receive_all,
    split_responses,
    wait_for,
)


def test_a_connection_is_kept_open(served: Server) -> None:
    """Any number of requests can use one connection, whatever the status of their responses."""
    with closing(http.client.HTTPConnection('127.0.0.1', served.port)) as connection:
        connection.connect()
        first = connection.sock
        for path in ('/', UNKNOWN, '/telegram', '/health') * 3:
            connection.request('GET', path, headers=FROM_MEMORY)
            connection.getresponse().read()
        assert connection.sock is first


def test_pipelined_requests_get_responses_in_order(served: Server) -> None:
    """Requests sent at once, cut anywhere or following a HEAD, get their responses one after another."""
    paths = ['/telegram', '/p1MessageHeader/value', UNKNOWN, '/']
    fields = f'{HOST}Cache-Control: max-age=60\r\n'
    data = ''
    for path in paths:
        data += f'HEAD {path} HTTP/1.1\r\n{fields}\r\nGET {path} HTTP/1.1\r\n{fields}\r\n'
    data += f'GET /last HTTP/1.1\r\n{HOST}Connection: close\r\n\r\nGET / HTTP/1.1\r\n{HOST}\r\n'
    methods = 'HEAD GET ' * len(paths) + 'GET'
    at_once = split_responses(served.raw(data.encode()), methods)
    assert [response.status for response in at_once] == [
        200,
        200,
        200,
        200,
        404,
        404,
        200,
        200,
        404,
    ]
    assert at_once[1].body == TELEGRAM
    with served.connect() as connection:
        for start in range(0, len(data), 7):
            connection.sendall(data[start : start + 7].encode())
        in_pieces = split_responses(receive_all(connection), methods)
    assert [response.body for response in in_pieces] == [response.body for response in at_once]


@pytest.mark.parametrize(
    ('header_section', 'is_kept'),
    [
        (f'GET {UNKNOWN} HTTP/1.0\r\n', False),
        (f'GET {UNKNOWN} HTTP/1.0\r\nConnection: Keep-Alive\r\n', False),
        (f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}Connection: Close\r\n', False),
        (f'\r\n\r\nGET {UNKNOWN} HTTP/1.1\r\n{HOST}', True),
    ],
)
def test_who_closes_the_connection(header_section: str, served: Server, *, is_kept: bool) -> None:
    """HTTP/1.0 ends with the response; HTTP/1.1 goes on unless the client asks for the end."""
    responses = split_responses(served.raw(f'{header_section}\r\n{LAST_REQUEST}'.encode()))
    assert [response.status for response in responses] == [404] * (1 + is_kept)


def test_a_client_that_stops_sending_gets_its_response(served: Server) -> None:
    """A client that closes its sending half after the request, as nc does, gets its response."""
    with served.connect() as connection:
        connection.sendall(f'GET /telegram HTTP/1.1\r\n{HOST}\r\n'.encode())
        connection.shutdown(socket.SHUT_WR)
        (response,) = split_responses(receive_all(connection))
    assert response.body == TELEGRAM


SECOND = f'GET /telegram HTTP/1.0\r\n{HOST}\r\n'
"""What must not be taken for a request: a response to it would end the connection too."""


@pytest.mark.parametrize(
    'request_',
    [
        f'HEAD * HTTP/1.1\r\n{HOST}\r\n',
        'HEAD / HTTP/1.1\r\n\r\n',
        f'HEAD / HTTP/1.1\r\n{HOST}A\r\n\r\n',
        'HEAD /' + 'a' * 9_000,
        'HEAD / HTTP/1.1\n\n',
    ],
)
def test_no_response_to_head_has_a_body(request_: str, served: Server) -> None:
    """The response to a HEAD that is malformed has no body either (RFC 9110 9.3.2)."""
    header_section, end, body = served.raw(request_.encode()).partition(b'\r\n\r\n')
    assert header_section.startswith(b'HTTP/1.1 4')
    assert (end, body) == (b'\r\n\r\n', b'')


@pytest.mark.parametrize(
    'request_',
    ['\0', 'GET /', 'GET / HTTP/1.1', 'GÉT / HTTP/1.1', f'GET / HTTP/1.1\r\n{HOST}A: b\nC: d'],
)
def test_a_malformed_request_ends_the_connection(request_: str, served: Server) -> None:
    """A malformed request is 400 and the connection is closed: nothing after it is read."""
    response = served.only_response(f'{request_}\r\n\r\n{SECOND}')
    assert is_problem(response, 400, 'bad_request')


@pytest.mark.parametrize(
    ('request_', 'status', 'code'),
    [
        ('GET /' + 'a' * 100_000, 414, 'uri_too_long'),
        ('a' * 9_000, 414, 'uri_too_long'),
        (f'GET / HTTP/1.1\r\n{HOST}A: {"b" * 40_000}\r\n\r\n', 431, 'headers_too_large'),
        (f'GET / HTTP/1.1\r\n{HOST}' + 'A: b\r\n' * 50_000, 431, 'headers_too_large'),
    ],
    ids=range(4),
)
def test_an_endless_request_is_refused(
    request_: str, status: int, code: str, served: Server
) -> None:
    """A request over a limit gets its response although it never ends, and although the client sends more."""
    assert is_problem(served.only_response(request_), status, code)


@pytest.mark.parametrize(('excess', 'status'), [(0, 404), (1, 431)])
def test_the_limit_of_a_header_section_is_exact(excess: int, status: int, served: Server) -> None:
    """A header section of exactly the allowed length is read; one byte more is refused."""
    begin = f'GET {UNKNOWN} HTTP/1.0\r\nA: '
    value = 'b' * (HEADER_SECTION_LIMIT + excess - len(begin))
    assert served.only_response(f'{begin}{value}\r\n\r\n').status == status


@pytest.mark.parametrize(
    'framing', [f'Content-Length: {len(SECOND)}', 'Transfer-Encoding: chunked']
)
def test_a_body_is_not_a_second_request(framing: str, served: Server) -> None:
    """After the response to a request with a body the connection is closed: the body is never taken for a request."""
    assert (
        served.only_response(f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}{framing}\r\n\r\n{SECOND}').status
        == 404
    )


def test_empty_lines_between_pipelined_requests_are_skipped(served: Server) -> None:
    """An extra CRLF after a request is ignored (RFC 9112 2.2), however the bytes arrive."""
    data = f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}\r\n\r\n{LAST_REQUEST}'
    responses = split_responses(served.raw(data.encode()))
    assert [response.status for response in responses] == [404, 404]


def test_a_client_may_go_on_sending_for_a_moment(served: Server) -> None:
    """A client that still sends when its request has been refused is not reset, which could destroy its response."""
    with served.connect() as connection:
        connection.sendall(b'GET /\r\n\r\n')
        (response,) = split_responses(receive_all(connection))
        assert is_problem(response, 400, 'bad_request')
        for _ in range(20):
            connection.sendall(b'x')  # raises an error when the server has closed the connection
            time.sleep(0.01)  # the client's pace; nothing waits for it


def test_a_client_that_never_stops_sending_is_disconnected(served: Server) -> None:
    """A client that goes on sending after its last response is disconnected a moment later."""
    with served.connect() as connection:
        connection.sendall(b'GET /\r\n\r\n')
        with suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b'x')
                time.sleep(0.01)  # the client's pace; nothing waits for it
            pytest.fail('the server still receives after 10 s')


# Errors of this server


class FailingApplication:
    """An application with faults: /fails raises an error, /waits waits for `go_on`, and count() may raise an error."""

    def __init__(self, *, can_count: bool = True) -> None:
        self.go_on = threading.Event()
        self.is_waiting = threading.Event()
        self.can_count = can_count

    @property
    def header_fields(self) -> Mapping[str, str]:
        return {}

    def respond_at_once(self, request: Request) -> Response:
        return self.respond(request)

    def respond(self, request: Request) -> Response:
        if request.path == '/fails':
            raise RuntimeError('on purpose')
        if request.path == '/waits':
            self.is_waiting.set()
            self.go_on.wait(10)
        return Response(b'{}\n')

    def count(self, response: Response) -> None:
        assert response.status
        if not self.can_count:
            raise RuntimeError('cannot count')


@contextmanager
def started(application: FailingApplication, **settings: Any) -> Iterator[int]:
    """The port of a server in this process."""
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0, **settings), application)
    server.start()
    try:
        yield server.server_address[1]
    finally:
        application.go_on.set()
        server.close()


def send(port: int, data: str) -> bytes:
    """Everything that the server at a port sends in response to this text."""
    with socket.create_connection(('127.0.0.1', port), 10) as connection:
        connection.sendall(data.encode())
        return receive_all(connection)


def test_an_error_of_this_server_is_500(caplog: pytest.LogCaptureFixture) -> None:
    """An unexpected error is 500 internal_error without its text, has one log record, and keeps the connection."""
    with started(FailingApplication()) as port:
        received = send(port, f'GET /fails HTTP/1.1\r\n{HOST}\r\nGET / HTTP/1.0\r\n\r\n')
    failed, next_response = split_responses(received)
    assert is_problem(failed, 500, 'internal_error')
    assert b'on purpose' not in failed.body
    assert next_response.status == 200
    assert [record.message for record in caplog.records] == ['a request failed']
    assert 'on purpose' in caplog.text


def test_an_error_of_one_connection_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """An error outside a request ends its connection, be it one that is refused, and is logged; others are served."""
    application = FailingApplication()
    with started(application, max_connections=1) as port, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(send, port, 'GET /waits HTTP/1.0\r\n\r\n')
        assert application.is_waiting.wait(10)
        application.can_count = False
        assert send(port, LAST_REQUEST) == b''
        application.go_on.set()
        assert waiting.result() == b''
        assert [record.message for record in caplog.records] == ['a connection failed'] * 2
        application.can_count = True
        wait_for(lambda: b' 200 ' in send(port, LAST_REQUEST))


def test_a_server_that_did_not_start_can_be_closed() -> None:
    """close() releases the address of a server that never accepted a client."""
    settings = ServerSettings(host='127.0.0.1', port=0)
    server = HttpServer(settings, FailingApplication())
    port = server.server_address[1]
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(('127.0.0.1', port), 5)


def test_the_timeouts_are_tried_while_the_start_goes_on() -> None:
    """Whether the kernel keeps the timeouts of sockets is not known when a server is made, but without any client."""
    kernel_keeps_timeouts.cache_clear()
    server = HttpServer(ServerSettings(host='127.0.0.1', port=0), FailingApplication())
    try:
        assert kernel_keeps_timeouts.cache_info().currsize == 0
        server.start()
        wait_for(lambda: kernel_keeps_timeouts.cache_info().currsize == 1)
    finally:
        server.close()


def test_a_client_that_stops_sending_gets_whole_responses(served: Server) -> None:
    """To each of its requests, although the beginning of a response was sent to see whether it is there."""
    with served.connect() as client:
        client.sendall(f'GET / HTTP/1.1\r\n{HOST}\r\n'.encode() * 2)
        client.shutdown(socket.SHUT_WR)
        responses = split_responses(receive_all(client))
    assert [response.status for response in responses] == [200, 200]


def test_a_client_that_stops_sending_gets_a_stream_of_events(served: Server) -> None:
    """Between two events nothing is sent to see whether it is there."""
    with served.connect() as client:
        client.sendall(f'GET /stream HTTP/1.1\r\n{HOST}\r\n'.encode())
        client.shutdown(socket.SHUT_WR)
        received = b''
        while received.count(b'data: ') < 4:
            data = client.recv(65536)
            assert data
            received += data
    assert received.count(b'HTTP/1.1') == 1
