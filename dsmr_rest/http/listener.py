"""Listener: a TCP socket at which clients are accepted, in a thread that sleeps until one comes.

What the HTTP server and the telegram server have in common. It does not know what is said on a connection.
"""

import errno
import logging
import resource
import socket
import threading
import time
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

from dsmr_rest.config import ConfigError
from dsmr_rest.http.departures import Departures
from dsmr_rest.process import threads
from dsmr_rest.process.trouble import Trouble

log = logging.getLogger(__name__)

FAILURE_PAUSE = 0.1
"""Seconds until the next client is accepted after one could not be: accept() would fail again at once."""
RESERVED_FILES = 12
"""File descriptors that clients do not get: the port of the meter takes five, and loading a module one."""
STOP_TIME = 0.3
"""Seconds for the accepting thread to end. It sleeps in accept(), from which stop_accepting() wakes it."""
PROBE_AFTER, PROBE_PAUSE, PROBES = 45, 15, 4
"""Seconds of silence before the first keep-alive probe, seconds between probes, and how many may stay unanswered."""
UNACKNOWLEDGED_TIME = 60
"""Seconds that sent bytes, or probes, may stay unacknowledged (RFC 5482). While there are such bytes, no probe is sent.
So a client that vanished without a word has its connection ended after at most PROBE_AFTER and this time, whether or
not something is sent to it meanwhile."""

_REASONS = {
    errno.EADDRINUSE: 'is in use, by another program or by a server that is already running',
    errno.EADDRNOTAVAIL: 'this machine does not have that address; an empty host means all that it has',
    errno.EACCES: 'this user may not listen there; choose a port above 1023',
}
"""What an error of binding means to the person who chose the host and the port."""


class Listener(ThreadingTCPServer):
    """Listens when it is made, and accepts after start(); each client then has a thread of its own.

    `setting` is the name of the setting that has the port. Raises ConfigError when it cannot listen there.

    socketserver calls an accepted connection a `request`, in the methods that are overridden here too; elsewhere that
    is what the client sends.
    """

    daemon_threads = True
    request_queue_size = (
        1024  # a burst waits here instead of being lost; the limit of the system may be lower
    )

    def __init__(
        self, host: str, port: int, setting: str, handler: type[BaseRequestHandler]
    ) -> None:
        self.host = host
        self._is_stopping = threading.Event()
        self._accepting = threading.Thread(
            target=self.accept_until_stopped, name=f'accept {setting}', daemon=True
        )
        where = f'[server] {setting}'
        self._few_threads = Trouble(
            f'no thread can be started for a client of {where}: clients are refused',
            f'threads can be started for the clients of {where} again',
        )
        self._few_files = Trouble(
            f'no file descriptor is left for a client of {where}: clients are refused',
            f'there are file descriptors for the clients of {where} again',
        )
        try:
            self.address_family, address = _address(host, port)
            self.departures = Departures()
            super().__init__(address, handler)
        except (OSError, UnicodeError) as error:  # UnicodeError: the name cannot be a host name
            raise _cannot_listen(host, port, setting, error) from error

    @property
    def port(self) -> int:
        """The port that it listens at, also when the setting is 0, which means any."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Starts to accept clients, and to watch them, in separate threads. Raises threads.NoThreadError."""
        self.departures.start()
        threads.start(self._accepting)

    def stop_accepting(self) -> None:
        """Closes the listening socket; connections go on."""
        self._is_stopping.set()
        if self._accepting.is_alive():
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
            self._accepting.join(STOP_TIME)
        self.server_close()

    def server_close(self) -> None:
        super().server_close()
        self.departures.close()

    def close_request(self, request: Any) -> None:
        self.departures.forget(request)
        super().close_request(request)

    def server_bind(self) -> None:
        # Instead of http.server's, which asks the name service for its own name and may have to wait for it.
        is_dual_stack = self.address_family == socket.AF_INET6 and not self.host
        if is_dual_stack:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._notice_vanished_clients()
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def _notice_vanished_clients(self) -> None:
        """Sets what every connection inherits from the listening socket."""
        tcp_options = {
            socket.TCP_KEEPIDLE: PROBE_AFTER,
            socket.TCP_KEEPINTVL: PROBE_PAUSE,
            socket.TCP_KEEPCNT: PROBES,
            socket.TCP_USER_TIMEOUT: UNACKNOWLEDGED_TIME * 1000,
        }
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in tcp_options.items():
            self.socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def get_request(self) -> tuple[Any, Any]:
        """Sleeps until there is a client. Raises OSError when it cannot be accepted, after a pause."""
        try:
            return self.socket.accept()
        except OSError:
            if not self._is_stopping.is_set():
                time.sleep(FAILURE_PAUSE)
            raise

    def spare_a_client(self) -> bool:
        """Disconnects a client that can be spared, so that another gets its file descriptor; False if there is none."""
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts the thread of a client, unless it has a reserved file descriptor. Called in the accepting thread."""
        if _is_in_reserve(request) and not self.spare_a_client():
            self._few_files.met()
            self.refuse_for_shortage(request)
            return
        self._few_files.not_met()
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self.start_thread(thread, request)

    def start_thread(self, thread: threading.Thread, client: Any) -> None:
        """Starts a thread for a client, which is refused if that is impossible."""
        try:
            threads.start(thread)
        except threads.NoThreadError:
            self._few_threads.met()
            self.refuse_for_shortage(client)
        else:
            self._few_threads.not_met()

    def refuse_for_shortage(self, client: Any) -> None:
        """Ends a connection for which there is no thread or no file descriptor."""
        self.shutdown_request(client)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the signature is socketserver's
        """Where unexpected errors of a connection end: the others go on."""
        log.exception('a connection failed')  # noqa: LOG004 called where the exception is handled

    def accept_until_stopped(self) -> None:
        """The accepting thread. Nothing ends it but stop_accepting(): what fails costs one client."""
        threads.repeat(self._accept_client, self._is_stopping)

    def _accept_client(self) -> None:
        try:
            request, address = self.get_request()
        except OSError:  # the client has gone, or there is no file descriptor for it
            return
        try:
            self.process_request(request, address)
        except Exception:  # noqa: BLE001 the edge at which errors of one connection end
            self.handle_error(request, address)
            self.shutdown_request(request)


def _is_in_reserve(client: socket.socket) -> bool:
    """Whether a connection has one of the last file descriptors: the system gives out the lowest that is free."""
    try:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:  # the process may not ask
        return False
    return client.fileno() >= limit - RESERVED_FILES


def refuse_unusable_address(host: str, port: int, setting: str) -> None:
    """Raises ConfigError when a Listener could not listen there even if the TCP port is free.

    The TCP port is not touched, because a server may be running there. A UDP socket takes the same address and the same
    rights, so that is bound for a moment instead; it does not matter whether the number is taken as a UDP port.
    """
    try:
        family, address = _address(host, port)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        is_taken = getattr(error, 'errno', None) == errno.EADDRINUSE
        if not is_taken:
            raise _cannot_listen(host, port, setting, error) from error


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """The address to bind to, and its family. Raises OSError or UnicodeError when the host has none."""
    if not host and socket.has_dualstack_ipv6():
        return socket.AF_INET6, ('::', port)
    addresses = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, _, _, _, address = addresses[0]
    return family, (str(address[0]), port)


def _cannot_listen(host: str, port: int, setting: str, error: Exception) -> ConfigError:
    where = f'[server] {setting} = {port}'
    if host:
        where = f'[server] host = {host}, {setting} = {port}'
    number = getattr(error, 'errno', None)
    if number in _REASONS:
        return ConfigError(f'{where}: {_REASONS[number]}')
    reason = getattr(error, 'strerror', None) or error
    if isinstance(error, socket.gaierror | UnicodeError):
        return ConfigError(
            f'{where}: host must be an IP address or a name of this machine ({reason})'
        )
    return ConfigError(f'{where}: {reason}')
