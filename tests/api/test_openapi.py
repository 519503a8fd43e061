"""openapi.json compared with what the server does, and the header fields that it describes."""

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

import dsmr_rest
from docs import make_openapi
from dsmr_rest.api.routes import HOMEWIZARD_CHANGES, HOMEWIZARD_ROUTES, ROUTES
from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.faults import METER_FAULTS, Fault
from dsmr_rest.http import message as http_message
from dsmr_rest.reading.document import possible_keys
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.simulated.telegrams import VERSIONS
from tests.conftest import MISSING_PORT, ROOT, Server, StartServer, new_meter
from tests.hostile_telegrams import hostile_telegrams
from tests.system_packages import node_program
from tests.telegrams import of_specification, of_version, read, usable_readings

DESCRIPTION: dict[str, Any] = json.loads((ROOT / 'dsmr_rest' / 'api' / 'openapi.json').read_text())
RESPONSES = DESCRIPTION['components']['responses']
PROBLEM = 'application/problem+json'
POINTER = '/{pointer}'
ENCRYPTED = ('MSN', 'SAGEMCOM_T210_D_R', 'AUSTRIA_ENERGIENETZE_STEIERMARK')
STATIC = tuple(path for path, route in ROUTES.items() if '304' in route.responses)
FINITE = ('/', '/metrics', *STATIC)

Fields = list[tuple[str, str]]


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with all routes for many tests: its meter sends ten telegrams per second."""
    with new_meter(interval=0.1) as fast:
        meter_settings = {'port': fast.port, 'max_age': 5}
        started = Server(
            tmp_path_factory.mktemp('server'),
            meter=meter_settings,
            server={'homewizard_api': 'yes'},
        )
        yield started
        assert started.stop() == 0, started.log
        assert 'Traceback' not in started.log, started.log


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator for a schema that refers to the description's components."""
    whole = {'components': DESCRIPTION['components'], **schema}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)


def errors(name: str, document: Any) -> list[str]:
    """The errors of a document according to the component schema of this name."""
    found = validator({'$ref': f'#/components/schemas/{name}'}).iter_errors(document)
    return [f'{error.json_path}: {error.message}' for error in found]


def fields(
    server: Server, path: str, headers: Mapping[str, str] | None = None, method: str = 'GET'
) -> Fields:
    """The header fields of a response, in order and with repetitions."""
    with closing(http.client.HTTPConnection('127.0.0.1', server.port, timeout=20)) as connection:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        response.read()
        return response.getheaders()


ALL_CODES = {(fault.status.value, fault.code) for fault in Fault}
"""Status and code of every problem detail that the server can send."""
NOT_ALLOWED = (405, Fault.METHOD_NOT_ALLOWED.code)
"""Of methods other than those that are served; only of an operation that a setting switches on it is described."""
METER_CODES = {fault.code for fault in METER_FAULTS} | {Fault.STOPPING.code}
"""The codes of the faults with which Meter.read() fails."""


def described_codes(response: Mapping[str, Any]) -> set[tuple[int, str]]:
    """Status and code of the problem details of a described response."""
    content = response.get('content', {}).get(PROBLEM)
    if not content or 'properties' not in content['schema']:
        return set()
    kind = content['schema']['properties']
    return {(kind['status']['const'], code) for code in kind['code']['enum']}


def test_the_description_is_valid_openapi_3_1() -> None:
    """openapi.json is valid OpenAPI 3.1 with valid schemas, and has this version, the MIT licence and relative URLs."""
    validate(DESCRIPTION, cls=OpenAPIV31SpecValidator)
    for schema in DESCRIPTION['components']['schemas'].values():
        Draft202012Validator.check_schema(schema)
    assert DESCRIPTION['openapi'].startswith('3.1.')
    assert DESCRIPTION['info']['version'] == dsmr_rest.__version__
    assert DESCRIPTION['info']['license']['identifier'] == 'MIT'
    assert DESCRIPTION['servers'] == [{'url': '/'}]


def test_the_file_is_current() -> None:
    """openapi.json is what `python -m docs.make_openapi` writes: its paths, codes and kinds of devices are today's."""
    assert make_openapi.FILE.read_text(encoding='utf-8') == make_openapi.text()


def test_a_response_that_nobody_has_described_is_named() -> None:
    """Where a route refers to a response that openapi.json lacks, make_openapi says what is missing."""
    paths = {'/ping': {'get': {'responses': {'200': {'$ref': '#/components/responses/Pong'}}}}}
    with pytest.raises(SystemExit, match='lacks Pong'):
        make_openapi.refuse_unknown_references(paths, {'responses': {}})


def test_every_route_is_described_and_every_described_path_exists() -> None:
    """The described paths are the routes and the JSON Pointer, except those that only a page loads."""
    routes = {**ROUTES, **HOMEWIZARD_ROUTES, **HOMEWIZARD_CHANGES}
    described = {path for path, route in routes.items() if route.name}
    assert set(DESCRIPTION['paths']) == {*described, POINTER}


@pytest.mark.parametrize('path', DESCRIPTION['paths'])
def test_a_path_has_the_operations_that_it_allows(path: str, server: Server) -> None:
    """The described operations of a path are the methods that OPTIONS lists for it."""
    methods = {method.upper() for method in DESCRIPTION['paths'][path] if method != 'parameters'}
    allowed = server.get(path.format(pointer='frequency'), method='OPTIONS').headers['Allow']
    assert methods == set(allowed.split(', '))


def test_homewizard_paths_name_their_setting() -> None:
    """The description of a HomeWizard path names the setting without which it is 404."""
    for path in HOMEWIZARD_ROUTES:
        operation = DESCRIPTION['paths'][path]['get']
        assert 'homewizard_api = yes, else 404' in operation['description']
        assert '404' in operation['responses']
    for path in paths_with('put'):
        operation = DESCRIPTION['paths'][path]['put']
        assert 'homewizard_api = yes, else 405' in operation['description']
        assert '405' in operation['responses']


def test_every_error_code_is_described_and_every_described_code_exists() -> None:
    """Status and code of all errors in the sources and in the description are the same."""
    described = set().union(*map(described_codes, RESPONSES.values()))
    assert described == ALL_CODES
    status, code = NOT_ALLOWED
    assert f'get {status} with the code {code}' in DESCRIPTION['info']['description']
    assert set(DESCRIPTION['components']['schemas']['MeterCode']['enum']) == METER_CODES


def listed_responses(path: str, method: str) -> dict[str, str]:
    """The responses that an operation lists: status to the name of the described response."""
    responses = DESCRIPTION['paths'][path][method]['responses']
    return {status: item['$ref'].rpartition('/')[2] for status, item in responses.items()}


def paths_with(method: str) -> list[str]:
    """The described paths that have this operation."""
    return [path for path, item in DESCRIPTION['paths'].items() if method in item]


@pytest.mark.parametrize('method', ['get', 'head', 'options'])
def test_every_error_is_listed_with_its_status(method: str) -> None:
    """An operation lists problem details only with their own status, and GET and HEAD together have all of them."""
    used = set()
    for path in paths_with(method):
        for status, name in listed_responses(path, method).items():
            codes = described_codes(RESPONSES[name])
            assert {str(described) for described, _ in codes} <= {status}
            used |= codes
    if method != 'options':
        assert used == ALL_CODES - {NOT_ALLOWED}


@pytest.mark.parametrize('path', paths_with('get'))
def test_head_lists_what_get_lists(path: str) -> None:
    """HEAD gets what GET gets."""
    assert listed_responses(path, 'head') == listed_responses(path, 'get')


@pytest.mark.parametrize('path', paths_with('options'))
def test_options_lists_what_it_can_get(path: str) -> None:
    """OPTIONS is the same for every path, and needs neither credentials nor the meter."""
    of_options = listed_responses(path, 'options')
    assert of_options == listed_responses('/', 'options')
    assert of_options.keys() == {'204', '400', '408', '414', '421', '431', '500', '501', '503'}


def test_the_linter_has_no_complaints(tmp_path: Path) -> None:
    """Redocly's recommended rules, all of them, find neither an error nor a warning."""
    command = [node_program('redocly'), 'lint', str(ROOT / 'dsmr_rest' / 'api' / 'openapi.json')]
    command += ['--extends=recommended-strict', '--format=json']
    quiet = {'REDOCLY_TELEMETRY': 'off', 'REDOCLY_SUPPRESS_UPDATE_NOTICE': 'true'}
    done = subprocess.run(
        command,
        # Away from any file with other rules.
        cwd=tmp_path,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith('{'), done.stderr
    report = json.loads(done.stdout)
    assert report['problems'] == []
    assert report['totals'] == {'errors': 0, 'warnings': 0, 'ignored': 0}
    assert done.returncode == 0


def test_every_possible_key_is_described() -> None:
    """The schema of the reading has all keys that a specification can have, and no others."""
    schemas = DESCRIPTION['components']['schemas']
    described = {**schemas['Objects']['properties'], **schemas['Reading']['properties']}
    assert set(described) == possible_keys()


@pytest.mark.parametrize('version', VERSIONS)
def test_simulated_readings_fit_the_schema(version: str) -> None:
    """The reading of every simulated meter fits the schema."""
    assert not errors('Reading', read(of_version(version)).document)


@pytest.mark.parametrize('name', SPECIFICATION_NAMES)
def test_readings_with_every_object_fit_the_schema(name: str) -> None:
    """A reading with all objects that a specification has fits the schema."""
    telegram, _ = of_specification(name)
    assert not errors('Reading', read(telegram, name, encrypted=name in ENCRYPTED).document)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(hostile_telegrams())
def test_readings_of_hostile_telegrams_fit_the_schema(telegram: bytes) -> None:
    """Whatever a telegram contains, the document is what the schema describes."""
    for reading in usable_readings(telegram, Chooser()):
        assert not errors('Reading', reading.document)


@pytest.mark.parametrize(
    'document',
    [
        {},
        {'unheardOf': {'value': 1, 'unit': None}},
        {'mbusDevices': [{'channelId': 1, 'unheardOf': {'value': 1, 'unit': None}}]},
        {'mbusDevices': [{'mbusDeviceType': {'value': 3, 'unit': None}}]},
        {'frequency': {'value': '50', 'unit': 'Hz'}},
        {'frequency': {'value': 50.0}},
        {'frequency': {'value': 50.0, 'unit': 'Hz', 'more': 1}},
        {'p1MessageTimestamp': {'value': '2024-06-21 12:00', 'unit': None}},
        {'powerEventFailureLog': {'buffer_length': 0, 'buffer_type': None}},
    ],
)
def test_other_documents_do_not_fit_the_schema(document: Any) -> None:
    """An unknown key, a missing one, a wrong type or a wrong format fails, at the top and in a device."""
    assert errors('Reading', document)


def test_schemathesis_finds_no_fault(server: Server, tmp_path: Path) -> None:
    """The requests that schemathesis derives from the description get the described responses, with all its checks.

    /stream is excluded because it does not end; another test covers it.
    """
    command = [sys.executable, '-m', 'schemathesis.cli', 'run', f'{server.url}openapi.json']
    command += ['--exclude-path', '/stream']
    command += [
        '--checks',
        'all',
        '--phases',
        'examples,coverage,fuzzing',
        '--max-examples',
        '5',
        '--no-color',
    ]
    command += ['--generation-deterministic', '--request-timeout', '30']
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'(\d+) generated, \1 passed', done.stdout), done.stdout


VALID_REQUEST = b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'
REFUSED_REQUESTS = {
    'BadRequest': b'GET /\r\n\r\n',
    'NotFound': b'GET /unheardOf HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'UriTooLong': b'GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n' % (b'a' * 9000),
    'NotImplemented': b'GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: br\r\n\r\n',
    'Misdirected': b'GET / HTTP/1.1\r\nHost: example.org\r\n\r\n',
    'HeadersTooLarge': b'GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n' % (b'A: b\r\n' * 200),
}


@pytest.mark.parametrize('name', REFUSED_REQUESTS)
def test_refusals_are_as_described(name: str, server: Server) -> None:
    """A refusal has the status, code and header fields of the described response."""
    check_refusal(server, name, REFUSED_REQUESTS[name])


@pytest.mark.parametrize('method', ['HEAD', 'OPTIONS'])
@pytest.mark.parametrize('name', REFUSED_REQUESTS)
def test_refusals_of_other_methods_are_listed(name: str, method: str, server: Server) -> None:
    """HEAD and OPTIONS are refused as GET is, with a status that they list; OPTIONS finds something at every path."""
    request = REFUSED_REQUESTS[name].replace(b'GET', method.encode(), 1)
    path = '/'
    if name == 'NotFound':
        path = POINTER
    listed = listed_responses(path, method.lower())
    expected = name
    if name == 'NotFound' and method == 'OPTIONS':
        expected = 'Options'
    with server.connect() as connection:
        connection.sendall(request)
        with http.client.HTTPResponse(connection, method=method) as response:
            response.begin()
            assert listed[str(response.status)] == expected


def test_a_method_that_is_not_allowed_is_refused_as_described(server: Server) -> None:
    """The response is the problem detail and the header field that the description announces."""
    response = server.get('/', method='PATCH')
    assert not errors('Problem', response.json)
    assert (response.status, response.json['code']) == NOT_ALLOWED
    assert response.headers['Allow'] == http_message.ALLOWED_METHODS


@pytest.mark.parametrize('name', ['Unauthorized', 'Unavailable'])
def test_refusals_of_valid_requests_are_as_described(name: str, start_server: StartServer) -> None:
    """The refusal of a server that is locked, or does not have a meter, is as described."""
    settings = {}
    if name == 'Unauthorized':
        settings = {'user': 'me', 'password': 'secret'}
    check_refusal(start_server(MISSING_PORT, server=settings), name, VALID_REQUEST)


def check_refusal(server: Server, name: str, request: bytes) -> None:
    """Sends a request and compares the response with the description of this name."""
    with server.connect() as connection:
        connection.sendall(request)
        with http.client.HTTPResponse(connection) as response:
            response.begin()
            body = response.read()
            found = response.getheaders()
    described = RESPONSES[name]
    assert ('Content-Type', PROBLEM) in found
    assert not list(
        validator(described['content'][PROBLEM]['schema']).iter_errors(json.loads(body))
    )
    assert response.status == json.loads(body)['status']
    assert {field for field, _ in found} >= set(described['headers'])


def test_bad_health_is_as_described(start_server: StartServer) -> None:
    """/health without a meter is 503 with the described document."""
    response = start_server(MISSING_PORT).get('/health')
    assert response.status == 503
    schema = RESPONSES['Unhealthy']['content'][response.headers['Content-Type']]['schema']
    assert not list(validator(schema).iter_errors(response.json))


def test_the_stream_is_as_described(start_server: StartServer) -> None:
    """/stream is text/event-stream whose events are readings, and problem details when the meter is lost."""
    with new_meter(interval=0.1) as fast:
        server = start_server(fast.port)
        assert ('Content-Type', 'text/event-stream') in fields(server, '/stream', method='HEAD')
        with closing(
            http.client.HTTPConnection('127.0.0.1', server.port, timeout=20)
        ) as connection:
            connection.request('GET', '/stream')
            with connection.getresponse() as response:
                assert response.getheader('Content-Type') in RESPONSES['Stream']['content']
                assert set(response.headers) >= set(RESPONSES['Stream']['headers'])
                event = next_event(response, lambda event: 'event' not in event)
                assert float(event['id']) > 0
                assert not errors('Reading', json.loads(event['data']))
                fast.unplug()
                event = next_event(response, lambda event: 'event' in event)
                assert event['event'] == 'problem'
                assert not errors('Problem', json.loads(event['data']))


def next_event(
    response: http.client.HTTPResponse, is_wanted: Callable[[dict[str, str]], bool]
) -> dict[str, str]:
    """The fields of the next event for which `is_wanted` is true; comments are skipped."""
    event: dict[str, str] = {}
    while line := response.readline():
        name, _, value = line.decode().rstrip('\n').partition(': ')
        if name:
            event[name] = value
        elif 'data' in event and is_wanted(event):
            return event
        else:
            event = {}
    raise AssertionError('the stream ended')


@pytest.mark.parametrize('path', FINITE)
def test_header_fields_of_every_response(path: str, server: Server) -> None:
    """No field is repeated, Date and Cache-Control are present, text has its charset, and keep-alive is implied."""
    with closing(http.client.HTTPConnection('127.0.0.1', server.port, timeout=20)) as connection:
        # The second response is only found when the first one had the stated length.
        for _ in range(2):
            connection.request('GET', path)
            response = connection.getresponse()
            body = response.read()
            names = [name.lower() for name, _ in response.getheaders()]
            assert len(names) == len(set(names))
            assert response.getheader('Content-Length') == str(len(body))
            assert response.getheader('Date', '').endswith(' GMT')
            assert response.getheader('Cache-Control')
            kind = response.getheader('Content-Type', '')
            assert kind == 'application/json' or kind.lower().endswith('charset=utf-8')
            assert not {'connection', 'keep-alive', 'transfer-encoding', 'pragma', 'expires'} & set(
                names
            )


@pytest.mark.parametrize('path', FINITE)
def test_a_client_may_ask_for_the_end(path: str, server: Server) -> None:
    """Connection: close gets the same field in the response, and the connection ends after the stated length."""
    received = server.raw(
        f'GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode()
    )
    header_section, _, body = received.partition(b'\r\n\r\n')
    assert header_section.count(b'\r\nConnection: close') == 1
    assert b'\r\nContent-Length: %d\r\n' % len(body) in header_section + b'\r\n'


@pytest.mark.parametrize('path', FINITE)
def test_head_is_get_without_a_body(path: str, server: Server) -> None:
    """HEAD has the fields of GET, in the same order, and no body."""
    from_memory = {'Cache-Control': 'max-age=60'}
    server.get('/')
    of_get = fields(server, path, from_memory)
    of_head = fields(server, path, from_memory, 'HEAD')
    assert [name for name, _ in of_get] == [name for name, _ in of_head]
    changing = {'Date', 'Age'}
    if path == '/metrics':  # the counts in it have grown between the two requests
        changing.add('Content-Length')
    for get_field, head_field in zip(of_get, of_head, strict=True):
        assert get_field == head_field or get_field[0] in changing
    received = server.raw(
        f'HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'.encode()
    )
    assert received.endswith(b'\r\n\r\n')
    assert received.count(b'\r\n\r\n') == 1


@pytest.mark.parametrize('form', ['{}', 'W/{}', '"other", {}', '"other",W/{} , "more"', '*'])
@pytest.mark.parametrize('path', STATIC)
def test_what_a_client_has_stored_is_not_sent_again(path: str, form: str, server: Server) -> None:
    """If-None-Match with the ETag, strong or weak, alone or in a list, or with *, is 304 without a body."""
    whole = server.get(path)
    tag = whole.headers['ETag']
    for method in ('GET', 'HEAD'):
        response = server.get(path, {'If-None-Match': form.format(tag)}, method=method)
        assert (response.status, response.body) == (304, b'')
        assert response.headers['ETag'] == tag
        assert response.headers['Cache-Control'] == whole.headers['Cache-Control']
        assert not {'Content-Type', 'Last-Modified'} & set(response.headers)
        assert response.headers.get('Content-Length', str(len(whole.body))) == str(len(whole.body))


@pytest.mark.parametrize('known', ['"other"', 'W/"other", "0"', ''])
@pytest.mark.parametrize('path', STATIC)
def test_what_a_client_has_not_stored_is_sent(path: str, known: str, server: Server) -> None:
    """If-None-Match with other ETags gets the body."""
    response = server.get(path, {'If-None-Match': known})
    assert response.status == 200
    assert response.body


def test_a_choice_by_accept_is_stated(server: Server) -> None:
    """/metrics, whose format depends on Accept, states that for caches in every format."""
    for accept in ('*/*', 'application/openmetrics-text; version=1.0.0'):
        assert ('Vary', 'Accept') in fields(server, '/metrics', {'Accept': accept})


@pytest.mark.parametrize('accept', ['*/*', 'application/openmetrics-text; version=1.0.0'])
def test_metrics_have_a_described_format(accept: str, server: Server) -> None:
    """/metrics has a media type of the description, also for a client that accepts OpenMetrics."""
    kind = server.get('/metrics', {'Accept': accept}).headers['Content-Type'].partition(';')[0]
    assert kind in RESPONSES['Metrics']['content']
    assert ('openmetrics' in kind) == ('openmetrics' in accept)


def test_a_client_of_http_1_0_gets_one_response(server: Server) -> None:
    """The connection of an HTTP/1.0 client ends after the response, even if it asks to keep it (RFC 9112 C.2.2)."""
    response = server.only_response('GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    assert response.headers['Connection'] == 'close'
    assert response.body.endswith(b'}\n')
