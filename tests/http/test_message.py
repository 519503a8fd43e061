"""HTTP messages, without a socket: what is a request, what is not, and how a response looks on the wire."""

import json
from collections.abc import Iterator

import pytest

from dsmr_rest.faults import Fault
from dsmr_rest.http.message import (
    FIELD_LIMIT,
    HEADER_SECTION_LIMIT,
    LINE_LIMIT,
    HttpError,
    Request,
    Response,
    after_header_section,
    end_of_header_section,
    parse_request,
    problem,
)

HOST = 'Host: localhost\r\n'
NEXT_REQUEST = b'GET /telegram HTTP/1.0\r\n\r\n'
AT_ONCE = 1_000_000
"""Bytes per step with which receive() gets everything in one step."""


def receive(text: str, step: int = AT_ONCE) -> Request:
    """Parses a request as a server receives it: some bytes more at each step. Raises HttpError.

    What comes after the request must be left for the next one.
    """
    data = text.encode('latin-1')
    has_end = text.endswith('\r\n\r\n')
    if has_end:
        data += NEXT_REQUEST
    for received in range(step, len(data) + step, step):
        arrived = data[:received]
        end = end_of_header_section(arrived)
        if end is not None:
            assert after_header_section(data, end) == NEXT_REQUEST
            return parse_request(arrived[:end])
    raise AssertionError('the header section does not end')


def fault_of(text: str, step: int = AT_ONCE) -> tuple[int, str]:
    """Status and code of the problem detail for what is not a request."""
    with pytest.raises(HttpError) as caught:
        receive(text, step)
    response = caught.value.response
    document = json.loads(response.body)
    assert document['status'] == response.status.value
    return response.status.value, document['code']


@pytest.mark.parametrize('step', [1, 7, AT_ONCE])
def test_a_request_is_the_same_however_its_bytes_arrive(step: int) -> None:
    """Method, path, host and header fields do not depend on how the request was cut into pieces."""
    request = receive(
        'GET /a%20b?c=d/e HTTP/1.1\r\nHost: Pi.LOCAL.:8080\r\nAccept: \t x y \r\n\r\n', step
    )
    assert request == Request(
        'GET',
        '/a%20b',
        'pi.local',
        {'host': 'Pi.LOCAL.:8080', 'accept': 'x y'},
        keep_alive=True,
        is_last=False,
    )


def test_repeated_fields_are_one_list() -> None:
    """A field that is sent twice is one list with commas (RFC 9110 5.3), whatever the case of its name."""
    request = receive(f'GET / HTTP/1.1\r\n{HOST}Accept: a\r\nACCEPT: b\r\nX-Empty:\r\n\r\n')
    assert request.headers == {'host': 'localhost', 'accept': 'a, b', 'x-empty': ''}


@pytest.mark.parametrize(
    ('target', 'path', 'host'),
    [
        ('/', '/', 'localhost'),
        ('/a?b=/c?d', '/a', 'localhost'),
        ('http://192.168.1.1:80/telegram?', '/telegram', '192.168.1.1'),
        ('HTTPS://P1.Example.ORG/a', '/a', 'p1.example.org'),
        ('HTTP://[FE80::1]:8080', '/', '[fe80::1]'),
        ('http://other?x=1', '/', 'other'),
    ],
)
def test_an_absolute_target_has_its_own_host(target: str, path: str, host: str) -> None:
    """The path has no query, and the host of an absolute target replaces the Host field (RFC 9112 3.2.2)."""
    request = receive(f'GET {target} HTTP/1.1\r\n{HOST}\r\n')
    assert (request.path, request.host) == (path, host)


def test_targets_of_other_methods() -> None:
    """OPTIONS may have an asterisk for a target and CONNECT an authority (RFC 9112 3.2); HTTP/1.0 needs no Host."""
    assert receive(f'OPTIONS * HTTP/1.1\r\n{HOST}\r\n').path == '*'
    assert receive(f'CONNECT example.org:443 HTTP/1.1\r\n{HOST}\r\n').path == 'example.org:443'
    assert receive('GET / HTTP/1.0\r\n\r\n').host == ''


@pytest.mark.parametrize('step', [1, AT_ONCE])
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
        f'GET / HTTP/1.1\r\n{HOST}A: b\x0b',
        f'GET / HTTP/1.1\r\n{HOST}A: b\x7fc',
        f'GET / HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip',
        f'GET / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, gzip',
        f'GET / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, chunked',
        f'GET / HTTP/1.1\r\n{HOST}Transfer-Encoding:',
        f'GET / HTTP/1.1\r\n{HOST}Transfer-Encoding: \x0bchunked',
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
def test_a_malformed_request_is_400(request_: str, step: int) -> None:
    """A request that is not one by RFC 9112 is a bad_request."""
    assert fault_of(f'{request_}\r\n\r\n', step) == (400, 'bad_request')


@pytest.mark.parametrize('coding', ['identity', 'br', 'chunked, foo', 'gzip;q=1, chunked'])
def test_an_unknown_transfer_coding_is_501(coding: str) -> None:
    """A transfer coding that HTTP/1.1 does not have is not_implemented (RFC 9112 6.1)."""
    text = f'GET / HTTP/1.1\r\n{HOST}Transfer-Encoding: {coding}\r\n\r\n'
    assert fault_of(text) == (501, 'not_implemented')


def detail_of(text: str) -> str:
    """What the response to an invalid request says about it."""
    with pytest.raises(HttpError) as caught:
        receive(text)
    return str(caught.value)


def test_the_version_and_the_host_are_checked_separately() -> None:
    """Another major version is refused although there is a Host, and every HTTP/1.x but 1.0 without one."""
    assert 'request line' in detail_of(f'GET / HTTP/2.0\r\n{HOST}\r\n')
    assert 'Host is missing' in detail_of('GET / HTTP/1.2\r\n\r\n')
    assert 'Host is missing' in detail_of('GET / HTTP/1.1\r\n\r\n')
    assert receive(f'GET / HTTP/1.2\r\n{HOST}\r\n').path == '/'


def test_a_method_may_be_any_token() -> None:
    """A method may begin with a sign or a digit (RFC 9110 5.6.2); whether it is allowed is another question."""
    for method in ('!GET', '1', '-', "'"):
        assert receive(f'{method} / HTTP/1.1\r\n{HOST}\r\n').method == method


@pytest.mark.parametrize('step', [1, 1000, AT_ONCE])
@pytest.mark.parametrize(
    ('text', 'status', 'code'),
    [
        (f'GET /{"a" * 8_200} HTTP/1.1\r\n{HOST}\r\n', 414, 'uri_too_long'),
        ('GET /' + 'a' * 100_000, 414, 'uri_too_long'),
        ('a' * 9_000, 414, 'uri_too_long'),
        (f'GET / HTTP/1.1\r\n{HOST}A: {"b" * 40_000}\r\n\r\n', 431, 'headers_too_large'),
        (f'GET / HTTP/1.1\r\n{HOST}' + 'A: b\r\n' * 101 + '\r\n', 431, 'headers_too_large'),
        (f'GET / HTTP/1.1\r\n{HOST}' + 'A: b\r\n' * 50_000, 431, 'headers_too_large'),
    ],
    ids=range(6),
)
def test_a_request_over_a_limit_is_refused_before_its_end(
    text: str, status: int, code: str, step: int
) -> None:
    """A request line or header section over its limit is refused, also when its end never comes."""
    assert fault_of(text, step) == (status, code)


def requests_at_limits(excess: int) -> Iterator[tuple[str, tuple[int, str]]]:
    """A request at each limit, or `excess` over it, and the status and code with which it would be refused."""
    line = 'GET / HTTP/1.0'
    long_path = 'a' * (LINE_LIMIT + excess - len(line))
    yield f'GET /{long_path} HTTP/1.0\r\n\r\n', (414, 'uri_too_long')
    section = f'{line}\r\nA: '
    yield (
        section + 'b' * (HEADER_SECTION_LIMIT + excess - len(section)) + '\r\n\r\n',
        (431, 'headers_too_large'),
    )
    yield f'{line}\r\n' + 'A: b\r\n' * (FIELD_LIMIT + excess) + '\r\n', (431, 'headers_too_large')


@pytest.mark.parametrize('step', [1, 4096, AT_ONCE])
def test_the_limits_are_exact(step: int) -> None:
    """What has exactly as many bytes or fields as a limit allows is a request; one more is refused."""
    for text, _ in requests_at_limits(0):
        assert receive(text, step).method == 'GET'
    for text, fault in requests_at_limits(1):
        assert fault_of(text, step) == fault


def test_what_clients_send_is_below_the_limits() -> None:
    """A request line of 8,000 bytes (RFC 9112 3) and header fields of 8 kB together are accepted."""
    fields = ''.join(f'X-Field-{number}: {"x" * 70}\r\n' for number in range(90))
    line = 'GET /? HTTP/1.0'
    long_line = line.replace('?', '?' + 'a' * (8_000 - len(line)))
    assert len(long_line) == 8_000
    assert receive(f'{long_line}\r\n{fields}\r\n').path == '/'


@pytest.mark.parametrize(
    'received', [b'', b'G', b'GET / HTTP/1.1\r\n\r', b'GET / HTTP/1.1\r\nHost: a']
)
def test_an_incomplete_request_has_no_end_yet(received: bytes) -> None:
    """As long as a valid request may follow, there is neither an end nor an error."""
    assert end_of_header_section(received) is None


@pytest.mark.parametrize(
    ('version_and_fields', 'keep_alive'),
    [
        ('HTTP/1.0\r\n', False),
        (f'HTTP/1.0\r\n{HOST}', False),
        ('HTTP/1.0\r\nConnection: Keep-Alive\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Connection: Close\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Connection: x, close\r\n', False),
        (f'HTTP/1.1\r\n{HOST}', True),
        (f'HTTP/1.1\r\n{HOST}Content-Length: 0\r\n', True),
        (f'HTTP/1.1\r\n{HOST}Content-Length: 00\r\n', True),
        (f'HTTP/1.1\r\n{HOST}Content-Length: 26\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Transfer-Encoding: gzip, Chunked\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Connection: closet\r\n', True),
        (f'HTTP/1.1\r\n{HOST}Content-Length: 26\r\nTransfer-Encoding: chunked\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 26\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Content-Length: 000000000026\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Content-Length: {"9" * 5_000}\r\n', False),
    ],
)
def test_which_requests_keep_the_connection(version_and_fields: str, *, keep_alive: bool) -> None:
    """HTTP/1.1 keeps the connection unless the client wants it closed or the request has a body; HTTP/1.0 does not."""
    assert receive(f'GET / {version_and_fields}\r\n').keep_alive == keep_alive


@pytest.mark.parametrize(
    ('version_and_fields', 'is_last'),
    [
        ('HTTP/1.0\r\n', True),
        (f'HTTP/1.1\r\n{HOST}Connection: close\r\n', True),
        (f'HTTP/1.1\r\n{HOST}', False),
        ('HTTP/1.0\r\nContent-Length: 5\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Connection: close\r\nContent-Length: 5\r\n', False),
        (f'HTTP/1.1\r\n{HOST}Connection: close\r\nTransfer-Encoding: chunked\r\n', False),
    ],
)
def test_after_which_requests_nothing_comes(version_and_fields: str, *, is_last: bool) -> None:
    """A client that has announced the end sends nothing more, except the body of that request."""
    assert receive(f'GET / {version_and_fields}\r\n').is_last is is_last


@pytest.mark.parametrize(
    ('cache_control', 'max_age'),
    [
        ('max-age=60', 60), ('MAX-AGE=60', 60), ('no-transform, max-age="60"', 60), ('max-age=0', 0),
        ('no-cache', 0), ('no-cache, max-age=60', 0), ('only-if-cached', None), ('x-max-age=60', None),
        ('private="max-age=60"', None), ('max-age=', None), ('max-age=-1', None), ('', None),
    ],
)  # fmt: skip
def test_the_age_that_a_client_accepts(cache_control: str, max_age: float | None) -> None:
    """Cache-Control states the accepted age in seconds: none with no-cache, unknown without max-age."""
    assert (
        receive(f'GET / HTTP/1.1\r\n{HOST}Cache-Control: {cache_control}\r\n\r\n').max_age
        == max_age
    )


@pytest.mark.parametrize(
    ('prefer', 'wait'),
    [
        ('wait=5', 5), ('respond-async, WAIT=1; x=y', 1), ('wait = "7"', 7), ('wait=0', 0),
        ('await=5', None), ('wait', None), ('wait=-1', None), ('', None),
    ],
)  # fmt: skip
def test_the_wait_that_a_client_prefers(prefer: str, wait: float | None) -> None:
    """Prefer states the longest wait in seconds (RFC 7240 4.3); without `wait` it is unknown."""
    assert receive(f'GET / HTTP/1.1\r\n{HOST}Prefer: {prefer}\r\n\r\n').wait == wait


def test_what_a_client_does_not_state_is_unknown() -> None:
    """Without Cache-Control and Prefer neither the accepted age nor the preferred wait is known."""
    request = receive(f'GET / HTTP/1.1\r\n{HOST}\r\n')
    assert request.max_age is None
    assert request.wait is None


class Events:
    """Events of a response, which count how often they are closed."""

    closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter([b'data: 1\n\n'])

    def close(self) -> None:
        self.closed += 1


def test_a_response_on_the_wire() -> None:
    """Status line, fields of the server, those of the response, which replace them, type, length, an empty line."""
    response = Response(b'{}\n', headers={'Age': '3', 'Server': 'other'})
    assert response.header_section({'Server': 'test', 'Date': 'now'}) == (
        b'HTTP/1.1 200 OK\r\nServer: other\r\nDate: now\r\nAge: 3\r\n'
        b'Content-Type: application/json\r\nContent-Length: 3\r\n\r\n'
    )


def test_events_have_no_length_and_are_closed() -> None:
    """A response with events does not announce a length, and close() releases what the events hold."""
    events = Events()
    response = Response(b': hello\n\n', 'text/event-stream', events=events)
    assert b'Content-Length' not in response.header_section({})
    response.close()
    assert events.closed == 1
    Response().close()


@pytest.mark.parametrize('fault', Fault)
def test_a_problem_detail_names_the_fault(fault: Fault) -> None:
    """Each fault is a problem detail (RFC 9457) that is never stored; with 503 comes the time to try again."""
    response = problem(fault, 'what happened', {'X-More': 'yes'})
    document = json.loads(response.body)
    assert document == {
        'title': PHRASES_OF_RFC.get(fault, fault.status.phrase),
        'status': fault.status.value,
        'detail': 'what happened',
        'code': fault.code,
    }
    assert response.content_type == 'application/problem+json'
    assert response.headers['Cache-Control'] == 'no-store'
    assert response.headers['X-More'] == 'yes'
    assert ('Retry-After' in response.headers) == (fault.status == 503)


PHRASES_OF_RFC = {Fault.URI_TOO_LONG: 'URI Too Long'}
"""Where the phrase depends on the version of Python."""


def test_the_phrase_of_414_is_that_of_the_rfc() -> None:
    """The reason phrase and the title of 414 are those of RFC 9110 15.5.15 on every Python."""
    response = problem(Fault.URI_TOO_LONG, '')
    assert response.header_section({}).startswith(b'HTTP/1.1 414 URI Too Long\r\n')
    assert json.loads(response.body)['title'] == 'URI Too Long'
