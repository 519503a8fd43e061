"""HTTP messages (RFC 9112): a request's head to Request, an Response to bytes. Pure: no sockets, no clock, no meter.

Errors are problem details (RFC 9457) with a stable `code`.
"""

import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from dsmr_rest.faults import Fault

LINE_LIMIT = 4 * 1024
"""Bytes of a request line; the longest path that is served has under 200."""
HEAD_LIMIT = 16 * 1024
"""Bytes of a request's head."""
FIELD_LIMIT = 100
"""Header fields in a request."""
RETRY_AFTER = 5
"""Seconds to advise a client when the meter is away."""
METHODS = 'GET, HEAD, OPTIONS'

HOST = re.compile(r'(?:\[([^\[\]/?#@\s]*)\]|([^\[\]:/?#@\s]*))(?::\d*)?')
"""The field Host: an address in brackets or a name, and perhaps a port."""
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.(\d)")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")
_ABSOLUTE = re.compile(r'https?://([^/?]+)(/?.*)', re.IGNORECASE)
_MAX_AGE = re.compile(r'(?:^|,)\s*max-age="?(\d{1,9})')
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})')


class HttpError(Exception):
    """A request that gets a problem detail instead of what it asked for."""

    def __init__(self, fault: Fault, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.answer = problem(fault, detail, headers)


@dataclass(frozen=True)
class Request:
    """One request. `path` is still percent-encoded, header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    keep_alive: bool = False

    @property
    def max_age(self) -> float | None:
        """The age in seconds that the client accepts (RFC 9111 5.2.1); None when it does not say."""
        control = self.headers.get('cache-control', '').lower()
        if 'no-cache' in control:
            return 0.0
        match = _MAX_AGE.search(control)
        return float(match[1]) if match else None

    @property
    def wait(self) -> float | None:
        """The seconds that the client would wait at most (RFC 7240 4.3); None when it does not say."""
        match = _WAIT.search(self.headers.get('prefer', '').lower())
        return float(match[1]) if match else None


@dataclass(frozen=True)
class Response:
    """What a route answers; `events` instead of a body for an answer without end."""

    body: bytes
    content_type: str = 'application/json'
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Generator[bytes, None, None] | None = None

    def head(self, fields: Mapping[str, str]) -> bytes:
        """Its status line and header fields, with these before its own."""
        own = dict(self.headers)
        if self.content_type:
            own['Content-Type'] = self.content_type
        if not self.events and self.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            own['Content-Length'] = str(len(self.body))
        lines = [f'HTTP/1.1 {self.status.value} {self.status.phrase}']
        lines += [f'{name}: {value}' for name, value in {**fields, **own}.items()]
        return '\r\n'.join([*lines, '', '']).encode('latin-1')


def problem(fault: Fault, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem detail (RFC 9457)."""
    status = fault.status
    document = {'title': status.phrase, 'status': status.value, 'detail': detail, 'code': fault.code}
    body = json.dumps(document, indent=3).encode() + b'\n'
    extra = {'Retry-After': str(RETRY_AFTER)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(body, 'application/problem+json', status, {'Cache-Control': 'no-store', **extra, **(headers or {})})


def line_too_long() -> HttpError:
    """The error for a request line above LINE_LIMIT."""
    return HttpError(Fault.URI_TOO_LONG, f'a request line has at most {LINE_LIMIT} bytes')


def head_too_long() -> HttpError:
    """The error for a head above HEAD_LIMIT or FIELD_LIMIT."""
    return HttpError(
        Fault.HEADERS_TOO_LARGE,
        f'the head of a request has at most {HEAD_LIMIT} bytes and {FIELD_LIMIT} fields',
    )


def parse(head: bytes) -> Request:
    """A request's head (RFC 9112), without the empty line that ends it. Raises HttpError."""
    line, *fields = head.decode('latin-1').split('\r\n')
    match = _REQUEST_LINE.fullmatch(line)
    if len(line) > LINE_LIMIT:
        raise line_too_long()
    if not match:
        raise HttpError(Fault.BAD_REQUEST, 'the request line is malformed')
    method, target, minor = match.groups()
    headers = _fields(fields)
    absolute = _ABSOLUTE.fullmatch(target)
    if not (target.startswith('/') or absolute or (method, target) == ('OPTIONS', '*') or method == 'CONNECT'):
        raise HttpError(Fault.BAD_REQUEST, 'the target of the request must be a path')
    if minor != '0' and 'host' not in headers:
        raise HttpError(Fault.BAD_REQUEST, 'the header field Host is missing')
    hosts = [headers.get('host', '')]
    if absolute:  # its host counts
        headers['host'], target = absolute.groups()
        hosts.append(headers['host'])
        target = target if target.startswith('/') else f'/{target}'
    if not all(map(HOST.fullmatch, hosts)):
        raise HttpError(Fault.BAD_REQUEST, 'the header field Host is malformed')
    length = headers.get('content-length', '0')
    if not (length.isascii() and length.isdigit()):
        raise HttpError(Fault.BAD_REQUEST, 'the header field Content-Length is malformed')
    has_body = 'transfer-encoding' in headers or length.strip('0') != ''
    # A body is not read, so nothing behind it can be; HTTP/1.0 clients would have to be told that they may go on.
    keep_alive = minor != '0' and not has_body and 'close' not in headers.get('connection', '').lower()
    return Request(method, target.partition('?')[0], headers, keep_alive)


def _fields(lines: list[str]) -> dict[str, str]:
    if len(lines) > FIELD_LIMIT:
        raise head_too_long()
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if not match:
            raise HttpError(Fault.BAD_REQUEST, 'a header field is malformed')
        name = match[1].lower()
        if name in headers and name in ('host', 'content-length', 'authorization'):
            raise HttpError(Fault.BAD_REQUEST, f'the header field {name} comes twice')
        headers[name] = f'{headers[name]}, {match[2]}' if name in headers else match[2]
    return headers
