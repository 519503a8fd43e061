"""HTTP around the meter: routes, limits and error answers (RFC 9110, 9112). Knows nothing of serial ports.

A connection has its own thread. It reads one request at a time, the whole of it before a deadline, and sends each
answer in one write. What an answer says is made by a route: a function from server and request to Answer, one entry in
ROUTES; every other path is a JSON Pointer (RFC 6901) into the reading. Errors are problem details (RFC 9457).
"""

import base64
import hashlib
import hmac
import ipaddress
import logging
import math
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler
from typing import Any
from urllib.parse import unquote

from dsmr_rest import __version__, homewizard
from dsmr_rest.config import ConfigError, ServerSettings
from dsmr_rest.meter import Meter, Tally
from dsmr_rest.metrics import exposition
from dsmr_rest.p1_reader import MeterError
from dsmr_rest.reading import Reading, possible_keys, render

log = logging.getLogger(__name__)

REQUEST_TIME = 10.0
"""Seconds for the head of a request, from its first byte to its last, and for TLS to be agreed on."""
IDLE_TIME = 30.0
"""Seconds that a connection may stay open between requests."""
SPARE_TIME = 2.0
"""Seconds of waiting for a request after which a connection makes room for a new one when all are taken."""
SEND_TIME = 10.0
"""Seconds for a client to take an answer."""
LINGER_TIME = 1.0
"""Seconds in which a client may still send behind the last answer: closing at once would destroy it (RFC 9112 9.6)."""
LINE_LIMIT = 4 * 1024
"""Bytes of a request line; the longest path that is served has under 200."""
HEAD_LIMIT = 16 * 1024
"""Bytes of a request's head."""
FIELD_LIMIT = 100
"""Header fields in a request."""
TOO_LONG = f'the head of a request has at most {HEAD_LIMIT} bytes'
RETRY_AFTER = 5
"""Seconds to advise a client when the meter is away."""
STOP_TIME = 0.4
"""Seconds for the last answers to go out; the meter's end takes up to 1 s of the 2 s that stopping may take."""
STREAM_BEAT = 15.0
"""Seconds after which a stream says something although there is no reading, so that its client knows it is alive."""
STREAM_RETRY = 1.0
"""Seconds between attempts to open a lost port for a stream, and that the port stays open for its next reading."""
POLL_TIME = 9.5
"""Seconds to answer a poller: Prometheus and Home Assistant give up after 10."""
SCRAPE_MARGIN = 0.5
"""Seconds before the end of Prometheus's patience by which a scrape is answered."""
HEALTH_AGE = 60.0
"""Seconds: /health takes a reading when the last one is older."""

DASHBOARD_POLICY = {
    'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    'Referrer-Policy': 'no-referrer',
}
METHODS = 'GET, HEAD, OPTIONS'
LOCAL_SUFFIXES = ('.local', '.lan', '.home', '.internal', '.home.arpa')

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.([01])")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")
_HOST = re.compile(r'(?:\[([^\[\]/?#@\s]*)\]|([^\[\]:/?#@\s]*))(?::\d*)?')
_MAX_AGE = re.compile(r'\bmax-age="?(\d{1,9})')
_INDEX = re.compile(r'0|[1-9]\d{0,8}')  # RFC 6901: no leading zeros
_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})')

_SECONDS = re.compile(r'\d{1,4}(\.\d{1,9})?')

_STATUS = {
    'meter_silent': HTTPStatus.GATEWAY_TIMEOUT,
    'line_garbled': HTTPStatus.GATEWAY_TIMEOUT,
    'checksum_failed': HTTPStatus.GATEWAY_TIMEOUT,
    'telegram_incomplete': HTTPStatus.GATEWAY_TIMEOUT,
    'decryption_failed': HTTPStatus.BAD_GATEWAY,
}
"""Of the meter's errors; the others are 503: they pass when the port is there again."""

_CODES = {
    HTTPStatus.BAD_REQUEST: 'bad_request',
    HTTPStatus.UNAUTHORIZED: 'unauthorized',
    HTTPStatus.NOT_FOUND: 'not_found',
    HTTPStatus.METHOD_NOT_ALLOWED: 'method_not_allowed',
    HTTPStatus.REQUEST_TIMEOUT: 'request_timeout',
    HTTPStatus.REQUEST_URI_TOO_LONG: 'uri_too_long',
    HTTPStatus.MISDIRECTED_REQUEST: 'misdirected_request',
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: 'headers_too_large',
    HTTPStatus.INTERNAL_SERVER_ERROR: 'internal_error',
}


class HttpError(Exception):
    """A request that gets a problem detail instead of what it asked for."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.answer = problem(status, _CODES[status], detail, headers)


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

    def deadline(self, timeout: float) -> float:
        """When to give up (monotonic): after `timeout` s, or earlier as the client prefers (RFC 7240 4.3)."""
        match = _WAIT.search(self.headers.get('prefer', '').lower())
        return time.monotonic() + (min(timeout, float(match[1])) if match else timeout)


@dataclass(frozen=True)
class Answer:
    """What a route answers; `events` instead of a body for an answer without end."""

    body: bytes
    content_type: str = 'application/json'
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    events: Generator[bytes, None, None] | None = None


def problem(status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Answer:
    """A problem detail (RFC 9457)."""
    body = render({'title': status.phrase, 'status': status.value, 'detail': detail, 'code': code})
    extra = {'Retry-After': str(RETRY_AFTER)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Answer(body, 'application/problem+json', status, {'Cache-Control': 'no-store', **extra, **(headers or {})})


def meter_problem(error: MeterError) -> Answer:
    """The answer when there is no reading."""
    return problem(_STATUS.get(error.code, HTTPStatus.SERVICE_UNAVAILABLE), error.code, error.detail)


def freshness(reading: Reading) -> dict[str, str]:
    """How old an answer is, in the field's own terms (RFC 9111)."""
    return {
        'Age': str(int(time.monotonic() - reading.arrived)),
        'Last-Modified': formatdate(reading.received, usegmt=True),
        'Cache-Control': 'no-cache',
    }


TOO_MANY = problem(
    HTTPStatus.SERVICE_UNAVAILABLE,
    'too_many_connections',
    'as many clients as [server] max_connections allows are connected: try again, or set it higher',
)

Route = Callable[['HttpServer', Request], Answer]


def whole_reading(server: 'HttpServer', request: Request) -> Answer:
    """GET /."""
    reading = server.reading(request)
    return Answer(reading.json, headers=freshness(reading))


def part_of_reading(server: 'HttpServer', request: Request) -> Answer:
    """GET /<JSON Pointer>. A first key that no specification can give is unknown without asking the meter."""
    unknown = HttpError(HTTPStatus.NOT_FOUND, f'nothing is at {request.path}')
    try:
        keys = [
            unquote(key, errors='strict').replace('~1', '/').replace('~0', '~') for key in request.path.split('/')[1:]
        ]
    except UnicodeDecodeError:
        raise unknown from None
    if keys[0] not in server.keys:
        raise unknown
    reading = server.reading(request)
    value: Any = reading.document
    try:
        for key in keys:
            value = value[int(key) if isinstance(value, list) and _INDEX.fullmatch(key) else key]
    except (KeyError, IndexError, TypeError):
        raise unknown from None
    return Answer(render(value), headers=freshness(reading))


def telegram(server: 'HttpServer', request: Request) -> Answer:
    """GET /telegram: as it came."""
    return _as_it_came(server.reading(request))


def _as_it_came(reading: Reading) -> Answer:
    return Answer(reading.telegram, 'text/plain; charset=iso-8859-1', headers=freshness(reading))


def health(server: 'HttpServer', request: Request) -> Answer:
    """GET /health: whether readings can be had, why not, and what happened since the start."""
    error: MeterError | None = None
    try:
        server.reading(request, max_age=HEALTH_AGE)
    except MeterError as caught:
        error = caught
    latest = server.meter.latest
    document = {
        'status': 'unavailable' if error else 'ok',
        'code': error.code if error else 'ok',
        'detail': error.detail if error else 'readings can be had',
        'ageOfLastReading': round(time.monotonic() - latest.arrived, 1) if latest else None,
        'specification': latest and latest.specification,
        'specificationUnsure': latest and latest.unsure,
        'linesNotUnderstood': latest and list(latest.not_understood),
        'counters': server.meter.counters() | {'requestsByStatus': server.answers.counts()},
        'version': __version__,
    }
    status = HTTPStatus.SERVICE_UNAVAILABLE if error else HTTPStatus.OK
    headers = {'Cache-Control': 'no-store'} | ({'Retry-After': str(RETRY_AFTER)} if error else {})
    return Answer(render(document), status=status, headers=headers)


def stream(server: 'HttpServer', _: Request) -> Answer:
    """GET /stream: server-sent events, a reading each; `event: problem` when the meter is lost."""
    if len(server.streams) >= min(server.settings.max_streams, server.settings.max_connections - 1):
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            'too_many_connections',
            'as many streams as [server] max_streams allows are open: try again, or set it higher',
        )
    return Answer(b'', 'text/event-stream', headers={'Cache-Control': 'no-store'}, events=_events(server))


def _events(server: 'HttpServer') -> Generator[bytes, None, None]:
    mark, reading, trouble = object(), None, ''
    server.streams.add(mark)
    try:
        yield b': readings follow\n\n'
        spoke = time.monotonic()
        while not server.stopping:
            try:
                wait = min(STREAM_BEAT, server.meter.reader.settings.timeout)
                reading = server.meter.read(time.monotonic() + wait, 0, after=reading, keep_open=STREAM_RETRY)
                event, trouble = b'id: %.3f\ndata: %s\n\n' % (reading.received, reading.line), ''
            except MeterError as error:
                event = b': no reading\n\n'
                if error.code != trouble:
                    details = b' '.join(meter_problem(error).body.split())
                    event, trouble = b'event: problem\ndata: %s\n\n' % details, error.code
                elif time.monotonic() - spoke < STREAM_BEAT:
                    time.sleep(STREAM_RETRY)
                    continue
            yield event
            spoke = time.monotonic()
    finally:
        server.streams.discard(mark)


def polled(server: 'HttpServer', request: Request, patience: float = POLL_TIME) -> Reading:
    """The reading for a client that asks again and again."""
    return server.meter.poll(request.deadline(min(patience, server.meter.reader.settings.timeout)))


def metrics(server: 'HttpServer', request: Request) -> Answer:
    """GET /metrics: always 200; without a reading it says dsmr_up 0 and shows no values."""
    given = request.headers.get('x-prometheus-scrape-timeout-seconds', '')
    patience = max(0.0, float(given) - SCRAPE_MARGIN) if _SECONDS.fullmatch(given) else POLL_TIME
    reading = None
    with suppress(MeterError):
        reading = polled(server, request, patience)
    body, content_type = exposition(
        reading,
        time.monotonic() - reading.arrived if reading else None,
        server.meter.counters(),
        server.answers.counts(),
        accept=request.headers.get('accept', ''),
        identifiers=server.settings.metrics_identifiers,
    )
    return Answer(body, content_type, headers={'Cache-Control': 'no-store', 'Vary': 'Accept'})


def homewizard_device(server: 'HttpServer', request: Request) -> Answer:
    """GET /api."""
    return Answer(render(homewizard.device(polled(server, request))), headers={'Cache-Control': 'no-store'})


def homewizard_data(server: 'HttpServer', request: Request) -> Answer:
    """GET /api/v1/data."""
    reading = polled(server, request)
    return Answer(render(homewizard.data(reading)), headers=freshness(reading))


def homewizard_telegram(server: 'HttpServer', request: Request) -> Answer:
    """GET /api/v1/telegram."""
    return _as_it_came(polled(server, request))


def _file(name: str, content_type: str, headers: Mapping[str, str] | None = None) -> Route:
    """A route for a file of the package, which a client may keep and ask about (RFC 9110 13.1.2)."""
    body = Path(__file__).with_name(name).read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    fields = {'ETag': tag, 'Cache-Control': 'no-cache', **(headers or {})}

    def route(_: 'HttpServer', request: Request) -> Answer:
        known = request.headers.get('if-none-match', '')
        if known == '*' or tag in known:
            return Answer(b'', '', HTTPStatus.NOT_MODIFIED, fields)
        return Answer(body, content_type, headers=fields)

    return route


ROUTES: dict[str, Route] = {
    '/': whole_reading,
    '/telegram': telegram,
    '/stream': stream,
    '/metrics': metrics,
    '/health': health,
    '/dashboard': _file('dashboard.html', 'text/html; charset=utf-8', DASHBOARD_POLICY),
    '/openapi.json': _file('openapi.json', 'application/json'),
}
HOMEWIZARD_ROUTES: dict[str, Route] = {
    '/api': homewizard_device,
    '/api/v1/data': homewizard_data,
    '/api/v1/telegram': homewizard_telegram,
}


class HttpServer(ThreadingHTTPServer):
    """The server: listening when made, answering in serve_forever(), gone after close()."""

    daemon_threads = True
    request_queue_size = 1024  # a burst waits here instead of being lost; the system's own limit may be lower

    def __init__(self, settings: ServerSettings, meter: Meter, *, verbose: bool = False) -> None:
        self.settings = settings
        self.meter = meter
        self.answers = Tally()
        self.routes = ROUTES | HOMEWIZARD_ROUTES if settings.homewizard_api else ROUTES
        self.streams: set[object] = set()  # as refused
        self.keys = possible_keys()
        self.verbose = verbose
        self.stopping = False
        # Since when each connection has been silent; not at all while it is answered. These two are changed by single
        # operations of the interpreter only, so they need no lock.
        self.connections: dict[socket.socket, float] = {}
        self.refused: set[socket.socket] = set()
        self._woken, self.wake = socket.socketpair()
        self.wake.setblocking(False)
        self.tls = _tls(settings)
        self._own_names = {'localhost', socket.gethostname().lower(), *settings.hosts}
        self._credentials = base64.b64encode(f'{settings.user}:{settings.password}'.encode())
        self._needs_credentials = bool(settings.user and settings.password)
        try:
            super().__init__(self._address(settings), Connection)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one
            where = f'[server] host = {settings.host or "every address"}, port = {settings.port}'
            raise ConfigError(f'{where}: {getattr(error, "strerror", None) or error}') from error

    def _address(self, settings: ServerSettings) -> tuple[str, int]:
        if not settings.host and socket.has_dualstack_ipv6():
            self.address_family = socket.AF_INET6
            return '::', settings.port
        family, _, _, _, address = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        return str(address[0]), settings.port

    def server_bind(self) -> None:
        # Not http.server's, which asks the name service for its own name and may wait for it.
        if self.address_family == socket.AF_INET6 and not self.settings.host:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @property
    def urls(self) -> list[str]:
        """Where it can be reached."""
        scheme, port = 'https' if self.tls else 'http', self.server_address[1]
        host = self.settings.host
        names = [f'[{host}]' if ':' in host else host] if host else ['localhost', socket.gethostname()]
        return [f'{scheme}://{name}:{port}/' for name in names]

    def reading(self, request: Request, max_age: float | None = None) -> Reading:
        """The reading that a request asks for. Raises MeterError."""
        asked = request.max_age
        return self.meter.read(
            request.deadline(self.meter.reader.settings.timeout), max_age if asked is None else asked
        )

    def answer(self, request: Request) -> Answer:
        """What a request gets; raises HttpError."""
        self._check_host(request.headers.get('host', ''))
        if request.method == 'OPTIONS':
            return Answer(b'', '', HTTPStatus.NO_CONTENT, {'Allow': METHODS} | self._preflight())
        self._check_credentials(request.headers.get('authorization', ''))
        if request.method not in ('GET', 'HEAD'):
            raise HttpError(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f'{request.method} is not served: this server only reads',
                {'Allow': METHODS},
            )
        try:
            return self.routes.get(request.path, part_of_reading)(self, request)
        except MeterError as error:
            return meter_problem(error)

    def head(self, answer: Answer, *, keep_alive: bool) -> bytes:
        """An answer's status line and header fields."""
        fields = {'Date': formatdate(usegmt=True), 'Server': 'dsmr-rest-server'} | dict(answer.headers)
        if answer.content_type:
            fields['Content-Type'] = answer.content_type
        if not answer.events and answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            fields['Content-Length'] = str(len(answer.body))
        fields['X-Content-Type-Options'] = 'nosniff'
        if self.settings.cors_origin:
            fields['Access-Control-Allow-Origin'] = self.settings.cors_origin
            fields['Access-Control-Expose-Headers'] = 'Age, Last-Modified, Retry-After'
        if not keep_alive:
            fields['Connection'] = 'close'
        lines = [f'HTTP/1.1 {answer.status.value} {answer.status.phrase}', *(f'{k}: {v}' for k, v in fields.items())]
        return '\r\n'.join([*lines, '', '']).encode('latin-1')

    def _preflight(self) -> dict[str, str]:
        if not self.settings.cors_origin:
            return {}
        return {
            'Access-Control-Allow-Methods': METHODS,
            'Access-Control-Allow-Headers': 'Authorization, Cache-Control, Prefer',
            'Access-Control-Max-Age': '86400',
        }

    def _check_host(self, host: str) -> None:
        # A page elsewhere can have its own name resolve to this machine (DNS rebinding): then the name tells.
        address, name = _HOST.fullmatch(host).groups()  # type: ignore[union-attr] # parse() has seen to it
        name = (name or '').lower().rstrip('.')
        if not address and ('.' not in name or name in self._own_names or name.endswith(LOCAL_SUFFIXES)):
            return
        try:
            ipaddress.ip_address((address or name).partition('%')[0])
        except ValueError:
            raise HttpError(
                HTTPStatus.MISDIRECTED_REQUEST, 'this server is not known by that name: add it to [server] hosts'
            ) from None

    def _check_credentials(self, authorization: str) -> None:
        if not self._needs_credentials:
            return
        scheme, _, given = authorization.partition(' ')
        if scheme.lower() == 'basic' and hmac.compare_digest(given.strip().encode(), self._credentials):
            return
        raise HttpError(
            HTTPStatus.UNAUTHORIZED,
            'user and password are needed',
            {'WWW-Authenticate': 'Basic realm="smart meter", charset="UTF-8"'},
        )

    def get_request(self) -> tuple[Any, Any]:
        connection, address = self.socket.accept()
        if self.tls:  # the handshake comes in the connection's own thread
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        # In the accepting thread: nothing here may wait for a client.
        if len(self.connections) < self.settings.max_connections or self._make_room():
            self.connections[request] = time.monotonic()
        elif len(self.refused) < self.settings.max_connections:
            self.refused.add(request)
        else:  # enough are being told in peace that there are too many
            if not self.tls:
                with suppress(OSError):
                    request.send(self.head(TOO_MANY, keep_alive=False) + TOO_MANY.body, socket.MSG_DONTWAIT)
            super().shutdown_request(request)
            return
        super().process_request(request, client_address)

    def _make_room(self) -> bool:
        """Hangs up on whoever has been silent for longest, if that is long."""
        silent, since = min(list(self.connections.items()), key=lambda item: item[1], default=(None, 0.0))
        if silent and time.monotonic() - since < SPARE_TIME:
            return False
        if silent:
            self._hang_up(silent)
        return True

    def _hang_up(self, connection: socket.socket) -> None:
        self.connections.pop(connection, None)
        with suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # a TLS socket's own would disturb its thread

    def shutdown_request(self, request: Any) -> None:
        self.connections.pop(request, None)
        self.refused.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the signature is the library's
        """An edge of the design: a connection that fails is its own affair."""
        log.exception('a connection failed')  # noqa: LOG004 called where the exception is handled

    def serve_forever(self, poll_interval: float = 0) -> None:  # noqa: ARG002 the library's, which wakes to look around
        """Answers until end() is called. Sleeps while nobody asks."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self.stopping:
                if any(key.fileobj is self.socket for key, _ in selector.select()):
                    self._handle_request_noblock()  # type: ignore[attr-defined] # not in the library's stubs

    def end(self, *_: object) -> None:
        """Has serve_forever() return; a signal handler too, whose signal cannot come too early to be seen."""
        self.stopping = True
        self.wake.send(b'.')

    def close(self) -> None:
        """Behind serve_forever(): ends the meter's waits, lets the answers out and hangs up on everyone, within 2 s."""
        self.stopping = True
        self.server_close()
        self.meter.stop()
        deadline = time.monotonic() + STOP_TIME
        while math.inf in list(self.connections.values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for connection in list(self.connections):
            self._hang_up(connection)
        self._woken.close()
        self.wake.close()


class Connection(BaseRequestHandler):
    """One client: its requests one after another, each read whole before a deadline."""

    server: HttpServer
    request: socket.socket

    def setup(self) -> None:
        self._received = b''

    def handle(self) -> None:
        # OSError: the client hung up or did not take its answer in time, which is its right and no news.
        with suppress(OSError):
            if self.server.tls:
                self.request.settimeout(REQUEST_TIME)
                self.request.do_handshake()  # type: ignore[attr-defined]
            if self.request in self.server.refused:
                self._send(None, TOO_MANY)
            else:
                while self._serve_one():
                    pass
            self._linger()

    def _serve_one(self) -> bool:
        """Answers one request. False when the connection must end."""
        request: Request | None = None
        try:
            head = self._head()
            if head is None:
                return False
            request = parse(head)
            answer = self.server.answer(request)
        except HttpError as error:
            answer = error.answer
        except OSError:
            raise  # the client hung up
        except Exception:
            log.exception('a request failed')
            answer = problem(
                HTTPStatus.INTERNAL_SERVER_ERROR, 'internal_error', 'an error of this server; its log has it'
            )
        return self._send(request, answer)

    def _head(self) -> bytes | None:
        """The head of the next request; None when the client has none. Raises HttpError."""
        server, now = self.server, time.monotonic()
        server.connections[self.request] = now
        deadline = now + (REQUEST_TIME if self._received else IDLE_TIME)
        searched = 0
        while (end := self._received.find(b'\r\n\r\n', max(0, searched - 3))) < 0:
            searched = len(self._received)
            if b'\n' not in self._received[: LINE_LIMIT + 1] and searched > LINE_LIMIT:
                raise HttpError(HTTPStatus.REQUEST_URI_TOO_LONG, f'a request line has at most {LINE_LIMIT} bytes')
            if searched > HEAD_LIMIT:
                raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LONG)
            data = self._receive(deadline)
            if not data:
                return None
            if not self._received:
                deadline = min(deadline, time.monotonic() + REQUEST_TIME)
            self._received = (self._received + data).lstrip(b'\r\n')  # RFC 9112 2.2: empty lines before a request
            if self._received and not self._received[:1].isalpha():  # TLS to a port without it, for one
                raise HttpError(HTTPStatus.BAD_REQUEST, 'the request line is malformed')
        if end > HEAD_LIMIT:
            raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LONG)
        server.connections[self.request] = math.inf
        head, self._received = self._received[:end], self._received[end + 4 :].lstrip(b'\r\n')
        return head

    def _receive(self, deadline: float) -> bytes:
        """What the client sends; nothing when it hung up or stayed idle. Raises HttpError for a slow request."""
        try:
            self.request.settimeout(max(0.001, deadline - time.monotonic()))
            return self.request.recv(8192)
        except TimeoutError:
            if not self._received:
                return b''
            raise HttpError(
                HTTPStatus.REQUEST_TIMEOUT, f'the head of a request must come within {REQUEST_TIME:g} s'
            ) from None

    def _send(self, request: Request | None, answer: Answer) -> bool:
        """Sends an answer; True when the connection can have another request."""
        keep = request is not None and request.keep_alive and not (answer.events or self.server.stopping)
        self.server.answers.add(str(answer.status.value))
        if self.server.verbose:
            asked = f'{request.method} {request.path}' if request else 'no request'
            log.info('%s: %s: %d', self.client_address[0], asked, answer.status)
        self.request.settimeout(SEND_TIME)
        with_body = request is None or request.method != 'HEAD'
        head = self.server.head(answer, keep_alive=keep)
        self.request.sendall(head + answer.body if with_body else head)
        if answer.events and with_body:
            with closing(answer.events) as events:
                for event in events:
                    self.request.sendall(event)
        return keep

    def _linger(self) -> None:
        self.request.settimeout(LINGER_TIME)
        socket.socket.shutdown(self.request, socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_TIME
        while time.monotonic() < deadline and socket.socket.recv(self.request, 8192):
            pass


def parse(head: bytes) -> Request:
    """A request's head (RFC 9112), without the empty line that ends it. Raises HttpError."""
    line, *fields = head.decode('latin-1').split('\r\n')
    match = _REQUEST_LINE.fullmatch(line)
    if len(line) > LINE_LIMIT:
        raise HttpError(HTTPStatus.REQUEST_URI_TOO_LONG, f'a request line has at most {LINE_LIMIT} bytes')
    if not match:
        raise HttpError(HTTPStatus.BAD_REQUEST, 'the request line is malformed')
    method, target, minor = match.groups()
    headers = _fields(fields)
    if target.lower().startswith(('http://', 'https://')):  # absolute form: its host counts
        headers['host'], _, target = target.partition('://')[2].partition('/')
        target = f'/{target}'
    if not target.startswith('/') and (method, target) != ('OPTIONS', '*'):
        raise HttpError(HTTPStatus.BAD_REQUEST, 'the target of the request must be a path')
    if minor == '1' and 'host' not in headers:
        raise HttpError(HTTPStatus.BAD_REQUEST, 'the header field Host is missing')
    if not _HOST.fullmatch(headers.get('host', '')):
        raise HttpError(HTTPStatus.BAD_REQUEST, 'the header field Host is malformed')
    length = headers.get('content-length', '0')
    if not (length.isascii() and length.isdigit()):
        raise HttpError(HTTPStatus.BAD_REQUEST, 'the header field Content-Length is malformed')
    has_body = 'transfer-encoding' in headers or length.strip('0') != ''
    # A body is not read, so nothing behind it can be; HTTP/1.0 clients would have to be told that they may go on.
    keep_alive = minor == '1' and not has_body and 'close' not in headers.get('connection', '').lower()
    return Request(method, target.partition('?')[0], headers, keep_alive)


def _fields(lines: list[str]) -> dict[str, str]:
    if len(lines) > FIELD_LIMIT:
        raise HttpError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f'a request has at most {FIELD_LIMIT} header fields'
        )
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if not match:
            raise HttpError(HTTPStatus.BAD_REQUEST, 'a header field is malformed')
        name = match[1].lower()
        if name in headers and name in ('host', 'content-length', 'authorization'):
            raise HttpError(HTTPStatus.BAD_REQUEST, f'the header field {name} comes twice')
        headers[name] = f'{headers[name]}, {match[2]}' if name in headers else match[2]
    return headers


def _tls(settings: ServerSettings) -> ssl.SSLContext | None:
    if not (settings.certificate and settings.private_key):
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An encrypted key is refused: there is nobody to ask for its pass phrase.
        context.load_cert_chain(settings.certificate, settings.private_key, password=lambda: '')
    except OSError as error:
        raise ConfigError(
            f'[server] certificate = {settings.certificate}, private_key = {settings.private_key}:'
            f' must be a certificate and its key, not encrypted, as PEM ({error})'
        ) from error
    return context
