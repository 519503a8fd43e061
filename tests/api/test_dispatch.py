"""Who may ask for what, and what a request gets that is not allowed or has no reading: real servers, real sockets."""

import fcntl
import json
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from dsmr_rest.api.dispatch import Api
from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.api.routes import HOMEWIZARD_ROUTES, ROUTES
from dsmr_rest.config import MeterSettings, ServerSettings
from dsmr_rest.http.message import Response, parse_request
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from tests.conftest import (
    FROM_MEMORY,
    HOST,
    MISSING_PORT,
    UNKNOWN,
    Server,
    StartServer,
    is_problem,
    new_meter,
)
from tests.faulty_meter import FaultyMeter

ENDING = [path for path in ROUTES if path != '/stream']
"""The paths whose responses have an end."""


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
    return Api(settings, meter, FollowerPlaces(1)).respond(request)


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


@pytest.mark.parametrize('path', [*ENDING, '/currentElectricityUsage/value', UNKNOWN])
def test_head_is_get_without_the_body(path: str, served: Server) -> None:
    """HEAD has the status and header fields of GET, including the length, and no body."""
    get = served.get(path, FROM_MEMORY)
    head = served.get(path, FROM_MEMORY, method='HEAD')
    assert head.body == b''
    assert (head.status, head.headers.keys()) == (get.status, get.headers.keys())
    changing = {'Date', 'Age'}
    if get.headers.get('Cache-Control') == 'no-store':  # its content counts requests
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


# Faults of the meter


def test_a_missing_port_is_503_at_once(start_server: StartServer) -> None:
    """Without the port every response that needs it is 503 port_missing with Retry-After, long before the timeout."""
    server = start_server(MISSING_PORT, meter={'timeout': 3600})
    for path in '/', '/telegram', '/health', '/currentElectricityUsage/value':
        response = server.get(path)
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
        response = server.get('/')
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


def test_health_without_a_place_to_wait_reports_what_is_known(meter: FaultyMeter) -> None:
    """However long a request may wait otherwise, and whatever it prefers."""
    meter.hush()
    settings = MeterSettings(port=meter.port, line='115200 8N1', timeout=40.0)
    shared = Meter(P1Reader(settings))
    api = Api(ServerSettings(), shared, FollowerPlaces(1))
    request = parse_request(f'GET /health HTTP/1.1\r\n{HOST}Prefer: wait=40'.encode())
    began = time.monotonic()
    response = api.respond_at_once(request)
    shared.stop()
    assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert time.monotonic() - began < 20
