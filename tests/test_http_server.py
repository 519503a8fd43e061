"""The HTTP contract, from outside: real servers, real sockets, rude clients."""

import fcntl
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import (
    ROOT,
    THREADS_AT_REST,
    Reply,
    Server,
    StartServer,
    hush,
    new_meter,
    threads,
    wait_for,
    wait_together,
)
from faulty_meter import FaultyMeter

from dsmr_rest.http_message import HEADER_SECTION_LIMIT
from dsmr_rest.simulated_meter import telegram

TELEGRAM = telegram('5.0', datetime(2024, 6, 21, 12, tzinfo=timezone.utc))
FROM_MEMORY = {'Cache-Control': 'max-age=3600'}
HOST = 'Host: localhost\r\n'
UNKNOWN = '/nothing'
"""A path that needs no reading."""


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that many tests ask: its meter sends TELEGRAM ten times a second."""
    with new_meter(interval=0.1, source=lambda: TELEGRAM) as meter:
        settings = {'hosts': 'meter.example.org, p1.example.org'}
        server = Server(tmp_path_factory.mktemp('served'), meter={'port': meter.port}, server=settings)
        try:
            yield server
        finally:
            status = server.stop()
    assert (status, server.log) == (0, '')


@pytest.fixture(scope='module')
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a user and a password, and may be read from one origin."""
    settings = {'user': 'José', 'password': 'pass:wörd', 'cors_origin': 'https://example.org'}
    folder = tmp_path_factory.mktemp('locked')
    server = Server(folder, meter={'port': '/dev/serial/none'}, server=settings)
    yield server
    assert server.stop() == 0
    assert 'Traceback' not in server.log


def replies(data: bytes, *, methods: str = '') -> list[Reply]:
    """The answers in what a connection gave; `methods` are those of the requests, GET when not given."""
    found: list[Reply] = []
    while data:
        head, end, data = data.partition(b'\r\n\r\n')
        assert end, 'no end of a head'
        status, *lines = head.decode('latin-1').split('\r\n')
        headers = {name.title(): value for name, value in (line.split(': ', 1) for line in lines)}
        bodiless = methods.split()[len(found) : len(found) + 1] == ['HEAD']
        length = 0 if bodiless else int(headers.get('Content-Length', 0))
        assert len(data) >= length
        found.append(Reply(int(status.split()[1]), headers, data[:length]))
        data = data[length:]
    return found


def asked(server: Server, request: str | bytes) -> Reply:
    """The only answer to a request as it is given, after which the server closes."""
    reply, *more = replies(server.raw(request.encode('latin-1') if isinstance(request, str) else request, 15))
    assert not more
    return reply


def connect(server: Server) -> socket.socket:
    return socket.create_connection(('127.0.0.1', server.port), 20)


def is_problem(reply: Reply, status: int, code: str) -> bool:
    """Whether an answer is that problem detail, whole (RFC 9457)."""
    assert reply.headers['Content-Type'] == 'application/problem+json'
    assert {'title', 'status', 'detail', 'code'} <= reply.json.keys()
    assert reply.json['status'] == reply.status
    return (reply.status, reply.json['code']) == (status, code)


def pointers(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Every JSON Pointer into a document, with what is there."""
    if path:
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from pointers(item, f'{path}/{key}')


# What is served


def test_the_reading_is_indented_json(served: Server) -> None:
    """GET / is the whole document, indented by three, with a final newline and how fresh it is."""
    before = time.time()
    reply = served.get('/')
    assert reply.status == 200
    assert reply.headers['Content-Type'] == 'application/json'
    assert reply.body.decode() == json.dumps(reply.json, indent=3) + '\n'
    assert reply.json['p1MessageTimestamp']['value'] == '2024-06-21T14:00:00+02:00'
    assert reply.headers['Age'] == '0'
    assert reply.headers['Cache-Control'] == 'no-cache'
    assert int(before) <= parsedate_to_datetime(reply.headers['Last-Modified']).timestamp() <= time.time()


def test_the_telegram_is_as_it_came(served: Server) -> None:
    """GET /telegram is each byte of the telegram, CRLF and checksum, as plain text."""
    reply = served.get('/telegram')
    assert (reply.status, reply.body) == (200, TELEGRAM)
    assert reply.headers['Content-Type'].startswith('text/plain')
    assert {'Age', 'Last-Modified', 'Cache-Control'} <= reply.headers.keys()


def test_every_value_is_at_its_pointer(served: Server) -> None:
    """A path is a JSON Pointer to each object, number, text, null and list of the reading."""
    document = served.get('/', FROM_MEMORY).json
    connection = http.client.HTTPConnection('127.0.0.1', served.port)
    everything = list(pointers(document))
    assert len(everything) > 100
    for path, value in everything:
        connection.request('GET', path, headers=FROM_MEMORY)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, value), path
    connection.close()


@pytest.mark.parametrize(
    ('path', 'same'),
    [
        ('/%63urrentElectricity%55sage', '/currentElectricityUsage'),
        ('/powerEventFailureLog/buffer/%30/value', '/powerEventFailureLog/buffer/0/value'),
        ('/currentElectricityUsage?a=b/c', '/currentElectricityUsage'),
        ('http://localhost/currentElectricityUsage', '/currentElectricityUsage'),
        ('HTTP://localhost?x=1', '/'),
        ('/%74elegram', '/telegram'),
        ('HTTP://192.168.1.1:80/telegram?', '/telegram'),
    ],
)
def test_another_way_to_write_a_path(path: str, same: str, served: Server) -> None:
    """Percent-encoding, a query and the absolute form change nothing."""
    assert served.get(path, FROM_MEMORY).body == served.get(same, FROM_MEMORY).body


@pytest.mark.parametrize(
    'path',
    [
        '/currentElectricityUsage/', '/currentElectricityUsage/values', '/currentElectricityUsage/value/0',
        '/currentElectricityUsage~1value', '/currentElectricityUsage~0', '/p1MessageHeader/value/__class__',
        '/powerEventFailureLog/buffer/-', '/powerEventFailureLog/buffer/-1', '/powerEventFailureLog/buffer/00',
        '/powerEventFailureLog/buffer/2', '/powerEventFailureLog/buffer/0x', '/powerEventFailureLog/buffer/+0',
        '/powerEventFailureLog/buffer/%C2%B2', '/powerEventFailureLog/buffer/99999999999999999999',
    ],
)  # fmt: skip
def test_a_pointer_to_nothing_is_404(path: str, served: Server) -> None:
    """Below a key that is there, what is not there is not_found."""
    assert is_problem(served.get(path, FROM_MEMORY), 404, 'not_found')


def test_an_unknown_path_is_404_without_the_meter(start_server: StartServer) -> None:
    """No first key but one a specification can have makes the server read; none reaches a file."""
    server = start_server('/dev/serial/none')
    for path in (
        UNKNOWN, '//', '/./', '/../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '/..%2fconfig.ini', '/config.ini', '/%00',
        '/telegram%00', '/currentElectricityUsage%00', '/%', '/%zz', '/%ff', '/~', '/~2', '/Telegram', '/telegram/',
        '/health/x', '/dsmr_rest/dashboard.html', '/__class__', '/0', '/-',
    ):  # fmt: skip
        reply = asked(server, f'GET {path} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n')
        assert is_problem(reply, 404, 'not_found'), path
    counters = server.get('/health').json['counters']
    assert counters['errorsByCode'] == {'port_missing': 1}, 'only /health asked the meter'


def test_health_says_what_happened(served: Server) -> None:
    """GET /health is 200 with the code ok, the age of the last reading, and what was counted."""
    served.get('/telegram')
    before = served.get('/health').json
    served.get('/telegram')
    reply = served.get('/health')
    after = reply.json
    assert (reply.status, after['status'], after['code']) == (200, 'ok', 'ok')
    assert 0 <= after['ageOfLastReading'] < 60
    assert after['version']
    for counter in 'telegrams', 'portOpenings':
        assert after['counters'][counter] == before['counters'][counter] + 1
    requests = [each['counters']['requestsByStatus']['200'] for each in (before, after)]
    assert requests[1] == requests[0] + 2


@pytest.mark.parametrize('path', ['/', '/telegram', '/health', '/currentElectricityUsage/value', UNKNOWN])
def test_head_is_get_without_the_body(path: str, served: Server) -> None:
    """HEAD has the status and header fields of GET, also the length, and no body."""
    get, head = (served.get(path, FROM_MEMORY, method=method) for method in ('GET', 'HEAD'))
    assert head.body == b''
    assert (head.status, head.headers.keys()) == (get.status, get.headers.keys())
    moving = {'Date', 'Age'} | ({'Content-Length'} if path == '/health' else set())
    assert {k: v for k, v in head.headers.items() if k not in moving} == {
        k: v for k, v in get.headers.items() if k not in moving
    }
    assert int(get.headers['Content-Length']) == len(get.body)


@pytest.mark.parametrize('target', ['/', UNKNOWN, '*'])
def test_options_says_what_is_allowed(target: str, served: Server) -> None:
    """OPTIONS is 204 with Allow and, as a 204 must, without a length."""
    reply = asked(served, f'OPTIONS {target} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n')
    assert (reply.status, reply.headers['Allow']) == (204, 'GET, HEAD, OPTIONS')
    assert 'Content-Length' not in reply.headers


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'PATCH', 'TRACE', 'CONNECT', 'get', 'BREW'])
@pytest.mark.parametrize('path', ['/', UNKNOWN])
def test_nothing_but_reading_is_allowed(method: str, path: str, served: Server) -> None:
    """Another method is 405 with Allow, on every path."""
    reply = asked(served, f'{method} {path} HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nabcd')
    assert is_problem(reply, 405, 'method_not_allowed')
    assert reply.headers['Allow'] == 'GET, HEAD, OPTIONS'


# How fresh


def test_a_client_says_how_old_a_reading_may_be(start_server: StartServer, meter: FaultyMeter) -> None:
    """max-age in a request accepts a reading from memory; no-cache, max-age=0 and silence do not."""
    server = start_server(meter.port)
    first = server.get('/')
    for control in 'max-age=60', 'MAX-AGE = 60'.replace(' ', ''), 'no-transform, max-age="60"':
        reply = server.get('/', {'Cache-Control': control})
        assert (reply.body, reply.headers['Last-Modified']) == (first.body, first.headers['Last-Modified'])
    assert server.openings == 1
    for number, control in enumerate(
        ('no-cache', 'max-age=0', 'no-cache, max-age=60', 'only-if-cached', 'x-max-age=60', 'private="max-age=60"'), 2
    ):
        server.get('/', {'Cache-Control': control})
        assert server.openings == number


def test_max_age_of_the_configuration(start_server: StartServer, meter: FaultyMeter) -> None:
    """[meter] max_age holds for a request that does not say otherwise; Age counts in whole seconds."""
    server = start_server(meter.port, meter={'max_age': 60})
    first = server.get('/')
    wait_for(lambda: server.get('/').headers['Age'] == '1')
    assert server.get('/').body == first.body
    assert server.openings == 1
    assert server.get('/', {'Cache-Control': 'no-cache'}).headers['Age'] == '0'
    assert server.openings == 2


def test_64_clients_at_once_share_a_telegram(start_server: StartServer) -> None:
    """As many clients as are allowed get the same 200 from one opening of the port."""
    with new_meter(interval=2) as meter, ThreadPoolExecutor(64) as pool:
        hush(meter)
        server = start_server(meter.port, server={'max_connections': 65})  # one to ask how many are waiting
        asked = wait_together(server, pool, 64, '/telegram')
        meter.silent = False
        answers = [each.result() for each in asked]
        assert {each.status for each in answers} == {200}
        assert len({each.body for each in answers}) == 1
        assert {each.headers['Age'] for each in answers} == {'0'}
        assert server.openings == 1


# What goes wrong with the meter


def test_a_missing_port_is_503_at_once(start_server: StartServer) -> None:
    """Without the port every answer that needs it is 503 port_missing with Retry-After, long before the timeout."""
    server = start_server('/dev/serial/none', meter={'timeout': 3600})
    for path in '/', '/telegram', '/health', '/currentElectricityUsage/value':
        reply = server.get(path, timeout=5)
        assert (reply.status, reply.json['code']) == (503, 'port_missing')
        assert int(reply.headers['Retry-After']) > 0
        assert '/dev/serial/none' in reply.json['detail']
        assert path == '/health' or is_problem(reply, 503, 'port_missing')


def test_a_busy_port_is_503_until_it_is_free(start_server: StartServer, meter: FaultyMeter) -> None:
    """While another program has the port: 503 port_busy; then readings."""
    server = start_server(meter.port, meter={'timeout': 3600})
    with Path(meter.port).open('rb', buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        reply = server.get('/', timeout=5)
        assert is_problem(reply, 503, 'port_busy')
        assert int(reply.headers['Retry-After']) > 0
    assert server.get('/').status == 200


@pytest.mark.parametrize(('timeout', 'prefer'), [(0.5, ''), (3600, 'respond-async, WAIT=1; x=y'), (0.5, 'wait=3600')])
def test_a_silent_meter_is_504_when_the_wait_is_over(timeout: float, prefer: str, start_server: StartServer) -> None:
    """The wait ends with the timeout or, with Prefer: wait, before it, and never behind it."""
    with new_meter(source=lambda: b'') as meter:
        server = start_server(meter.port, meter={'timeout': timeout})
        reply = server.get('/', {'Prefer': prefer}, timeout=10)
    assert is_problem(reply, 504, 'meter_silent')


# HTTP/1.1 on the wire


def test_streams_leave_room_however_many_come_at_once(start_server: StartServer, meter: FaultyMeter) -> None:
    """Of streams that are asked for together no more are opened than max_streams, and HEAD takes no place."""
    server = start_server(meter.port, server={'max_streams': 4})
    for _ in range(6):
        assert server.get('/stream', method='HEAD').status == 200
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(30)]
        for each in clients:
            each.sendall(f'GET /stream HTTP/1.1\r\n{HOST}\r\n'.encode())
        statuses = [each.recv(12)[-3:] for each in clients]
        assert 1 <= statuses.count(b'200') <= 4
        assert statuses.count(b'503') == 30 - statuses.count(b'200')
        assert server.get('/').status == 200


def test_a_connection_is_kept(served: Server) -> None:
    """Any number of requests come over one connection, whatever their answers are."""
    connection = http.client.HTTPConnection('127.0.0.1', served.port)
    connection.connect()
    first = connection.sock
    for path in ('/', UNKNOWN, '/telegram', '/health') * 3:
        connection.request('GET', path, headers=FROM_MEMORY)
        connection.getresponse().read()
    assert connection.sock is first
    connection.close()


def test_pipelined_requests_are_answered_in_order(served: Server) -> None:
    """Requests sent at once, also cut anywhere and behind a HEAD, are answered one after another."""
    paths = ['/telegram', '/p1MessageHeader/value', UNKNOWN, '/']
    fields = f'{HOST}Cache-Control: max-age=60\r\n'
    data = ''.join(f'HEAD {path} HTTP/1.1\r\n{fields}\r\nGET {path} HTTP/1.1\r\n{fields}\r\n' for path in paths)
    data += f'GET /{"last"} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\nGET / HTTP/1.1\r\n{HOST}\r\n'
    whole = replies(served.raw(data.encode()), methods='HEAD GET ' * len(paths) + 'GET')
    assert [each.status for each in whole] == [200, 200, 200, 200, 404, 404, 200, 200, 404]
    assert whole[1].body == TELEGRAM
    with connect(served) as connection:
        received = b''
        for start in range(0, len(data), 7):
            connection.sendall(data[start : start + 7].encode())
        while chunk := connection.recv(65536):
            received += chunk
    cut = replies(received, methods='HEAD GET ' * len(paths) + 'GET')
    assert [each.body for each in cut] == [each.body for each in whole]


@pytest.mark.parametrize(
    ('head', 'kept'),
    [
        (f'GET {UNKNOWN} HTTP/1.0\r\n', False),
        (f'GET {UNKNOWN} HTTP/1.0\r\n{HOST}', False),
        (f'GET {UNKNOWN} HTTP/1.0\r\nConnection: Keep-Alive\r\n', False),
        (f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}Connection: Close\r\n', False),
        (f'\r\n\r\nGET {UNKNOWN} HTTP/1.1\r\n{HOST}', True),
    ],
)
def test_who_closes_the_connection(head: str, served: Server, *, kept: bool) -> None:
    """HTTP/1.0 ends with the answer, HTTP/1.1 goes on unless it says otherwise."""
    last = f'GET {UNKNOWN} HTTP/1.0\r\n\r\n'
    assert [each.status for each in replies(served.raw(f'{head}\r\n{last}'.encode()))] == [404] * (1 + kept)


def test_a_client_that_has_nothing_more_to_say_is_answered(served: Server) -> None:
    """A client that closes its sending half behind the request, as nc does, gets its answer."""
    with connect(served) as connection:
        connection.sendall(f'GET /telegram HTTP/1.1\r\n{HOST}\r\n'.encode())
        connection.shutdown(socket.SHUT_WR)
        received = b''
        while chunk := connection.recv(65536):
            received += chunk
    assert [each.body for each in replies(received)] == [TELEGRAM]


SECOND = f'GET /telegram HTTP/1.0\r\n{HOST}\r\n'
"""What must not be taken for a request: an answer to it would end the connection too."""


@pytest.mark.parametrize(
    'request_',
    [
        '\0', 'GET', 'GET /', 'GET / HTTP/1.1 x', 'GET  / HTTP/1.1', ' GET / HTTP/1.1', 'GET / HTTP/2.0',
        'GET / HTTP/1.10', 'GET / http/1.1', 'GET / FTP/1.1', 'GET\t/\tHTTP/1.1', 'G@T / HTTP/1.1', 'GÉT / HTTP/1.1',
        'GET / x HTTP/1.1', 'GET /\nX: y HTTP/1.1', 'GET / HTTP/1.1',
        f'GET / HTTP/1.1\r\n{HOST}{HOST[:-2]}', 'GET / HTTP/1.1\r\nHost: a\r\nhOST: a',
        f'GET / HTTP/1.1\r\n{HOST}no colon', f'GET / HTTP/1.1\r\n{HOST}: x', f'GET / HTTP/1.1\r\n{HOST}A : x',
        f'GET / HTTP/1.1\r\n{HOST} folded', f'GET / HTTP/1.1\r\n{HOST}A: b\r\n\tfolded', 'GET / HTTP/1.1\r\nHost : a',
        f'GET / HTTP/1.1\r\n{HOST}A: \0', f'GET / HTTP/1.1\r\n{HOST}A: b\nC: d', f'GET / HTTP/1.1\r\n{HOST}A: b\rC: d',
        f'GET / HTTP/1.1\r\n{HOST}Content-Length: -1', f'GET / HTTP/1.1\r\n{HOST}Content-Length: +1',
        f'GET / HTTP/1.1\r\n{HOST}Content-Length: 1, 1', f'GET / HTTP/1.1\r\n{HOST}Content-Length: 0x1',
        f'GET / HTTP/1.1\r\n{HOST}Content-Length:', f'GET / HTTP/1.1\r\n{HOST}Content-Length: ²',
        f'GET / HTTP/1.1\r\n{HOST}Content-Length: 0\r\nContent-Length: 0',
        f'GET / HTTP/1.1\r\n{HOST}Authorization: Basic a\r\nAuthorization: Basic b',
        f'GET * HTTP/1.1\r\n{HOST[:-2]}',
        f'GET telegram HTTP/1.1\r\n{HOST[:-2]}',
        f'GET ?x HTTP/1.1\r\n{HOST[:-2]}',
        f'GET /\x1b[2J HTTP/1.1\r\n{HOST[:-2]}',
        f'GET /\x7f HTTP/1.1\r\n{HOST[:-2]}',
        f'GET /é HTTP/1.1\r\n{HOST[:-2]}',
        'GET http://localhost/nothing HTTP/1.1',
        'GET http://localhost/nothing HTTP/1.1\r\nHost: [bad',
        f'GET http:///nothing HTTP/1.1\r\n{HOST[:-2]}',
        'GET /nothing HTTP/1.1\r\nHost: [::1',
        'GET /nothing HTTP/1.1\r\nHost: [',
        'GET /nothing HTTP/1.1\r\nHost: []evil.example',
        'GET /nothing HTTP/1.1\r\nHost: :1.evil.example',
        'GET /nothing HTTP/1.1\r\nHost: a:b.evil.example',
    ],
)  # fmt: skip
def test_a_malformed_request_is_400(request_: str, served: Server) -> None:
    """What is no request (RFC 9112) is answered with 400 and the connection closed: nothing behind it is read."""
    reply = asked(served, f'{request_}\r\n\r\n{SECOND}')
    assert is_problem(reply, 400, 'bad_request')


@pytest.mark.parametrize(
    ('request_', 'status', 'code'),
    [
        (f'GET /{"a" * 4_200} HTTP/1.1\r\n{HOST}\r\n', 414, 'uri_too_long'),
        ('GET /' + 'a' * 100_000, 414, 'uri_too_long'),
        ('a' * 5_000, 414, 'uri_too_long'),
        (f'GET / HTTP/1.1\r\n{HOST}A: {"b" * 40_000}\r\n\r\n', 431, 'headers_too_large'),
        (f'GET / HTTP/1.1\r\n{HOST}' + 'A: b\r\n' * 101 + '\r\n', 431, 'headers_too_large'),
        (f'GET / HTTP/1.1\r\n{HOST}' + 'A: b\r\n' * 50_000, 431, 'headers_too_large'),
    ],
    ids=range(6),
)
def test_what_is_too_long_is_told(request_: str, status: int, code: str, served: Server) -> None:
    """A request line or a head over its limit gets its answer though it never ends, and though more is sent."""
    assert is_problem(asked(served, request_), status, code)


def test_the_limits_are_above_what_clients_send(served: Server) -> None:
    """A request line of 4,000 bytes and 90 header fields of 8 kB together are no problem."""
    many = ''.join(f'X-Field-{number}: {"x" * 80}\r\n' for number in range(90))
    assert asked(served, f'GET {UNKNOWN}?{"a" * 3_900} HTTP/1.0\r\n{many}\r\n').status == 404


@pytest.mark.parametrize(('beyond', 'status'), [(0, 404), (1, 431)])
def test_the_limit_of_the_head_is_exact(beyond: int, status: int, served: Server) -> None:
    """A head as long as is allowed is read, one byte more is told."""
    head = f'GET {UNKNOWN} HTTP/1.0\r\nA: '
    assert asked(served, head + 'b' * (HEADER_SECTION_LIMIT + beyond - len(head)) + '\r\n\r\n').status == status


@pytest.mark.parametrize(
    'framing',
    [
        f'Content-Length: {len(SECOND)}',
        'Content-Length: 100000000000000000000',
        'Transfer-Encoding: chunked',
        'Transfer-Encoding: identity',
        f'Content-Length: {len(SECOND)}\r\nTransfer-Encoding: chunked',
        f'Expect: 100-continue\r\nContent-Length: {len(SECOND)}',
        f'Content-Length: 0000000000{len(SECOND)}',
        'Content-Length: ' + '9' * 5_000,
    ],
)
def test_a_body_is_no_second_request(framing: str, served: Server) -> None:
    """A request with a body is answered and the connection closed: the body is never taken for a request."""
    assert asked(served, f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}{framing}\r\n\r\n{SECOND}').status == 404


def test_empty_lines_between_pipelined_requests_are_skipped(served: Server) -> None:
    """A CRLF too many behind a request is ignored (RFC 9112 2.2), however the bytes arrive."""
    first = f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}\r\n'
    last = f'GET {UNKNOWN} HTTP/1.0\r\n\r\n'
    assert [each.status for each in replies(served.raw(f'{first}\r\n{last}'.encode()))] == [404, 404]


# Who may ask


@pytest.mark.parametrize(
    'host',
    [
        'localhost', 'LOCALHOST:8080', 'localhost.', '127.0.0.1', '192.168.1.10:8080', '[::1]', '[::1]:8080',
        '[fe80::1%25eth0]', '[2001:DB8::1]', 'raspberrypi', 'RaspberryPi:80', 'pi.local', 'pi.LAN.', 'meter.home:8080',
        'pi.internal', 'a.b.home.arpa', 'meter.example.org', 'P1.Example.ORG:443', 'meter.example.org.',
        socket.gethostname(), '',
    ],
)  # fmt: skip
def test_a_name_of_this_server_is_answered(host: str, served: Server) -> None:
    """Addresses, local names and those in [server] hosts are its own."""
    assert asked(served, f'GET {UNKNOWN} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n').status == 404


@pytest.mark.parametrize(
    'host',
    [
        'evil.example', 'evil.example:80', 'localhost.evil.com', '192.168.1.1.evil.com', 'local.evil.com', 'a.locale',
        'notlocal.com', 'example.org', 'a.meter.example.org', 'evilmeter.example.org', '1.2.3', '1.2.3.4.5',
        '0x7f.0.0.1', '256.1.1.1', '[evil.com]', 'x.home.arpa.evil.com', 'evil.com.', 'a.onhome',
    ],
)  # fmt: skip
@pytest.mark.parametrize('form', ['GET / HTTP/1.1\r\nHost: {}', 'GET http://{}/ HTTP/1.1\r\nHost: localhost'])
@pytest.mark.parametrize('method', ['GET', 'OPTIONS'])
def test_a_foreign_name_is_421(host: str, form: str, method: str, served: Server) -> None:
    """A name that somebody else may have pointed here is misdirected, in either place where it may stand."""
    reply = asked(served, f'{form.format(host).replace("GET", method)}\r\nConnection: close\r\n\r\n')
    assert is_problem(reply, 421, 'misdirected_request')


def test_the_absolute_form_counts_before_host(served: Server) -> None:
    """With an absolute target its name is the one that counts (RFC 9112 3.2.2)."""
    assert asked(served, 'GET http://localhost/a HTTP/1.1\r\nHost: evil.com\r\nConnection: close\r\n\r\n').status == 404


def basic(text: str | bytes) -> str:
    return 'Basic ' + b64encode(text.encode() if isinstance(text, str) else text).decode()


@pytest.mark.parametrize('authorization', [basic('José:pass:wörd'), basic('José:pass:wörd').replace('Basic', 'bAsIC')])
def test_the_right_credentials_are_let_in(authorization: str, locked: Server) -> None:
    """User and password in UTF-8 (RFC 7617) open every path."""
    assert locked.get(UNKNOWN, {'Authorization': authorization}).status == 404
    assert locked.get('/', {'Authorization': authorization}).json['code'] == 'port_missing'


@pytest.mark.parametrize(
    'authorization',
    [
        None, '', 'Basic', 'Basic ', 'Basic =', 'Basic ????', 'Bearer x', basic(''), basic(':'), basic('José'),
        basic('José:'), basic('José:pass'), basic('José:pass:wörd '), basic('josé:pass:wörd'), basic('x:pass:wörd'),
        basic('José:pass:wörd'.encode('latin-1')), basic('José:pass:wörd')[6:], 'Basic José:pass:wörd',
        basic('José:pass:wörd') + '=', 'Basic ' + 'A' * 5_000,
    ],
)  # fmt: skip
def test_other_credentials_are_401(authorization: str | None, locked: Server) -> None:
    """Without user and password there is nothing but 401 with the way to log in."""
    field = '' if authorization is None else f'Authorization: {authorization}\r\n'
    reply = asked(locked, f'GET / HTTP/1.0\r\n{field}\r\n')
    assert is_problem(reply, 401, 'unauthorized')
    assert reply.headers['Www-Authenticate'].startswith('Basic realm=')


@pytest.mark.parametrize('path', ['/', '/telegram', '/health', '/p1MessageHeader', UNKNOWN, '/stream', '/metrics'])
@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST'])
def test_every_path_is_locked(path: str, method: str, locked: Server) -> None:
    """401 comes before anything that a path or method would be answered with."""
    reply = locked.get(path, method=method)
    assert reply.status == 401
    assert 'WWW-Authenticate' in reply.headers


def test_a_website_of_the_origin_may_ask(locked: Server) -> None:
    """With cors_origin each answer allows it, and a preflight, which has no credentials, is answered."""
    for status, reply in (
        (204, locked.get('/', method='OPTIONS')),
        (401, locked.get('/')),
        (404, locked.get(UNKNOWN, {'Authorization': basic('José:pass:wörd')})),
        (503, locked.get('/', {'Authorization': basic('José:pass:wörd')})),
    ):
        assert reply.status == status
        assert reply.headers['Access-Control-Allow-Origin'] == 'https://example.org'
    preflight = locked.get('/', method='OPTIONS').headers
    assert 'GET' in preflight['Access-Control-Allow-Methods']
    assert 'authorization' in preflight['Access-Control-Allow-Headers'].lower()


def test_no_website_may_ask_otherwise(served: Server) -> None:
    """Without cors_origin no answer has a header of CORS."""
    for method, path in ('OPTIONS', '/'), ('GET', '/'), ('GET', UNKNOWN):
        headers = served.get(path, {'Origin': 'https://example.org'} | FROM_MEMORY, method=method).headers
        assert not [name for name in headers if name.lower().startswith('access-control')]


# Load and rude clients


def test_one_client_too_many_is_refused_at_once(start_server: StartServer, meter: FaultyMeter) -> None:
    """Above max_connections: 503 too_many_connections while the others wait, and all of those get their response."""
    hush(meter)
    server = start_server(meter.port, server={'max_connections': 4})
    with ExitStack() as stack:
        waiting = [stack.enter_context(connect(server)) for _ in range(4)]  # accepted in this order, before any other
        for client in waiting:
            client.sendall(b'GET / HTTP/1.0\r\n\r\n')
        for _ in range(3):
            reply = asked(server, f'GET / HTTP/1.1\r\n{HOST}\r\n')
            assert is_problem(reply, 503, 'too_many_connections')
            assert int(reply.headers['Retry-After']) > 0
        meter.silent = False
        assert [client.recv(12) for client in waiting] == [b'HTTP/1.1 200'] * 4
    wait_for(lambda: server.get('/').status == 200)
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)


def test_idle_connections_make_room(start_server: StartServer, meter: FaultyMeter) -> None:
    """When all connections are taken by clients that say nothing, the longest silent one goes for a new one."""
    server = start_server(meter.port, server={'max_connections': 3})
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(3)]
        wait_for(lambda: server.get('/').status == 200)
        assert silent[0].recv(1) == b''
        silent[2].sendall(f'GET {UNKNOWN} HTTP/1.0\r\n\r\n'.encode())
        assert silent[2].recv(12) == b'HTTP/1.1 404'


def test_a_thousand_connections_leave_it_answering(start_server: StartServer, meter: FaultyMeter) -> None:
    """1,000 clients that connect at once and say nothing: another one is answered, and then all is as before."""
    server = start_server(meter.port)
    server.get('/')
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)
    with ExitStack() as stack:
        for _ in range(1000):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(('127.0.0.1', server.port))

        def answered() -> bool:
            with suppress(OSError, http.client.HTTPException):
                return server.get('/', timeout=10).status == 200
            return False

        wait_for(answered, 30)
        assert threads(server.process.pid) <= 140, 'one each for max_connections, as many to refuse, and a few'
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST, 15)
    assert server.get('/').status == 200


def test_slow_clients_delay_nobody_and_end(start_server: StartServer, meter: FaultyMeter) -> None:
    """A head that comes byte by byte is 408 after ten seconds, one who takes no answers is left; others are served."""
    server = start_server(meter.port)
    over = threading.Event()

    def trickle() -> bytes:
        began = time.monotonic()
        with connect(server) as connection:
            connection.sendall(b'GET / HTTP/1.1\r\nX: ')
            connection.settimeout(0.2)
            while time.monotonic() - began < 20:
                connection.sendall(b'x')
                with suppress(TimeoutError):
                    return connection.recv(65536)
        return b''

    def take_nothing() -> float:
        with connect(server) as connection:
            connection.settimeout(20)
            began = time.monotonic()
            with suppress(ConnectionError):
                while not over.is_set():
                    connection.sendall(
                        f'GET /telegram HTTP/1.1\r\n{HOST}Cache-Control: max-age=60\r\n\r\n'.encode() * 99
                    )
            return time.monotonic() - began

    with ThreadPoolExecutor(2) as pool:
        trickling, taking = pool.submit(trickle), pool.submit(take_nothing)
        while not (trickling.done() and taking.done()):
            assert server.get('/', timeout=5).status == 200
        over.set()
        assert is_problem(replies(trickling.result())[0], 408, 'request_timeout')
        assert taking.result() < 20
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)


# TLS and addresses


@pytest.fixture(scope='module')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A self-signed certificate for loopback and its key, as settings."""
    folder = tmp_path_factory.mktemp('certificate')
    files = {'certificate': folder / 'certificate.pem', 'private_key': folder / 'key.pem'}
    subprocess.run(
        [
            *['openssl', 'req', '-x509', '-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'],
            *['-days', '2', '-subj', '/CN=meter', '-addext', 'subjectAltName=IP:127.0.0.1'],
            *['-out', str(files['certificate']), '-keyout', str(files['private_key'])],
        ],
        check=True,
        capture_output=True,
    )
    return files


def test_tls(start_server: StartServer, meter: FaultyMeter, certificate: Mapping[str, Path]) -> None:
    """With certificate and key it speaks HTTPS, 1.2 at least, and silent or foreign clients delay nobody."""
    server = start_server(meter.port, server=certificate)
    assert server.url.startswith('https://')
    context = ssl.create_default_context(cafile=certificate['certificate'])

    def speaks(version: str) -> bool:
        command = ['openssl', 's_client', '-connect', f'127.0.0.1:{server.port}', f'-{version}']
        options = ['-cipher', 'DEFAULT@SECLEVEL=0', '-brief']  # the client's own security would refuse the old ones
        return subprocess.run(command + options, input=b'', capture_output=True, check=False).returncode == 0

    with connect(server), connect(server) as plain, connect(server) as garbled:
        plain.sendall(f'GET / HTTP/1.1\r\n{HOST}\r\n'.encode())
        garbled.sendall(b'\x16\x03\x01\xff\xff' + bytes(99))
        for _ in range(2):
            connection = http.client.HTTPSConnection('127.0.0.1', server.port, timeout=8, context=context)
            connection.request('GET', '/telegram')
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:1]) == (200, b'/')
            connection.close()
        assert [speaks(version) for version in ('tls1', 'tls1_1', 'tls1_2', 'tls1_3')] == [False, False, True, True]
    raw = context.wrap_socket(connect(server), server_hostname='127.0.0.1', suppress_ragged_eofs=False)
    with raw:  # whose end is told, not only cut off
        raw.sendall(f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n'.encode())
        while raw.recv(8192):
            pass
    assert server.stop() == 0
    assert server.log == ''


@pytest.mark.parametrize(
    'files',
    [
        {'certificate': 'none.pem', 'private_key': 'key.pem'},
        {'certificate': 'certificate.pem', 'private_key': 'certificate.pem'},
        {'certificate': 'certificate.pem', 'private_key': 'other.pem'},
        {'certificate': 'certificate.pem', 'private_key': 'encrypted.pem'},
    ],
)
def test_a_wrong_file_for_tls_is_refused(files: Mapping[str, str], certificate: Mapping[str, Path]) -> None:
    """A certificate or key that is missing, no such thing, another's or encrypted ends the start with one line."""
    folder = certificate['certificate'].parent
    key = certificate['private_key']
    for command in (
        ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-out', str(folder / 'other.pem')],
        ['pkey', '-in', str(key), '-aes256', '-passout', 'pass:geheim', '-out', str(folder / 'encrypted.pem')],
    ):
        subprocess.run(['openssl', *command], check=True, capture_output=True)
    named = {setting: folder / name for setting, name in files.items()}
    (folder / 'config.ini').write_text('[server]\nport = 0\n' + ''.join(f'{k} = {v}\n' for k, v in named.items()))
    arguments: list[str | Path] = [sys.executable, ROOT / 'dsmr_rest_server.py', '--config', folder / 'config.ini']
    ended = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count('\n') == 1
    assert any(str(file) in ended.stderr for file in named.values())


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason='this machine has no IPv6')
def test_both_kinds_of_address_when_the_host_is_empty(start_server: StartServer) -> None:
    """An empty host listens on IPv4 and IPv6; the Host header that a client makes of an address is accepted."""
    server = start_server('/dev/serial/none', server={'host': ''})
    for address in '127.0.0.1', '::1':
        connection = http.client.HTTPConnection(address, server.port, timeout=10)
        connection.request('GET', quote(UNKNOWN))
        answer = connection.getresponse()
        assert answer.status == 404
        answer.read()
        connection.close()
