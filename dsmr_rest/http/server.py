"""HTTP/1.1 over TCP and TLS: connections, their limits and deadlines, and the end.

What a response says is up to the Application: this module does not know meters, paths or credentials.

Every connection has its own thread, which reads one request at a time, the whole of it before a deadline, and sends
each response in one piece. How a request is received is up to receiving.py, and how a socket keeps to a deadline to
connection.py. The accepting thread only accepts: it never waits for a client. A client that finds all places taken goes
one of two ways. Up to MOST_REFUSALS at a time get a thread that responds to one request, with 503 if that would have to
wait for the meter; beyond that the 503 is sent at once, and the connection is closed whether or not the client can read
it.
"""

import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler
from typing import Any, Protocol

from dsmr_rest.config import ConfigError, ServerSettings
from dsmr_rest.faults import Fault, NotWantedError
from dsmr_rest.http.connection import (
    PlainTextError,
    connection_of,
    disconnect,
    kernel_keeps_timeouts,
    send_without_tls,
)
from dsmr_rest.http.listener import Listener
from dsmr_rest.http.message import (
    BEGINNING_OF_RESPONSES,
    EXHAUSTED,
    PLAIN_TEXT_REFUSED,
    TOO_MANY_CONNECTIONS,
    EventStream,
    HttpError,
    Request,
    Response,
    expects_no_body,
    http_date,
    parse_request,
    problem,
)
from dsmr_rest.http.receiving import Receiver

log = logging.getLogger(__name__)

REQUEST_TIME = 10.0
"""Seconds for a header section, from its first byte to its last, and for the TLS handshake."""
IDLE_TIME = 30.0
"""Seconds that a connection may stay open between requests."""
REFUSAL_TIME = 2.0
"""Seconds for the one request of a client for which there is no place."""
SPARE_TIME = 2.0
"""Seconds without a request after which a connection may be closed to make room for a new one."""
SEND_TIME = 10.0
"""Seconds for a client to take a response."""
LINGER_TIME = 1.0
"""Seconds in which a client may go on sending after its last response."""
TLS_1_2_CIPHERS = 'ECDHE+AESGCM:ECDHE+CHACHA20'
"""Forward secrecy, and no CBC: its padding has been attacked again and again (RFC 9325 4.2). TLS 1.3 has only such."""
MOST_REFUSALS = 64
"""Clients at a time that get a thread although all places are taken: each needs a file descriptor as well."""
STOP_TIME = 0.4
"""Seconds for the last responses to go out. The whole server must stop within 2 s, of which the meter takes up to 1."""
BUSY_CHECK = 0.01
"""Seconds between two looks whether the last responses have gone out."""


class Application(Protocol):
    """What the server serves. It is called from many threads at once."""

    @property
    def header_fields(self) -> Mapping[str, str]:
        """The header fields that every response has."""

    def respond(self, request: Request) -> Response:
        """The response to a request."""

    def respond_at_once(self, request: Request) -> Response:
        """The response to a request for which there is no place to wait."""

    def count(self, response: Response) -> None:
        """Called with each response before it is sent."""


class ConnectionPlaces:
    """The places of [server] max_connections: which connections have one, and since when each has been silent.

    When all are taken, a new connection may take over the place of the one that has been silent for longest.
    """

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()  # guards _silent_since
        # Per connection the monotonic time since when it has been silent; infinity while it is being served.
        self._silent_since: dict[socket.socket, float] = {}

    def take(self, connection: socket.socket) -> bool:
        """Takes a place, if there is one or one can be taken over."""
        if not self._free.acquire(blocking=False) and not self._end_longest_silence():
            return False
        with self._lock:
            self._silent_since[connection] = time.monotonic()
        return True

    def spare_one(self) -> bool:
        """Disconnects the client that has been silent for longest, if that is long enough, and frees its place."""
        is_spared = self._end_longest_silence()
        if is_spared:
            self._free.release()
        return is_spared

    def leave(self, connection: socket.socket) -> None:
        """Returns a place; nothing happens if the connection has none, or another has taken it over."""
        with self._lock:
            had_place = self._silent_since.pop(connection, None) is not None
        if had_place:
            self._free.release()

    def mark_silent(self, connection: socket.socket) -> None:
        """From now on the server waits for this client."""
        self._mark(connection, time.monotonic())

    def mark_busy(self, connection: socket.socket) -> None:
        """From now on the client waits for the server."""
        self._mark(connection, math.inf)

    def wait_until_silent(self, seconds: float) -> None:
        """Waits for at most that long until no connection is being served."""
        deadline = time.monotonic() + seconds
        while self._is_any_busy() and time.monotonic() < deadline:
            time.sleep(BUSY_CHECK)

    def connections(self) -> list[socket.socket]:
        """Those that have a place."""
        with self._lock:
            return list(self._silent_since)

    def disconnect_all(self) -> None:
        for connection in self.connections():
            disconnect(connection)

    def _mark(self, connection: socket.socket, since: float) -> None:
        with self._lock:
            has_place = connection in self._silent_since
            if has_place:
                self._silent_since[connection] = since

    def _is_any_busy(self) -> bool:
        with self._lock:
            return math.inf in self._silent_since.values()

    def _end_longest_silence(self) -> bool:
        """Disconnects the client that has been silent for longest, if that is long enough. Its place is not freed."""
        with self._lock:
            if not self._silent_since:
                return False
            longest = min(self._silent_since, key=lambda connection: self._silent_since[connection])
            if time.monotonic() - self._silent_since[longest] < SPARE_TIME:
                return False
            del self._silent_since[longest]
        disconnect(longest)
        return True


class RefusalPlaces:
    """The connections that get a response although all places are taken, at most `count` at a time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()  # guards _connections
        self._connections: set[socket.socket] = set()

    def take(self, connection: socket.socket) -> bool:
        """Takes a place; False when there is none."""
        with self._lock:
            if len(self._connections) >= self._count:
                return False
            self._connections.add(connection)
        return True

    def leave(self, connection: socket.socket) -> None:
        """Gives back a place, if the connection has one."""
        with self._lock:
            self._connections.discard(connection)


class HttpServer(Listener, ThreadingHTTPServer):
    """The server. It listens when it is made, accepts after start(), and is gone after close()."""

    def __init__(
        self, settings: ServerSettings, application: Application, *, verbose: bool = False
    ) -> None:
        self.application = application
        self.verbose = verbose
        self.tls = tls_context(settings)
        self._settings = settings
        self.places = ConnectionPlaces(settings.max_connections)
        self.stopping = threading.Event()
        self._refusals = RefusalPlaces(MOST_REFUSALS)
        super().__init__(settings.host, settings.port, 'port', RequestHandler)

    @property
    def urls(self) -> list[str]:
        """The URLs at which the server can be reached."""
        return server_urls(self._settings, self.port)

    def close(self) -> None:
        """Stops accepting, lets the last responses go out for STOP_TIME, and disconnects everybody."""
        self.stopping.set()
        self.stop_accepting()
        self.places.wait_until_silent(STOP_TIME)
        self.places.disconnect_all()

    def header_fields(self, *, keep_alive: bool) -> dict[str, str]:
        """The header fields that every response has now."""
        fields = {
            'Date': http_date(int(time.time())),
            'Server': 'dsmr-rest-server',
            **self.application.header_fields,
        }
        if not keep_alive:
            fields['Connection'] = 'close'
        return fields

    def accept_until_stopped(self) -> None:
        kernel_keeps_timeouts()  # tried here: before there are clients, and while the start goes on
        super().accept_until_stopped()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.tls is not None:  # the handshake follows in the connection's own thread
            connection = self.tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for an accepted connection, in one of two lanes. Called in the accepting thread."""
        if self.places.take(request):
            super().process_request(request, client_address)
        elif self._refusals.take(request):
            thread = threading.Thread(
                target=self._refuse, args=(request, client_address), daemon=True
            )
            self.start_thread(thread, request)
        else:
            self._refuse_at_once(request, TOO_MANY_CONNECTIONS)

    def spare_a_client(self) -> bool:
        return self.places.spare_one()

    def refuse_for_shortage(self, client: Any) -> None:
        self._refuse_at_once(client, EXHAUSTED)

    def _refuse_at_once(self, client: socket.socket, response: Response) -> None:
        """Sends a response in the accepting thread, and closes the connection whether or not the client can read it."""
        if self.tls is None:  # a handshake would have to wait for the client
            data = response.header_section(self.header_fields(keep_alive=False)) + response.body
            with suppress(OSError):
                connection = connection_of(client)
                connection.discard_received()
                connection.send_at_once(data)
        self.shutdown_request(client)

    def _refuse(self, client: socket.socket, client_address: Any) -> None:
        try:
            RefusalHandler(client, client_address, self)
        except Exception:
            log.exception('a connection failed')
        finally:
            self.shutdown_request(client)

    def shutdown_request(self, request: Any) -> None:
        self.places.leave(request)
        self._refusals.leave(request)
        # Nothing else refers to the socket, so this ends the connection as well.
        self.close_request(request)


OWN_ERROR = 'something went wrong in the server itself: its log has the details; please report them'


class RequestHandler(BaseRequestHandler):
    """Handles one connection: its requests one after another, each read whole before a deadline.

    Only the bytes are handled here. What is asked for, and what the response says, only the Application knows.
    """

    server: HttpServer
    request: socket.socket  # what socketserver calls the connection
    idle_time = IDLE_TIME
    request_time = REQUEST_TIME
    may_keep_alive = True

    def setup(self) -> None:
        self._connection = connection_of(self.request)
        self._receiver = Receiver(self._connection, self.idle_time, self.request_time)
        self._may_send_more = True  # whether the client may send something after its last response
        self._is_waiting = False  # whether the client has sent a request and no response has begun
        self._begun = 0  # how many bytes of the response to it have been sent before it was known

    def handle(self) -> None:
        # The client has disconnected or does not take its response in time, which needs no log line.
        with suppress(OSError, NotWantedError):
            try:
                self._connection.shake_hands(self.request_time)
            except PlainTextError as error:
                self._refuse_plain_text(error.received)
                return
            self._serve()
            if self._must_linger():
                self.server.places.mark_silent(self.request)
                self._connection.linger(LINGER_TIME)

    def _refuse_plain_text(self, received: bytes) -> None:
        response = PLAIN_TEXT_REFUSED
        self.server.application.count(response)
        self._log(None, response)
        data = response.header_section(self.server.header_fields(keep_alive=False))
        if not expects_no_body(received):
            data += response.body
        send_without_tls(self.request, data, LINGER_TIME)

    def _must_linger(self) -> bool:
        """Whether the connection must not be closed at once."""
        is_encrypted = self.server.tls is not None  # TLS has an end of its own (RFC 9112 9.8)
        return self._may_send_more or is_encrypted

    def _serve(self) -> None:
        keep_alive = True
        while keep_alive:
            keep_alive = self._serve_one_request()

    def _serve_one_request(self) -> bool:
        """Reads a request and responds to it. False when the connection must be closed."""
        request: Request | None = None
        header_section: bytes | None = None
        try:
            self.server.places.mark_silent(self.request)
            header_section = self._receiver.header_section()
            if header_section is None:
                return False
            self.server.places.mark_busy(self.request)
            request = parse_request(header_section, self._is_wanted)
            self._is_waiting = True
            response = self._respond(request)
        except HttpError as error:
            response = error.response
        has_body = not expects_no_body(header_section or self._receiver.received)
        with closing(response):
            return self._send(request, response, has_body=has_body)

    def _respond(self, request: Request) -> Response:
        """The response to a request. An error of any kind is the server's own here, because no client is waited for."""
        try:
            return self._response_of_application(request)
        except (HttpError, NotWantedError):
            raise
        except Exception:
            log.exception('a request failed')
            return problem(Fault.INTERNAL_ERROR, OWN_ERROR)

    def _response_of_application(self, request: Request) -> Response:
        return self.server.application.respond(request)

    def _is_wanted(self, look_again: Callable[[], None]) -> bool:
        """Whether the client of the request is still waiting, as far as that is known: the IsWanted of the request.

        A client that has closed its sending side may be waiting for its response (`nc -N`), or have closed both sides
        (curl after its timeout): to the server the two look alike. So it is sent what every response begins with. A
        client that is gone refuses that with a reset, which is reported; one that is waiting notices nothing.
        """
        has_stopped_sending = self._connection.has_stopped_sending()
        if has_stopped_sending and not self._is_there():
            return False
        self.server.departures.watch(
            self.request, look_again, has_stopped_sending=has_stopped_sending
        )
        return True

    def _is_there(self) -> bool:
        """Whether a client that has stopped sending is there, as far as that is known. Probes it if it waits."""
        try:
            if self._is_waiting:
                unsent = BEGINNING_OF_RESPONSES[self._begun :]
                self._begun += self._connection.send_at_once(unsent)
        except OSError:
            return False
        return self._connection.is_connected()

    def _send(self, request: Request | None, response: Response, *, has_body: bool) -> bool:
        """Sends a response. True when the connection is kept alive for another request."""
        is_endless = response.events is not None
        is_last = is_endless or not self.may_keep_alive or self.server.stopping.is_set()
        keep_alive = request is not None and request.keep_alive and not is_last
        self._may_send_more = request is None or not request.is_last
        self._is_waiting = False
        self.server.application.count(response)
        self._log(request, response)
        data = response.header_section(self.server.header_fields(keep_alive=keep_alive))
        if has_body:
            data += response.body
        self._connection.send(data[self._begun :], SEND_TIME)
        self._begun = 0
        if response.events is not None and has_body:
            self._send_events(response.events)
        return keep_alive

    def _send_events(self, events: EventStream) -> None:
        """Sends events until there are none or the client has gone; an error in making one ends them, and is logged."""
        made = iter(events)
        while True:
            try:
                event = next(made, None)
            except NotWantedError:
                raise
            except Exception:
                log.exception('a stream failed')
                return
            if event is None:
                return
            self._connection.send(event, SEND_TIME)

    def _log(self, request: Request | None, response: Response) -> None:
        if not self.server.verbose:
            return
        requested = 'no request'
        if request is not None:
            requested = f'{request.method} {request.path}'
        log.info('%s: %s: %d', self.client_address[0], requested, response.status)


class RefusalHandler(RequestHandler):
    """Handles a connection for which there is no place: one request, which must not wait for the meter."""

    idle_time = REFUSAL_TIME
    request_time = REFUSAL_TIME
    may_keep_alive = False

    def _response_of_application(self, request: Request) -> Response:
        return self.server.application.respond_at_once(request)


def server_urls(settings: ServerSettings, port: int) -> list[str]:
    """The URLs at which a server with these settings can be reached when it listens on this port."""
    scheme = 'http'
    if settings.uses_tls:
        scheme = 'https'
    if not settings.host:
        names = ['localhost', socket.gethostname()]
    elif ':' in settings.host:
        names = [f'[{settings.host}]']
    else:
        names = [settings.host]
    return [f'{scheme}://{name}:{port}/' for name in names]


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """TLS with the certificate of the settings; None without one. Raises ConfigError."""
    if not settings.uses_tls:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS_1_2_CIPHERS)
    try:
        # An encrypted key is refused: there is nobody to ask for its pass phrase.
        context.load_cert_chain(settings.certificate, settings.private_key, password=lambda: '')
    except OSError as error:
        raise ConfigError(
            f'[server] certificate = {settings.certificate}, private_key = {settings.private_key}:'
            f' must be a certificate and the key that belongs to it, as PEM and without a pass phrase ({error})'
        ) from error
    return context
