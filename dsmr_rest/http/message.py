"""HTTP messages (RFC 9112): the bytes of a request to a Request, a Response to bytes.

Pure: it does not know sockets, the clock, the meter or which paths exist. It never sees a request's body: this server
only reads, so a request that has one gets its response, and its connection is closed. A line must end in CR LF: that a
bare LF may be accepted (RFC 9112 2.2) is not used, because programs between client and server may see other lines then.

Errors are problem details (RFC 9457) with a stable `code`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple, Protocol

from dsmr_rest.faults import Fault, IsWanted

LINE_LIMIT = 8_000
"""Bytes of a request line: what RFC 9112 3 recommends at least. The longest path that is served has fewer than 200."""
HEADER_SECTION_LIMIT = 16 * 1024
"""Bytes of a request line and its header section together."""
EMPTY_LINES_LIMIT = 16
"""Bytes of empty lines before a request. RFC 9112 2.2 asks to ignore at least one line."""
FIELD_LIMIT = 100
"""Header fields in a request."""
RETRY_AFTER = 5
"""Seconds after which a client is advised to try again when there is no reading."""
ALLOWED_METHODS = 'GET, HEAD, OPTIONS'
BEGINNING_OF_RESPONSES = b'HTTP/1.1 '
"""What every response begins with, whatever its status."""
DATES_KEPT = 64
"""Dates that http_date() remembers: within a second, all responses have the same few."""

_END_OF_SECTION = b'\r\n\r\n'
_BARE_END_OF_SECTION = b'\n\n'
_NAME_CHARACTER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_NAME = rf'{_NAME_CHARACTER}+'  # a token (RFC 9110 5.6.2): a method or the name of a field
_BEGINNING = re.compile(_NAME_CHARACTER.encode())
_REQUEST_LINE = re.compile(rf'({_NAME}) ([!-~]+) HTTP/1\.(\d)')
# The only control character that a value may have is the tab (RFC 9110 5.5).
_FIELD = re.compile(rf'({_NAME}):[ \t]*([^\0-\x08\x0a-\x1f\x7f]*?)[ \t]*')
_ABSOLUTE_FORM = re.compile(r'https?://([^/?]+)(/?.*)', re.IGNORECASE)
_HOST = re.compile(r'(\[[^\[\]/?#@\s]*\]|[^\[\]:/?#@\s]*)(?::\d*)?')
_CONTENT_LENGTH = re.compile(r'[0-9]+')
_MAX_AGE = re.compile(r'(?:^|,)\s*max-age="?(\d{1,9})')
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})')

_FIELDS_OF_ONE_VALUE = ('host', 'content-length', 'authorization')
_CODINGS = frozenset(('chunked', 'compress', 'deflate', 'gzip', 'x-compress', 'x-gzip'))
"""The transfer codings that HTTP/1.1 has (RFC 9112 7)."""
_PHRASES = {HTTPStatus.REQUEST_URI_TOO_LONG: 'URI Too Long'}
"""Reason phrases of RFC 9110 that Python has only from 3.13 on."""
_STATUSES_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class EventStream(Protocol):
    """The events of a response that has no end. close() is called once, whether or not it was iterated."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


def always(_look_again: Callable[[], None]) -> bool:
    """For a request whose client cannot disconnect."""
    return True


class Request(NamedTuple):
    """One request.

    `path` is still percent-encoded and without its query. `host` is the host that the request is addressed to, in lower
    case, without port and final dot; an IP literal keeps its brackets, and it is empty when an HTTP/1.0 client does not
    state one. Header names are in lower case. `is_last` when the client sends nothing after this request, as it has
    announced (RFC 9112 9.6). `is_wanted` says whether the client is still there.
    """

    method: str
    path: str
    host: str
    headers: Mapping[str, str]
    keep_alive: bool
    is_last: bool
    is_wanted: IsWanted = always

    @property
    def max_age(self) -> float | None:
        """The age of a reading in seconds that the client accepts (RFC 9111 5.2.1); None when it does not say."""
        cache_control = self.headers.get('cache-control', '').lower()
        if 'no-cache' in cache_control:
            return 0.0
        return _seconds(_MAX_AGE, cache_control)

    @property
    def wait(self) -> float | None:
        """The seconds that the client prefers to wait at most (RFC 7240 4.3); None when it does not say."""
        return _seconds(_WAIT, self.headers.get('prefer', '').lower())


def _seconds(pattern: re.Pattern[str], text: str) -> float | None:
    match = pattern.search(text)
    if match is None:
        return None
    return float(match[1])


@lru_cache(DATES_KEPT)
def http_date(timestamp: int) -> str:
    """A date of a header field (RFC 9110 5.6.7), from whole seconds since 1970."""
    return formatdate(timestamp, usegmt=True)


class Response(NamedTuple):
    """One response; close() it after sending. With `events` it has no end: after the body come the events, live."""

    body: bytes = b''
    content_type: str = 'application/json'
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = MappingProxyType({})
    events: EventStream | None = None

    def close(self) -> None:
        """Releases what the events hold."""
        if self.events is not None:
            self.events.close()

    def header_section(self, fields: Mapping[str, str]) -> bytes:
        """The status line and the header section, with `fields` before those of the response itself."""
        all_fields = {**fields, **self.headers}
        if self.content_type:
            all_fields['Content-Type'] = self.content_type
        has_length = self.events is None and self.status not in _STATUSES_WITHOUT_BODY
        if has_length:
            all_fields['Content-Length'] = str(len(self.body))
        lines = [f'{self.status.value} {_phrase(self.status)}']
        lines += [f'{name}: {value}' for name, value in all_fields.items()]
        return BEGINNING_OF_RESPONSES + '\r\n'.join([*lines, '', '']).encode('latin-1')


def _phrase(status: HTTPStatus) -> str:
    return _PHRASES.get(status, status.phrase)


def problem(fault: Fault, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The response that reports a fault: a problem detail (RFC 9457), with Retry-After when trying again may help."""
    status = fault.status
    document = {
        'title': _phrase(status),
        'status': status.value,
        'detail': detail,
        'code': fault.code,
    }
    fields = {'Cache-Control': 'no-store'}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields['Retry-After'] = str(RETRY_AFTER)
    if headers:
        fields.update(headers)
    body = json.dumps(document, indent=3).encode() + b'\n'
    return Response(body, 'application/problem+json', status, fields)


TOO_MANY_CONNECTIONS = problem(
    Fault.TOO_MANY_CONNECTIONS,
    'too many clients are connected: try again later, or set [server] max_connections higher',
)

PLAIN_TEXT_REFUSED = Response(
    b'This server expects HTTPS: the URL must begin with https://\n',
    'text/plain; charset=us-ascii',
    HTTPStatus.BAD_REQUEST,
)
"""The response to plain HTTP at a port with TLS: for a person, who has mistyped a URL."""
EXHAUSTED = problem(
    Fault.SERVER_EXHAUSTED,
    'no thread can be started or no file descriptor is left for this client: there are too many clients or processes,'
    ' or the memory of the machine is full; try again later',
)


class HttpError(Exception):
    """A request that gets a problem detail instead of what it asked for."""

    def __init__(self, fault: Fault, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.response = problem(fault, detail, headers)


def end_of_header_section(received: bytes) -> int | None:
    """Where the header section ends in what a client has sent so far; None when more of it must come.

    Raises HttpError as soon as it is certain that no valid header section can come: so a client that sends something
    else, or too much, gets its response without the server waiting for an end.
    """
    if received and not _BEGINNING.match(received):  # TLS sent to a port without it, for example
        raise _line_malformed()
    end = received.find(_END_OF_SECTION)
    if end > HEADER_SECTION_LIMIT:
        raise _section_too_long()
    if end >= 0:
        return end
    if _BARE_END_OF_SECTION in received:
        raise HttpError(Fault.BAD_REQUEST, 'the lines of a request must end in CR LF')
    longest_line = LINE_LIMIT + len(b'\r\n')
    has_request_line = b'\n' in received[:longest_line]
    if len(received) >= longest_line and not has_request_line:
        raise _line_too_long()
    begin_of_end = len(_END_OF_SECTION) - 1
    if len(received) > HEADER_SECTION_LIMIT + begin_of_end:
        raise _section_too_long()
    return None


def expects_no_body(received: bytes) -> bool:
    """Whether the response to a request that begins so has no body, be the request valid or not (RFC 9110 9.3.2)."""
    return received.startswith(b'HEAD ')


def after_header_section(received: bytes, end: int) -> bytes:
    """What a client has sent after the header section that ends at `end`: the beginning of its next request."""
    return received[end + len(_END_OF_SECTION) :]


def skip_empty_lines(received: bytes, skipped: int) -> tuple[bytes, int]:
    """What was received without empty lines before the request (RFC 9112 2.2), and how many bytes of them there were.

    `skipped` is how many there were before. Raises HttpError when a client sends too many.
    """
    request = received.lstrip(b'\r\n')
    skipped += len(received) - len(request)
    if skipped > EMPTY_LINES_LIMIT:
        raise HttpError(Fault.BAD_REQUEST, 'too many empty lines before the request')
    return request, skipped


def parse_request(header_section: bytes, is_wanted: IsWanted = always) -> Request:
    """A request line and header section (RFC 9112) without the empty line that ends them. Raises HttpError.

    `is_wanted` is that of the request.
    """
    request_line, *field_lines = header_section.decode('latin-1').split('\r\n')
    if len(request_line) > LINE_LIMIT:
        raise _line_too_long()
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise _line_malformed()
    method, target, minor_version = match.groups()
    is_http_1_0 = minor_version == '0'
    headers = _parse_fields(field_lines)
    if 'host' not in headers and not is_http_1_0:
        raise HttpError(Fault.BAD_REQUEST, 'the header field Host is missing')
    host = _parse_host(headers.get('host', ''))
    absolute_form = _ABSOLUTE_FORM.fullmatch(target)
    if absolute_form is not None:  # its host replaces that of the header field (RFC 9112 3.2.2)
        host = _parse_host(absolute_form[1])
        target = absolute_form[2]
        if not target.startswith('/'):
            target = f'/{target}'
    elif not _is_target_of(method, target):
        raise HttpError(Fault.BAD_REQUEST, 'the request target must be a path that begins with /')
    # HTTP/1.0 has no keep-alive unless both sides negotiate it. A body is not read, so nothing after it can be.
    wants_to_close = is_http_1_0 or 'close' in _list(headers.get('connection', ''))
    has_body = _has_body(headers)
    path, _, _ = target.partition('?')
    return Request(
        method=method,
        path=path,
        host=host,
        headers=headers,
        keep_alive=not (wants_to_close or has_body),
        is_last=wants_to_close and not has_body,
        is_wanted=is_wanted,
    )


def _is_target_of(method: str, target: str) -> bool:
    """Whether a method may have this request target, other than the absolute form (RFC 9112 3.2)."""
    is_asterisk_form = method == 'OPTIONS' and target == '*'
    is_authority_form = method == 'CONNECT'
    return target.startswith('/') or is_asterisk_form or is_authority_form


def _parse_fields(lines: list[str]) -> dict[str, str]:
    if len(lines) > FIELD_LIMIT:
        raise _section_too_long()
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise HttpError(
                Fault.BAD_REQUEST, 'a header field is malformed: it must be like Accept: text/plain'
            )
        name = match[1].lower()
        value = match[2]
        if name not in headers:
            headers[name] = value
        elif name in _FIELDS_OF_ONE_VALUE:
            raise HttpError(Fault.BAD_REQUEST, f'the header field {name} is repeated')
        else:  # RFC 9110 5.3: repeated fields are one list
            headers[name] = f'{headers[name]}, {value}'
    return headers


def _parse_host(text: str) -> str:
    """The host of a Host field or an absolute form (RFC 9110 7.2): an IP literal in brackets or a name."""
    match = _HOST.fullmatch(text)
    if match is None:
        raise HttpError(Fault.BAD_REQUEST, 'the header field Host is malformed')
    return match[1].lower().rstrip('.')


def _has_body(headers: Mapping[str, str]) -> bool:
    length = headers.get('content-length', '0')
    if not _CONTENT_LENGTH.fullmatch(length):
        raise HttpError(Fault.BAD_REQUEST, 'the header field Content-Length must be a whole number')
    is_length_zero = length.strip('0') == ''  # not int(): it refuses thousands of digits
    is_encoded = 'transfer-encoding' in headers
    if is_encoded:
        _check_transfer_encoding(headers['transfer-encoding'])
    return is_encoded or not is_length_zero


def _check_transfer_encoding(value: str) -> None:
    """Raises HttpError when the codings of a body are unknown (RFC 9112 6.1), or do not say where it ends (6.3)."""
    codings = _list(value)
    unknown = [coding for coding in codings if coding not in _CODINGS]
    if unknown:
        detail = 'the header field Transfer-Encoding names a coding that HTTP/1.1 does not have'
        raise HttpError(Fault.NOT_IMPLEMENTED, detail)
    is_delimited = codings.count('chunked') == 1 and codings[-1] == 'chunked'
    if not is_delimited:
        detail = 'the last coding in the header field Transfer-Encoding must be chunked, which must be there once'
        raise HttpError(Fault.BAD_REQUEST, detail)


def _list(value: str) -> list[str]:
    """The members of a list (RFC 9110 5.6.1) of words, in lower case; empty ones do not count."""
    members = [member.strip(' \t').lower() for member in value.split(',')]
    return [member for member in members if member]


def _line_malformed() -> HttpError:
    detail = 'the request line is malformed: it must be like GET / HTTP/1.1'
    return HttpError(Fault.BAD_REQUEST, detail)


def _line_too_long() -> HttpError:
    return HttpError(Fault.URI_TOO_LONG, f'a request line may have at most {LINE_LIMIT} bytes')


def _section_too_long() -> HttpError:
    detail = (
        f'a header section may have at most {HEADER_SECTION_LIMIT} bytes and {FIELD_LIMIT} fields'
    )
    return HttpError(Fault.HEADERS_TOO_LARGE, detail)
