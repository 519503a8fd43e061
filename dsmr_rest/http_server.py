"""Connections, their limits and deadlines, who may ask, and the end. Knows nothing of serial ports.

A connection has its own thread. It reads one request at a time, the whole of it before a deadline, and sends each
answer in one write. What an answer says is made by a route (routes.py).
"""

import base64
import errno
import hmac
import ipaddress
import logging
import math
import os
import selectors
import socket
import ssl
import time
from contextlib import closing, nullcontext, suppress
from email.utils import formatdate
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler
from typing import Any
from urllib.parse import unquote

from dsmr_rest.config import ConfigError, ServerSettings
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.http_message import (
    HEAD_LIMIT,
    HOST,
    LINE_LIMIT,
    METHODS,
    HttpError,
    Request,
    Response,
    head_too_long,
    line_too_long,
    parse,
    problem,
)
from dsmr_rest.meter import Meter
from dsmr_rest.routes import HOMEWIZARD_ROUTES, ROUTES, Service, meter_problem, part_of_reading

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
MOST_REFUSED = 64
"""Clients that are told at a time, in peace, that there are too many: each takes a thread and a file descriptor."""
STOP_TIME = 0.4
"""Seconds for the last answers to go out; the meter's end takes up to 1 s of the 2 s that stopping may take."""
OUT_OF_FILES_PAUSE = 0.1
"""Seconds until the next client is accepted when there are no file descriptors left."""
LOCAL_SUFFIXES = ('.local', '.lan', '.home', '.internal', '.home.arpa')

TOO_MANY = problem(
    Fault.TOO_MANY_CONNECTIONS,
    'as many clients as [server] max_connections allows are connected: try again, or set it higher',
)


class HttpServer(ThreadingHTTPServer):
    """The server: listening when made, answering in serve_forever(), gone after close()."""

    daemon_threads = True
    request_queue_size = 1024  # a burst waits here instead of being lost; the system's own limit may be lower

    def __init__(self, settings: ServerSettings, meter: Meter, *, verbose: bool = False) -> None:
        self.settings = settings
        self.service = Service(settings, meter)
        self.routes = ROUTES | HOMEWIZARD_ROUTES if settings.homewizard_api else ROUTES
        self.verbose = verbose
        # Since when each connection has been silent; not at all while it is answered. These two are changed by single
        # operations of the interpreter only, so they need no lock.
        self.connections: dict[socket.socket, float] = {}
        self.refused: set[socket.socket] = set()
        self._woken, self.wake = os.pipe()
        os.set_blocking(self.wake, False)  # as signal.set_wakeup_fd() wants it
        self.tls = _tls(settings)
        self._own_names = {socket.gethostname().lower(), *settings.hosts}
        self._credentials = base64.b64encode(f'{settings.user}:{settings.password}'.encode())
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

    def answer(self, request: Request) -> Response:
        """What a request gets; raises HttpError."""
        self._check_host(request.headers.get('host', ''))
        if request.method == 'OPTIONS':
            return Response(b'', '', HTTPStatus.NO_CONTENT, {'Allow': METHODS} | self._preflight())
        self._check_credentials(request.headers.get('authorization', ''))
        if request.method not in ('GET', 'HEAD'):
            raise HttpError(
                Fault.METHOD_NOT_ALLOWED,
                f'{request.method} is not served: this server only reads',
                {'Allow': METHODS},
            )
        try:
            return self.routes.get(unquote(request.path), part_of_reading)(self.service, request)
        except MeterError as error:
            return meter_problem(error)

    def head(self, answer: Response, *, keep_alive: bool) -> bytes:
        """An answer's head with what all answers have."""
        fields = {'Date': formatdate(usegmt=True), 'Server': 'dsmr-rest-server', 'X-Content-Type-Options': 'nosniff'}
        if self.settings.cors_origin:
            fields['Access-Control-Allow-Origin'] = self.settings.cors_origin
            fields['Access-Control-Expose-Headers'] = 'Age, Last-Modified, Retry-After'
        if not keep_alive:
            fields['Connection'] = 'close'
        return answer.head(fields)

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
        address, name = HOST.fullmatch(host).groups()  # type: ignore[union-attr] # parse() has seen to it
        name = (name or '').lower().rstrip('.')
        if not address and ('.' not in name or name in self._own_names or name.endswith(LOCAL_SUFFIXES)):
            return
        try:
            ipaddress.ip_address((address or name).partition('%')[0])
        except ValueError:
            raise HttpError(
                Fault.MISDIRECTED_REQUEST, 'this server is not known by that name: add it to [server] hosts'
            ) from None

    def _check_credentials(self, authorization: str) -> None:
        if not self.settings.user:
            return
        scheme, _, given = authorization.partition(' ')
        if scheme.lower() == 'basic' and hmac.compare_digest(given.strip().encode(), self._credentials):
            return
        raise HttpError(
            Fault.UNAUTHORIZED,
            'user and password are needed',
            {'WWW-Authenticate': 'Basic realm="smart meter", charset="UTF-8"'},
        )

    def get_request(self) -> tuple[Any, Any]:
        try:
            connection, address = self.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # the client waits, and asking again at once does not help
                time.sleep(OUT_OF_FILES_PAUSE)
            raise
        if self.tls:  # the handshake comes in the connection's own thread
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        # In the accepting thread: nothing here may wait for a client.
        if len(self.connections) < self.settings.max_connections or self._make_room():
            self.connections[request] = time.monotonic()
        elif len(self.refused) < MOST_REFUSED:
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
        """Where errors of a connection end: one that fails is its own affair."""
        log.exception('a connection failed')  # noqa: LOG004 called where the exception is handled

    def serve_forever(self, poll_interval: float = 0) -> None:  # noqa: ARG002 the library's, which wakes to look around
        """Answers until a signal has called end(). Sleeps while nobody asks."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self.service.stopping:
                if any(key.fileobj is self.socket for key, _ in selector.select()):
                    self._handle_request_noblock()  # type: ignore[attr-defined] # not in the library's stubs

    def end(self, *_: object) -> None:
        """A signal's handler: has serve_forever() return, which the signal itself wakes by way of `wake`."""
        self.service.stopping = True

    def close(self) -> None:
        """Behind serve_forever(): ends the meter's waits, lets the answers out and hangs up on everyone, within 2 s."""
        self.service.stopping = True
        self.server_close()
        self.service.meter.stop()
        deadline = time.monotonic() + STOP_TIME
        while math.inf in list(self.connections.values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        for connection in list(self.connections):
            self._hang_up(connection)
        os.close(self._woken)
        os.close(self.wake)


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
            answer = HttpError(Fault.INTERNAL_ERROR, 'an error of this server; its log has it').answer
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
                raise line_too_long()
            if searched > HEAD_LIMIT + len('\r\n\r'):
                raise head_too_long()
            data = self._receive(deadline)
            if not data:
                return None
            if not self._received:
                deadline = min(deadline, time.monotonic() + REQUEST_TIME)
            self._received = (self._received + data).lstrip(b'\r\n')  # RFC 9112 2.2: empty lines before a request
            if self._received and not self._received[:1].isalpha():  # TLS to a port without it, for one
                raise HttpError(Fault.BAD_REQUEST, 'the request line is malformed')
        if end > HEAD_LIMIT:
            raise head_too_long()
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
                Fault.REQUEST_TIMEOUT, f'the head of a request must come within {REQUEST_TIME:g} s'
            ) from None

    def _send(self, request: Request | None, answer: Response) -> bool:
        """Sends an answer; True when the connection can have another request."""
        keep = request is not None and request.keep_alive and not (answer.events or self.server.service.stopping)
        self.server.service.answers.add(str(answer.status.value))
        if self.server.verbose:
            asked = f'{request.method} {request.path}' if request else 'no request'
            log.info('%s: %s: %d', self.client_address[0], asked, answer.status)
        self.request.settimeout(SEND_TIME)
        with_body = request is None or request.method != 'HEAD'
        head = self.server.head(answer, keep_alive=keep)
        with closing(answer.events) if answer.events else nullcontext():
            self.request.sendall(head + answer.body if with_body else head)
            for event in (with_body and answer.events) or ():
                self.request.sendall(event)
        return keep

    def _linger(self) -> None:
        self.request.settimeout(LINGER_TIME)
        if self.server.tls:
            with suppress(OSError):
                self.request.unwrap()  # type: ignore[attr-defined] # says that this was all (RFC 9112 9.8)
        socket.socket.shutdown(self.request, socket.SHUT_WR)
        deadline = time.monotonic() + LINGER_TIME
        while time.monotonic() < deadline and socket.socket.recv(self.request, 8192):
            pass


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
