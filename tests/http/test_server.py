"""The HTTP contract as clients see it: real servers, real sockets, clients that misbehave."""

import fcntl
import http.client
import json
import resource
import socket
import ssl
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dsmr_rest.api.dispatch import Api
from dsmr_rest.api.places import Places
from dsmr_rest.api.routes import HOMEWIZARD_ROUTES, ROUTES
from dsmr_rest.config import MeterSettings, ServerSettings
from dsmr_rest.http.message import HEADER_SECTION_LIMIT, Request, Response, parse_request
from dsmr_rest.http.server import HttpServer
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.simulated.telegrams import telegram
from tests.conftest import (
    MISSING_PORT,
    SERVER_COMMAND,
    THREADS_AT_REST,
    ClientResponse,
    Server,
    StartServer,
    new_meter,
    receive_all,
    split_responses,
    threads,
    wait_for,
    wait_together,
    write_config,
)
from tests.faulty_meter import FaultyMeter

TELEGRAM = telegram('5.0', datetime(2024, 6, 21, 12, tzinfo=timezone.utc))
FROM_MEMORY = {'Cache-Control': 'max-age=3600'}
HOST = 'Host: localhost\r\n'
UNKNOWN = '/nothing'
"""A path that needs no reading."""
LAST_REQUEST = f'GET {UNKNOWN} HTTP/1.0\r\n\r\n'
"""A request after whose response the server closes the connection."""


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for many tests: its meter sends TELEGRAM ten times per second."""
    with new_meter(interval=0.1, source=lambda: TELEGRAM) as meter:
        server = Server(tmp_path_factory.mktemp('served'), meter={'port': meter.port}, server={})
        try:
            yield server
        finally:
            status = server.stop()
    assert (status, server.log) == (0, '')


@pytest.fixture(scope='module')
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with all paths that requires a user and a password, and that one origin may read."""
    settings = {
        'user': 'José',
        'password': 'pass:wörd',
        'cors_origin': 'https://example.org',
        'homewizard_api': 'yes',
    }
    server = Server(
        tmp_path_factory.mktemp('locked'), meter={'port': MISSING_PORT}, server=settings
    )
    yield server
    assert server.stop() == 0
    assert 'Traceback' not in server.log


def respond(settings: ServerSettings, header_section: str) -> Response:
    """The response to a request, without a server."""
    meter = Meter(P1Reader(MeterSettings(port=MISSING_PORT)))
    request = parse_request(header_section.encode('latin-1'))
    return Api(settings, meter, Places(1)).respond(request)


def is_problem(response: ClientResponse, status: int, code: str) -> bool:
    """Whether a response is that problem detail, with all of its members (RFC 9457)."""
    assert response.headers['Content-Type'] == 'application/problem+json'
    assert {'title', 'status', 'detail', 'code'} <= response.json.keys()
    assert response.json['status'] == response.status
    return (response.status, response.json['code']) == (status, code)


def pointers(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Every JSON Pointer into a document, with the value it refers to."""
    if path:
        yield path, value
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield from pointers(item, f'{path}/{key}')


# What is served


def test_the_reading_is_indented_json(served: Server) -> None:
    """GET / is the whole document, indented by three, with a final newline and how fresh it is."""
    before = time.time()
    response = served.get('/')
    assert response.status == 200
    assert response.headers['Content-Type'] == 'application/json'
    assert response.body.decode() == json.dumps(response.json, indent=3) + '\n'
    assert response.json['p1MessageTimestamp']['value'] == '2024-06-21T14:00:00+02:00'
    assert response.headers['Age'] == '0'
    assert response.headers['Cache-Control'] == 'no-cache'
    received = parsedate_to_datetime(response.headers['Last-Modified']).timestamp()
    assert int(before) <= received <= time.time()


def test_the_telegram_is_unchanged(served: Server) -> None:
    """GET /telegram is every byte of the telegram, CRLF and checksum included, as plain text."""
    response = served.get('/telegram')
    assert (response.status, response.body) == (200, TELEGRAM)
    assert response.headers['Content-Type'].startswith('text/plain')
    assert {'Age', 'Last-Modified', 'Cache-Control'} <= response.headers.keys()


def test_every_value_is_at_its_pointer(served: Server) -> None:
    """A path is a JSON Pointer to any object, number, text, null or list of the reading."""
    document = served.get('/', FROM_MEMORY).json
    everything = list(pointers(document))
    assert len(everything) > 100
    with closing(http.client.HTTPConnection('127.0.0.1', served.port)) as connection:
        for path, value in everything:
            connection.request('GET', path, headers=FROM_MEMORY)
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())) == (200, value), path


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
        ('//telegram', '/telegram'),
        ('///currentElectricityUsage', '/currentElectricityUsage'),
        ('//', '/'),
    ],
)
def test_another_way_to_write_a_path(path: str, same: str, served: Server) -> None:
    """Percent-encoding, a query, the absolute form and slashes of a base address do not change the response."""
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
    """What does not exist below an existing key is not_found."""
    assert is_problem(served.get(path, FROM_MEMORY), 404, 'not_found')


def test_an_unknown_path_is_404_without_the_meter(start_server: StartServer) -> None:
    """A first key that no specification has is not_found without reading the meter, and no path reaches a file."""
    server = start_server(MISSING_PORT)
    for path in (
        UNKNOWN, '/./', '/../etc/passwd', '/%2e%2e/%2e%2e/etc/passwd', '/..%2fconfig.ini', '/config.ini', '/%00',
        '/telegram%00', '/currentElectricityUsage%00', '/%', '/%zz', '/%ff', '/~', '/~2', '/Telegram', '/telegram/',
        '/health/x', '/dsmr_rest/api/dashboard.html', '/__class__', '/0', '/-',
    ):  # fmt: skip
        response = server.only_response(f'GET {path} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n')
        assert is_problem(response, 404, 'not_found'), path
    counters = server.get('/health').json['counters']
    assert counters['errorsByCode'] == {'port_missing': 1}, (
        'only the request for /health may have read the meter'
    )


def test_health_counts_what_happened(served: Server) -> None:
    """GET /health is 200 with the code ok, the age of the last reading, and the counts since the start."""
    served.get('/telegram')
    before = served.get('/health').json
    served.get('/telegram')
    response = served.get('/health')
    after = response.json
    assert (response.status, after['status'], after['code']) == (200, 'ok', 'ok')
    assert 0 <= after['ageOfLastReading'] < 60
    assert after['version']
    for counter in 'telegrams', 'portOpenings':
        assert after['counters'][counter] == before['counters'][counter] + 1
    successes_before = before['counters']['requestsByStatus']['200']
    assert after['counters']['requestsByStatus']['200'] == successes_before + 2


@pytest.mark.parametrize(
    'path', ['/', '/telegram', '/health', '/currentElectricityUsage/value', UNKNOWN]
)
def test_head_is_get_without_the_body(path: str, served: Server) -> None:
    """HEAD has the status and header fields of GET, including the length, and no body."""
    get = served.get(path, FROM_MEMORY)
    head = served.get(path, FROM_MEMORY, method='HEAD')
    assert head.body == b''
    assert (head.status, head.headers.keys()) == (get.status, get.headers.keys())
    changing = {'Date', 'Age'}
    if path == '/health':
        changing.add('Content-Length')
    for name in get.headers.keys() - changing:
        assert head.headers[name] == get.headers[name]
    assert int(get.headers['Content-Length']) == len(get.body)


@pytest.mark.parametrize('target', ['/', UNKNOWN, '*'])
def test_options_lists_the_allowed_methods(target: str, served: Server) -> None:
    """OPTIONS is 204 with Allow and, as required of a 204, without a length."""
    response = served.only_response(f'OPTIONS {target} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n')
    assert (response.status, response.headers['Allow']) == (204, 'GET, HEAD, OPTIONS')
    assert 'Content-Length' not in response.headers


@pytest.mark.parametrize(
    'method', ['POST', 'PUT', 'DELETE', 'PATCH', 'TRACE', 'CONNECT', 'get', 'BREW']
)
@pytest.mark.parametrize('path', ['/', UNKNOWN])
def test_only_reading_is_allowed(method: str, path: str, served: Server) -> None:
    """Any other method is 405 with Allow, on every path."""
    response = served.only_response(
        f'{method} {path} HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nabcd'
    )
    assert is_problem(response, 405, 'method_not_allowed')
    assert response.headers['Allow'] == 'GET, HEAD, OPTIONS'


# How fresh a reading is


def test_a_client_states_how_old_a_reading_may_be(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """max-age in a request accepts a reading from memory; no-cache, max-age=0 and other directives do not."""
    server = start_server(meter.port)
    first = server.get('/')
    kept = server.get('/', {'Cache-Control': 'no-transform, MAX-AGE=60'})
    assert (kept.body, kept.headers['Last-Modified']) == (
        first.body,
        first.headers['Last-Modified'],
    )
    assert server.openings == 1
    for number, cache_control in enumerate(
        ('no-cache, max-age=60', 'max-age=0', 'only-if-cached'), 2
    ):
        server.get('/', {'Cache-Control': cache_control})
        assert server.openings == number


def test_max_age_of_the_configuration(start_server: StartServer, meter: FaultyMeter) -> None:
    """[meter] max_age is the default for requests without an age of their own; Age counts whole seconds."""
    server = start_server(meter.port, meter={'max_age': 60})
    first = server.get('/')
    wait_for(lambda: server.get('/').headers['Age'] == '1')
    assert server.get('/').body == first.body
    assert server.openings == 1
    assert server.get('/', {'Cache-Control': 'no-cache'}).headers['Age'] == '0'
    assert server.openings == 2


def test_64_simultaneous_clients_share_a_telegram(start_server: StartServer) -> None:
    """As many clients as are allowed get the same 200 from one opening of the port."""
    with new_meter(interval=2) as meter, ThreadPoolExecutor(64) as pool:
        meter.hush()
        # Two for /health: one may be closing.
        server = start_server(meter.port, server={'max_connections': 66})
        waiting = wait_together(server, pool, 64, '/telegram')
        meter.silent = False
        responses = [future.result() for future in waiting]
        assert {response.status for response in responses} == {200}
        assert len({response.body for response in responses}) == 1
        assert {response.headers['Age'] for response in responses} == {'0'}
        assert server.openings == 1


# Faults of the meter


def test_a_missing_port_is_503_at_once(start_server: StartServer) -> None:
    """Without the port every response that needs it is 503 port_missing with Retry-After, long before the timeout."""
    server = start_server(MISSING_PORT, meter={'timeout': 3600})
    for path in '/', '/telegram', '/health', '/currentElectricityUsage/value':
        response = server.get(path, timeout=5)
        assert (response.status, response.json['code']) == (503, 'port_missing')
        assert int(response.headers['Retry-After']) > 0
        assert MISSING_PORT in response.json['detail']
        if path != '/health':
            assert is_problem(response, 503, 'port_missing')


def test_a_busy_port_is_503_until_it_is_free(start_server: StartServer, meter: FaultyMeter) -> None:
    """While another program has the port locked, responses are 503 port_busy; then they are readings."""
    server = start_server(meter.port, meter={'timeout': 3600})
    with Path(meter.port).open('rb', buffering=0) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        response = server.get('/', timeout=5)
        assert is_problem(response, 503, 'port_busy')
        assert int(response.headers['Retry-After']) > 0
    assert server.get('/').status == 200


@pytest.mark.parametrize(
    ('timeout', 'prefer'), [(0.5, ''), (3600, 'respond-async, WAIT=1; x=y'), (0.5, 'wait=3600')]
)
def test_a_silent_meter_is_504_after_the_wait(
    timeout: float, prefer: str, start_server: StartServer
) -> None:
    """The wait ends with the timeout or, with Prefer: wait, before it, and never after it."""
    with new_meter(source=lambda: b'') as meter:
        server = start_server(meter.port, meter={'timeout': timeout})
        response = server.get('/', {'Prefer': prefer}, timeout=10)
    assert is_problem(response, 504, 'meter_silent')


# HTTP/1.1 on the wire


def test_streams_leave_room_for_requests(start_server: StartServer, meter: FaultyMeter) -> None:
    """Of streams requested at the same time at most max_streams are opened, and HEAD does not take a place."""
    server = start_server(meter.port, server={'max_streams': 4})
    for _ in range(6):
        assert server.get('/stream', method='HEAD').status == 200
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(30)]
        for client in clients:
            client.sendall(f'GET /stream HTTP/1.1\r\n{HOST}\r\n'.encode())
        statuses = [client.recv(12)[-3:] for client in clients]
        assert 1 <= statuses.count(b'200') <= 4
        assert statuses.count(b'503') == 30 - statuses.count(b'200')
        assert server.get('/').status == 200


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
        ('a' * 5_000, 414, 'uri_too_long'),
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


# Who may read


def is_let_in(response: Response) -> bool:
    """Whether a request for UNKNOWN got as far as its path."""
    return response.status == 404


@pytest.mark.parametrize(
    'host',
    [
        'localhost', 'LOCALHOST:8080', 'localhost.', '127.0.0.1', '192.168.1.10:8080', '[::1]', '[::1]:8080',
        '[fe80::1%25eth0]', '[2001:DB8::1]', 'raspberrypi', 'RaspberryPi:80', 'pi.local', 'pi.LAN.', 'meter.home:8080',
        'pi.internal', 'a.b.home.arpa', 'pi.localdomain', 'pi.fritz.box',
        'meter.example.org', 'P1.Example.ORG:443', 'meter.example.org.',
        socket.gethostname(), '',
    ],
)  # fmt: skip
def test_a_name_of_this_server_is_accepted(host: str) -> None:
    """Addresses, local names and those in [server] hosts are names of this server."""
    settings = ServerSettings(hosts=('meter.example.org', 'p1.example.org'))
    assert is_let_in(respond(settings, f'GET {UNKNOWN} HTTP/1.1\r\nHost: {host}'))


@pytest.mark.parametrize(
    'host',
    [
        'evil.example', 'evil.example:80', 'localhost.evil.com', '192.168.1.1.evil.com', 'local.evil.com', 'a.locale',
        'notlocal.com', 'example.org', 'a.meter.example.org', 'evilmeter.example.org', '1.2.3', '1.2.3.4.5',
        '0x7f.0.0.1', '256.1.1.1', '[evil.com]', 'x.home.arpa.evil.com', 'evil.com.', 'a.onhome', 'a.evilfritz.box',
        'xlocaldomain.box', 'fritz.box.evil.com',
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    'form', ['GET / HTTP/1.1\r\nHost: {}', 'GET http://{}/ HTTP/1.1\r\nHost: localhost']
)
@pytest.mark.parametrize('method', ['GET', 'OPTIONS'])
def test_a_foreign_name_is_421(host: str, form: str, method: str) -> None:
    """A name that somebody else may have pointed at this server is misdirected, in the target and in Host."""
    settings = ServerSettings(hosts=('meter.example.org', 'p1.example.org'))
    response = respond(settings, form.format(host).replace('GET', method))
    assert (response.status, json.loads(response.body)['code']) == (421, 'misdirected_request')


def test_a_refused_name_is_named(served: Server) -> None:
    """421 says which name was refused, with what is not printable ASCII escaped."""
    response = served.only_response(
        'GET / HTTP/1.1\r\nHost: m\xe9ter.evil.com\r\nConnection: close\r\n\r\n'
    )
    assert is_problem(response, 421, 'misdirected_request')
    assert 'the host name m\\xe9ter.evil.com:' in response.json['detail']


def test_a_foreign_name_is_refused_on_the_wire(served: Server) -> None:
    """A running server refuses a foreign Host, unless the target has a name of this server (RFC 9112 3.2.2)."""
    end = 'Host: evil.com\r\nConnection: close\r\n\r\n'
    assert is_problem(served.only_response(f'GET / HTTP/1.1\r\n{end}'), 421, 'misdirected_request')
    assert served.only_response(f'GET http://localhost/a HTTP/1.1\r\n{end}').status == 404


LOCKED = ServerSettings(user='José', password='pass:wörd')  # noqa: S106 a test's


def basic(text: str | bytes) -> str:
    """The value of Authorization with these credentials."""
    if isinstance(text, str):
        text = text.encode()
    return 'Basic ' + b64encode(text).decode()


@pytest.mark.parametrize(
    'authorization', [basic('José:pass:wörd'), basic('José:pass:wörd').replace('Basic', 'bAsIC')]
)
def test_the_right_credentials_are_accepted(authorization: str, locked: Server) -> None:
    """User and password in UTF-8 (RFC 7617) open every path."""
    assert locked.get(UNKNOWN, {'Authorization': authorization}).status == 404
    assert locked.get('/', {'Authorization': authorization}).json['code'] == 'port_missing'


@pytest.mark.parametrize(
    'authorization',
    [
        None, '', 'Basic', 'Basic ', 'Basic =', 'Basic ????', 'Bearer x', basic(''), basic(':'), basic('José'),
        basic('José:'), basic('José:pass'), basic('José:pass:wörd '), basic('josé:pass:wörd'), basic('x:pass:wörd'),
        basic('José:pass:wörd'.encode('latin-1')), basic('José:pass:wörd')[6:], 'Basic José:pass:wörd',
        basic('José:pass:wörd') + '=', 'Basic ' + 'A' * 5_000, basic('José:pass:wörd')[:-1],
        basic('José:pass:wörd')[:-1] + 'A', basic('José:pass:wöre'), basic('Kosé:pass:wörd'),
        basic('José:pass:wörd').replace('Basic', 'Bearer'),
    ],
)  # fmt: skip
def test_other_credentials_are_401(authorization: str | None) -> None:
    """Any other credentials, or none, get 401 with the way to log in."""
    field = ''
    if authorization is not None:
        field = f'\r\nAuthorization: {authorization}'
    response = respond(LOCKED, f'GET {UNKNOWN} HTTP/1.0{field}')
    assert (response.status, json.loads(response.body)['code']) == (401, 'unauthorized')
    assert response.headers['WWW-Authenticate'].startswith('Basic realm=')
    assert is_let_in(
        respond(LOCKED, f'GET {UNKNOWN} HTTP/1.0\r\nAuthorization: {basic("José:pass:wörd")}')
    )


@pytest.mark.parametrize('path', [*ROUTES, *HOMEWIZARD_ROUTES, '/p1MessageHeader', UNKNOWN])
@pytest.mark.parametrize('method', ['GET', 'HEAD', 'POST', 'PUT'])
def test_every_path_is_locked(path: str, method: str, locked: Server) -> None:
    """401 comes before anything else that a path or method would return."""
    response = locked.get(path, method=method)
    assert response.status == 401
    assert 'WWW-Authenticate' in response.headers


def test_a_website_of_the_origin_may_read(locked: Server) -> None:
    """With cors_origin every response allows it, and a preflight, which has no credentials, is successful."""
    credentials = {'Authorization': basic('José:pass:wörd')}
    preflight = locked.get('/', method='OPTIONS')
    for status, response in (
        (204, preflight),
        (401, locked.get('/')),
        (404, locked.get(UNKNOWN, credentials)),
        (503, locked.get('/', credentials)),
    ):
        assert response.status == status
        assert response.headers['Access-Control-Allow-Origin'] == 'https://example.org'
    assert 'GET' in preflight.headers['Access-Control-Allow-Methods']
    assert 'authorization' in preflight.headers['Access-Control-Allow-Headers'].lower()
    assert preflight.headers['Access-Control-Max-Age'] == str(24 * 3600)


def test_other_websites_may_not_read(served: Server) -> None:
    """Without cors_origin responses do not have any CORS header."""
    for method, path in ('OPTIONS', '/'), ('GET', '/'), ('GET', UNKNOWN):
        headers = served.get(
            path, {'Origin': 'https://example.org', **FROM_MEMORY}, method=method
        ).headers
        assert not [name for name in headers if name.lower().startswith('access-control')]


# Load and misbehaving clients


def test_a_client_over_the_limit_is_refused_at_once(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """Above max_connections: 503 too_many_connections while the others wait, and all of those get their response."""
    meter.hush()
    server = start_server(meter.port, server={'max_connections': 4})
    with ExitStack() as stack:
        # Accepted in this order, before any other.
        waiting = [stack.enter_context(server.connect()) for _ in range(4)]
        for client in waiting:
            client.sendall(b'GET / HTTP/1.0\r\n\r\n')
        for _ in range(3):
            response = server.only_response(f'GET / HTTP/1.1\r\n{HOST}\r\n')
            assert is_problem(response, 503, 'too_many_connections')
            assert int(response.headers['Retry-After']) > 0
        meter.silent = False
        assert [client.recv(12) for client in waiting] == [b'HTTP/1.1 200'] * 4
    wait_for(lambda: server.get('/').status == 200)
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)


def test_silent_connections_make_room(start_server: StartServer, meter: FaultyMeter) -> None:
    """When silent clients have all connections, the one that has been silent for longest makes room for a new one."""
    server = start_server(meter.port, server={'max_connections': 3})
    with ExitStack() as stack:
        silent = [stack.enter_context(server.connect()) for _ in range(3)]
        wait_for(lambda: server.get('/').status == 200)
        assert silent[0].recv(1) == b''
        silent[2].sendall(LAST_REQUEST.encode())
        assert silent[2].recv(12) == b'HTTP/1.1 404'


def test_a_thousand_silent_connections_lock_nobody_out(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """While 1,000 clients that connect at once stay silent another client is served, and no thread is left over."""
    server = start_server(meter.port)
    with ExitStack() as stack:
        for _ in range(1000):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(('127.0.0.1', server.port))

        def is_served() -> bool:
            with suppress(OSError, http.client.HTTPException):
                return server.get('/', timeout=10).status == 200
            return False

        wait_for(is_served, 30)
        assert threads(server.process.pid) <= 140, (
            'one per max_connections, as many for refusals, and a few'
        )
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST, 15)
    assert server.get('/').status == 200


def send_byte_by_byte(server: Server, beginning: str) -> bytes:
    """Sends the rest of a header section slowly and without an end; returns what the server sends in at most 20 s."""
    deadline = time.monotonic() + 20
    received = b''
    with server.connect() as connection:
        connection.sendall(beginning.encode())
        connection.settimeout(0.2)
        while b' 408 ' not in received and time.monotonic() < deadline:
            connection.sendall(b'x')
            with suppress(TimeoutError):
                received += connection.recv(65536)
    return received


def send_without_receiving(server: Server, over: threading.Event) -> float:
    """Sends requests and never receives a response; returns after how many seconds that ends."""
    requests = f'GET /telegram HTTP/1.1\r\n{HOST}Cache-Control: max-age=60\r\n\r\n'.encode() * 99
    with server.connect() as connection:
        began = time.monotonic()
        with suppress(ConnectionError):
            while not over.is_set():
                connection.sendall(requests)
        return time.monotonic() - began


def test_slow_clients_delay_nobody_and_are_disconnected(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """A header section byte by byte is 408 after ten seconds, a client that receives nothing is disconnected, and the
    others are served."""
    server = start_server(meter.port)
    over = threading.Event()
    beginning = f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}'
    with ThreadPoolExecutor(3) as pool:
        sending = pool.submit(send_byte_by_byte, server, beginning)
        pipelining = pool.submit(send_byte_by_byte, server, f'{beginning}\r\n{beginning}')
        not_receiving = pool.submit(send_without_receiving, server, over)
        while not (sending.done() and pipelining.done() and not_receiving.done()):
            assert server.get('/', timeout=5).status == 200
        over.set()
        (refusal,) = split_responses(sending.result())
        assert is_problem(refusal, 408, 'request_timeout')
        first_response, refusal = split_responses(pipelining.result())
        assert first_response.status == 404
        assert is_problem(refusal, 408, 'request_timeout')
        assert not_receiving.result() < 20
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)


def test_a_shortage_of_file_descriptors_passes(start_server: StartServer) -> None:
    """Clients for which no file descriptor is left wait, which is one log line; then all is as before."""
    server = start_server(MISSING_PORT)
    server.get(UNKNOWN)
    descriptors = Path(f'/proc/{server.process.pid}/fd')
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)
    few = len(list(descriptors.iterdir())) + 5
    soft_limit, hard_limit = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    assert few < soft_limit
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (few, hard_limit))
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(server.connect())
        waiting = stack.enter_context(server.connect())
        waiting.sendall(LAST_REQUEST.encode())
        wait_for(lambda: len(list(descriptors.iterdir())) == few)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (soft_limit, hard_limit))
        assert waiting.recv(12) == b'HTTP/1.1 404'
    assert server.get(UNKNOWN).status == 404
    assert server.stop() == 0
    (line,) = server.log.splitlines()
    assert 'no file descriptor is left' in line


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


# TLS and addresses


def accepts_tls(server: Server, version: str) -> bool:
    """Whether a server accepts this version of TLS."""
    command = ['openssl', 's_client', '-connect', f'127.0.0.1:{server.port}', f'-{version}']
    # The client's own security would refuse the old ones.
    command += [
        '-cipher',
        'DEFAULT@SECLEVEL=0',
        '-brief',
    ]
    return subprocess.run(command, input=b'', capture_output=True, check=False).returncode == 0


def test_tls(
    start_server: StartServer, meter: FaultyMeter, certificate: Mapping[str, Path]
) -> None:
    """With certificate and key the server uses HTTPS, TLS 1.2 or later; silent and foreign clients delay nobody."""
    server = start_server(meter.port, server=certificate)
    assert server.url.startswith('https://')
    context = ssl.create_default_context(cafile=certificate['certificate'])
    with server.connect(), server.connect() as plain, server.connect() as garbled:
        plain.sendall(f'GET / HTTP/1.1\r\n{HOST}\r\n'.encode())
        garbled.sendall(b'\x16\x03\x01\xff\xff' + bytes(99))
        for _ in range(2):
            connection = http.client.HTTPSConnection(
                '127.0.0.1', server.port, timeout=8, context=context
            )
            with closing(connection):
                connection.request('GET', '/telegram')
                response = connection.getresponse()
                assert (response.status, response.read()[:1]) == (200, b'/')
        accepted = [
            version
            for version in ('tls1', 'tls1_1', 'tls1_2', 'tls1_3')
            if accepts_tls(server, version)
        ]
        assert accepted == ['tls1_2', 'tls1_3']
    # A close_notify alert must end the connection: without it, receiving would raise an error here.
    raw = context.wrap_socket(
        server.connect(), server_hostname='127.0.0.1', suppress_ragged_eofs=False
    )
    with raw:
        raw.sendall(f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n'.encode())
        receive_all(raw)
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
def test_a_wrong_file_for_tls_is_refused(
    files: Mapping[str, str], certificate: Mapping[str, Path]
) -> None:
    """A certificate or key that is missing, not a key, of another pair or encrypted ends the start with one line."""
    folder = certificate['certificate'].parent
    key = certificate['private_key']
    for command in (
        [
            'genpkey',
            '-algorithm',
            'EC',
            '-pkeyopt',
            'ec_paramgen_curve:prime256v1',
            '-out',
            str(folder / 'other.pem'),
        ],
        [
            'pkey',
            '-in',
            str(key),
            '-aes256',
            '-passout',
            'pass:geheim',
            '-out',
            str(folder / 'encrypted.pem'),
        ],
    ):
        subprocess.run(['openssl', *command], check=True, capture_output=True)
    paths = {setting: folder / name for setting, name in files.items()}
    config = write_config(folder, {}, paths)
    command = [*SERVER_COMMAND, '--config', config]
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count('\n') == 1
    assert any(str(path) in ended.stderr for path in paths.values())


def status_at(address: str, port: int) -> int:
    """The status with which UNKNOWN is requested from an address."""
    with closing(http.client.HTTPConnection(address, port, timeout=10)) as connection:
        connection.request('GET', quote(UNKNOWN))
        response = connection.getresponse()
        response.read()
        return response.status


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason='this machine has no IPv6')
def test_an_empty_host_is_every_address(start_server: StartServer) -> None:
    """An empty host listens on IPv4 and IPv6; the Host header that a client makes of an address is accepted."""
    server = start_server(MISSING_PORT, server={'host': ''})
    for address in '127.0.0.1', '::1':
        assert status_at(address, server.port) == 404


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason='this machine has no IPv6')
def test_an_ipv6_address_is_the_only_one(start_server: StartServer) -> None:
    """A host that is an IPv6 address is in brackets in the URL, and the server does not listen on IPv4."""
    with socket.socket() as reserved:  # so that no other server has this port on IPv4
        reserved.bind(('127.0.0.1', 0))
        _, port = reserved.getsockname()
        server = start_server(MISSING_PORT, server={'host': '::1', 'port': port})
        assert server.url == f'http://[::1]:{port}/'
        assert status_at('::1', port) == 404
        with pytest.raises(ConnectionRefusedError):
            server.connect()
