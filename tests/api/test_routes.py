"""The tables of routes: what each path needs, and what is at a path that is in none of them."""

import json
import time
from email.utils import parsedate_to_datetime

import pytest

from dsmr_rest.api.dispatch import Api
from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.api.routes import HOMEWIZARD_ROUTES, NOTHING, POINTER_ROUTE, ROUTES, pointer_route
from dsmr_rest.config import MeterSettings, ServerSettings
from dsmr_rest.faults import Fault
from dsmr_rest.http.message import Request, Response
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from tests.conftest import (
    HOST,
    MISSING_PORT,
    TELEGRAM,
    UNKNOWN,
    Server,
    StartServer,
    is_problem,
    new_meter,
)
from tests.telegrams import from_lines


def request_for(path: str) -> Request:
    return Request('GET', path, 'localhost', {}, keep_alive=True, is_last=False)


def api(*, homewizard_api: bool = True) -> Api:
    """The application with a meter whose port is missing."""
    meter = Meter(P1Reader(MeterSettings(port=MISSING_PORT)))
    return Api(ServerSettings(homewizard_api=homewizard_api), meter, FollowerPlaces(1))


def code(response: Response) -> str:
    """The code of a problem detail."""
    return str(json.loads(response.body)['code'])


ALL_ROUTES = {**ROUTES, **HOMEWIZARD_ROUTES, '/frequency': POINTER_ROUTE, '/nothing': NOTHING}


@pytest.mark.parametrize('path', ALL_ROUTES)
def test_a_path_without_the_meter_is_served_under_load(path: str) -> None:
    """When there is no place to wait, exactly the paths that need the meter get 503 too_many_connections."""
    response = api().respond_at_once(request_for(path))
    is_refused = response.status == 503 and b'too_many_connections' in response.body
    assert is_refused == ALL_ROUTES[path].needs_meter


@pytest.mark.parametrize('path', HOMEWIZARD_ROUTES)
def test_homewizard_paths_need_their_setting(path: str) -> None:
    """Without homewizard_api its paths are not found, also under load."""
    without = api(homewizard_api=False)
    assert code(without.respond(request_for(path))) == Fault.NOT_FOUND.code
    assert code(without.respond_at_once(request_for(path))) == Fault.NOT_FOUND.code


@pytest.mark.parametrize(
    ('path', 'meant'),
    [
        ('/dashboard/', '/dashboard'),
        ('/Metrics', '/metrics'),
        ('/telegrm', '/telegram'),
        ('/openapi', '/openapi.json'),
        ('/currentelectricityusage', '/currentElectricityUsage'),
        ('/currentElectricityUsag/value', '/currentElectricityUsage/value'),
        ('/api/v1/Data', '/api/v1/data'),
        ('/api/v1/data/', '/api/v1/data'),
    ],
)
def test_a_404_says_which_path_was_meant(path: str, meant: str) -> None:
    """A slash at the end, another case or missing letters: the detail names the path that was probably meant."""
    response = api().respond(request_for(path))
    assert response.status == 404
    assert f': did you mean {meant}?' in json.loads(response.body)['detail']


@pytest.mark.parametrize('path', ['/nothing', '/%ff', '/%ff/', '/x' * 1000, '/0'])
def test_a_404_suggests_nothing_that_is_not_similar(path: str) -> None:
    """A path that is like no other gets no suggestion."""
    response = api().respond(request_for(path))
    assert response.status == 404
    assert 'did you mean' not in json.loads(response.body)['detail']


def test_a_path_that_is_off_is_not_suggested() -> None:
    """Without homewizard_api none of its paths is suggested."""
    response = api(homewizard_api=False).respond(request_for('/api/v1/dat'))
    assert 'did you mean' not in json.loads(response.body)['detail']


@pytest.mark.parametrize(
    ('path', 'route'),
    [
        ('/frequency', POINTER_ROUTE),
        ('/frequenc%79/value', POINTER_ROUTE),
        ('/frequency ', NOTHING),
        ('/%ff', NOTHING),
        ('/', NOTHING),
    ],
)
def test_a_pointer_is_known_by_its_first_key(path: str, route: object) -> None:
    """A path whose first key can occur in a telegram needs the meter; any other is known to lead nowhere."""
    assert pointer_route(path) is route


def test_the_reading_is_indented_json(served: Server) -> None:
    """GET / is the whole document, indented by three, with a final newline and how fresh it is."""
    before = time.time()
    response = served.get('/')
    assert response.status == 200
    assert response.headers['Content-Type'] == 'application/json'
    assert response.body.decode() == json.dumps(response.json, indent=3) + '\n'
    assert response.json['p1MessageTimestamp']['value'] == '2024-06-21T14:00:00+02:00'
    assert 0 <= int(response.headers['Age']) <= time.time() - before
    assert response.headers['Cache-Control'] == 'no-cache'
    received = parsedate_to_datetime(response.headers['Last-Modified']).timestamp()
    assert int(before) <= received <= time.time()


def test_the_telegram_is_unchanged(served: Server) -> None:
    """GET /telegram is every byte of the telegram, CRLF and checksum included, as plain text."""
    response = served.get('/telegram')
    assert (response.status, response.body) == (200, TELEGRAM)
    assert response.headers['Content-Type'].startswith('text/plain')
    assert {'Age', 'Last-Modified', 'Cache-Control'} <= response.headers.keys()


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


OTHER_OBJECTS = {
    '/otherObjects/1-0:15.7.0': {'value': 3.262, 'unit': 'kW'},
    '/otherObjects/1-0:15.7.0/value': 3.262,
    '/otherObjects/1-0%3A15.7.0/unit': 'kW',
    '/otherObjects/1-0:1.8.1*01/value': 1.5,
    '/otherObjects/0-0:96.50.68/1/value': 'OFF',
    '/otherObjects/1-1:31.4.0/groups/1': '-040*A',
    '/mbusDevices/0/otherObjects/0-1:24.9.0/value': 'ON',
}
"""What is at each path into the telegram of the test below."""


def test_a_pointer_leads_into_other_objects(start_server: StartServer) -> None:
    """Lines without a name have paths as all others have; OBIS codes need no escapes."""
    lines = (
        '1-3:0.2.8(50)',
        '1-0:15.7.0(03.262*kW)',
        '1-0:1.8.1*01(1.5*kWh)',
        '0-0:96.50.68(ON)',
        '0-0:96.50.68(OFF)',
        '1-1:31.4.0(040*A)(-040*A)',
        '0-1:24.1.0(003)',
        '0-1:24.9.0(ON)',
    )
    telegram = from_lines(*lines)
    with new_meter(interval=0.2, source=lambda: telegram) as meter:
        server = start_server(meter.port)
        for path, value in OTHER_OBJECTS.items():
            response = server.get(path)
            assert (response.status, response.json) == (200, value), path
        assert server.get('/otherObjects/1-0:99.99.99').status == 404


def test_a_time_zone_is_that_of_the_meter(start_server: StartServer) -> None:
    """The times of a reading have the offsets of [meter] time_zone."""
    telegram = from_lines('0-0:1.0.0(240702091512S)', '1-0:1.8.0(000001.500*kWh)')
    with new_meter(interval=0.2, source=lambda: telegram) as meter:
        server = start_server(meter.port, meter={'time_zone': 'Europe/Helsinki'})
        assert server.get('/p1MessageTimestamp/value').json == '2024-07-02T09:15:12+03:00'
