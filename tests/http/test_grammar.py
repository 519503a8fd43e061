"""Which requests are valid, compared with h11's grammar: where the two differ, RFC 9110 and RFC 9112 decide.

The differences that may be, each with its reason, are in DIFFERENCES. All others fail the test.
"""

import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import h11
import pytest

from dsmr_rest.http.message import (
    HEADER_SECTION_LIMIT,
    HttpError,
    end_of_header_section,
    parse_request,
)

REQUESTS = [
    b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n',
    b'HEAD /telegram HTTP/1.0\r\n\r\n',
    b'OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\nConnection: close\r\n\r\n',
    b'GET /a/b?c=d HTTP/1.1\r\nhost: pi.local\r\nAccept: text/plain;q=0.5, */*\r\nPrefer: wait=5\r\n\r\n',
    b'GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n',
    b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX-Empty:\r\n\r\n',
    b'GET http://a/ HTTP/1.1\r\nHost: a\r\nAuthorization: Basic eDp5\r\n\r\n',
]
PIECES = [
    b' ', b'\t', b'\r', b'\n', b'\r\n', b'\0', b'\x0b', b'\x0c', b'\x1f', b'\x7f', b'\x80', b'\xff',
    b':', b'/', b'*', b',', b'"', b'a', b'!', b'-', b'{', b'@', b'[', b']',
    b'Host: b\r\n', b'Host:\r\n', b'\r\n folded',
    b'chunked', b'gzip, ', b'identity', b'Content-Length: 1\r\n', b'Content-Length: 1, 1\r\n',
    b'Transfer-Encoding: chunked\r\n', b'Transfer-Encoding: gzip, chunked\r\n',
]  # fmt: skip
VERSIONS = [
    b'HTTP/0.9',
    b'HTTP/1.0',
    b'HTTP/1.1',
    b'HTTP/1.2',
    b'HTTP/2.0',
    b'HTTP/1.10',
    b'http/1.1',
]
CONTROL_CHARACTERS = {0x7F, *range(0x20)} - set(b'\t\r\n')
MUTATIONS = 20_000


def mutated(request: bytes, chance: random.Random) -> bytes:
    """The request with another version now and then, and one to three pieces put in, left out or replaced."""
    if chance.random() < 1 / 8:
        request = re.sub(rb'HTTP/1\.[01]', chance.choice(VERSIONS), request)
    for _ in range(chance.randint(1, 3)):
        begin = chance.randrange(len(request) + 1)
        end = min(len(request), begin + chance.choice((0, 0, 1, 1, 2, 5)))
        piece = chance.choice((b'', *PIECES))
        request = request[:begin] + piece + request[end:]
    return request


def accepted_here(request: bytes) -> bool:
    """Whether the server would respond to what was requested. Requests that do not end are not valid."""
    try:
        end = end_of_header_section(request)
        if end is None:
            return False
        parse_request(request[:end])
    except HttpError:
        return False
    return True


def accepted_by_h11(request: bytes) -> bool:
    """The same in the eyes of h11."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_SECTION_LIMIT)
    try:
        connection.receive_data(request)
        return isinstance(connection.next_event(), h11.Request)
    except h11.RemoteProtocolError:
        return False


def lines_of(request: bytes) -> list[bytes]:
    """The request line and the field lines."""
    return request.partition(b'\r\n\r\n')[0].split(b'\r\n')


def values_of(request: bytes, name: bytes) -> list[bytes]:
    """The values of the fields of that name."""
    values = []
    for line in lines_of(request)[1:]:
        field, _, value = line.partition(b':')
        if field.lower() == name:
            values.append(value.strip(b' \t'))
    return values


def has_bare_line_end(request: bytes) -> bool:
    return b'\n' in request.replace(b'\r\n', b'')


def has_folded_line(request: bytes) -> bool:
    return any(line[:1] in (b' ', b'\t') for line in lines_of(request)[1:])


def has_other_target(request: bytes) -> bool:
    method, _, rest = lines_of(request)[0].partition(b' ')
    target = rest.rpartition(b' ')[0]
    is_absolute = target.lower().startswith((b'http://', b'https://'))
    is_asterisk = (method, target) == (b'OPTIONS', b'*')
    return not (target.startswith(b'/') or is_absolute or is_asterisk or method == b'CONNECT')


def has_odd_host(request: bytes) -> bool:
    target = lines_of(request)[0].split(b' ')[1:2]
    hosts = values_of(request, b'host')
    is_absolute = any(b'://' in part for part in target)
    return is_absolute or any(set(host) & set(b'/?#@[]: \t:,') for host in hosts)


def repeats_authorization(request: bytes) -> bool:
    return len(values_of(request, b'authorization')) > 1


def repeats_content_length(request: bytes) -> bool:
    lengths = values_of(request, b'content-length')
    return len(lengths) > 1 or any(b',' in length for length in lengths)


def has_known_coding_before_chunked(request: bytes) -> bool:
    codings = b','.join(values_of(request, b'transfer-encoding')).lower()
    return b',' in codings


def has_other_version(request: bytes) -> bool:
    return not lines_of(request)[0].endswith((b'HTTP/1.1', b'HTTP/1.0'))


def has_control_character(request: bytes) -> bool:
    return any(byte in CONTROL_CHARACTERS for byte in request)


def begins_with_empty_line(request: bytes) -> bool:
    return request[:1] in (b'\r', b'\n')


class Difference(NamedTuple):
    """Why the two may disagree about requests for which `explains` is true; `example` is one."""

    example: bytes
    explains: Callable[[bytes], bool]


GET = b'GET / HTTP/1.1\r\nHost: a\r\n'
ONLY_ACCEPTED_BY_H11 = [
    # RFC 9112 2.2: it may be taken for the end of a line; a program in between may see other lines then.
    Difference(GET + b'X: y\n\r\n', has_bare_line_end),
    # RFC 9112 5.2: an obsolete line folding must be refused or replaced.
    Difference(GET + b' folded\r\n\r\n', has_folded_line),
    # RFC 9110 5.5: control characters in a value are invalid, and may be kept where that is safe.
    Difference(GET + b'X: a\x1fb\r\n\r\n', has_control_character),
    # RFC 9112 3.2: h11 leaves the forms of a target to the application.
    Difference(b'GET telegram HTTP/1.1\r\nHost: a\r\n\r\n', has_other_target),
    # RFC 9112 3.2: a malformed Host must be refused; h11 leaves it to the application.
    Difference(b'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n', has_odd_host),
    # RFC 9110 5.3: a field that is no list may not be repeated.
    Difference(GET + b'Authorization: x\r\nAuthorization: x\r\n\r\n', repeats_authorization),
    # RFC 9112 6.3: a list of equal lengths may be taken for one, or refused.
    Difference(GET + b'Content-Length: 1, 1\r\n\r\n', repeats_content_length),
    # RFC 9110 2.5, RFC 9112 3.2: a major version that a server does not have may be refused; every HTTP/1.x but 1.0
    # needs a Host.
    Difference(b'GET / HTTP/2.0\r\nHost: a\r\n\r\n', has_other_version),
    Difference(b'GET / HTTP/1.2\r\n\r\n', has_other_version),
]
ONLY_ACCEPTED_HERE = [
    # RFC 9112 6.1: a body is not read here, so a coding that HTTP/1.1 has need not be understood; h11 has chunked only.
    Difference(GET + b'Transfer-Encoding: gzip, chunked\r\n\r\n', has_known_coding_before_chunked),
]
DIFFERENCES = {False: ONLY_ACCEPTED_BY_H11, True: ONLY_ACCEPTED_HERE}
"""By whether the request is accepted here: what explains that h11 does not agree."""


def unexplained(requests: Iterator[bytes]) -> list[bytes]:
    """The requests about which the two do not agree, and no difference that may be explains it."""
    found = []
    for request in requests:
        if begins_with_empty_line(request):  # these are skipped before a request is parsed
            continue
        is_accepted = accepted_here(request)
        if is_accepted == accepted_by_h11(request):
            continue
        if not any(difference.explains(request) for difference in DIFFERENCES[is_accepted]):
            found.append(request)
    return found


@pytest.mark.parametrize('seed', range(4))
def test_requests_are_valid_as_h11_has_it(seed: int) -> None:
    """Of thousands of mutated requests, the same are accepted as by h11, but for the known differences."""
    chance = random.Random(seed)
    requests = (mutated(chance.choice(REQUESTS), chance) for _ in range(MUTATIONS // 4))
    assert unexplained(requests) == []


def test_the_requests_are_valid_before_they_are_mutated() -> None:
    """What the mutations begin with is accepted by both."""
    for request in REQUESTS:
        assert accepted_here(request)
        assert accepted_by_h11(request)


@pytest.mark.parametrize('is_accepted', [True, False])
def test_every_difference_is_one(is_accepted: bool) -> None:
    """Each difference that is written down exists."""
    for number, difference in enumerate(DIFFERENCES[is_accepted]):
        assert accepted_here(difference.example) is is_accepted, number
        assert accepted_by_h11(difference.example) is not is_accepted, number
        assert difference.explains(difference.example), number
