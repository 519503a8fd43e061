"""Listener: a TCP socket at which clients are accepted, in a thread that sleeps until one comes.

What the HTTP server and the telegram server have in common. It does not know what is said on a connection.
"""

import errno
import logging
import socket
import threading
import time
from contextlib import suppress
from socketserver import BaseRequestHandler, TCPServer
from typing import Any

from dsmr_rest.config import ConfigError

log = logging.getLogger(__name__)

OUT_OF_FILES_PAUSE = 0.1
"""Seconds until the next client is accepted after there were no file descriptors left."""
IDLE_POLL = 86_400.0
"""Seconds after which the accept loop wakes although there is no client. It need not: stop_accepting() wakes it."""


_REASONS = {
    errno.EADDRINUSE: 'is in use, by another program or by a server that is already running',
    errno.EADDRNOTAVAIL: 'this machine does not have that address; an empty host means all that it has',
    errno.EACCES: 'this user may not listen there; choose a port above 1023',
}
"""What an error of binding means to the person who chose the host and the port."""


class Listener(TCPServer):
    """To be combined with one of socketserver's threading servers. Listens when it is made, accepts after start().

    `setting` is the name of the setting that has the port. Raises ConfigError when it cannot listen there.
    """

    daemon_threads = True
    request_queue_size = (
        1024  # a burst waits here instead of being lost; the limit of the system may be lower
    )

    def __init__(
        self, host: str, port: int, setting: str, handler: type[BaseRequestHandler]
    ) -> None:
        self.host = host
        self._accepting = threading.Thread(
            target=self.serve_forever, args=(IDLE_POLL,), name=f'accept {setting}', daemon=True
        )
        try:
            self.address_family, address = _address(host, port)
            super().__init__(address, handler)
        except (OSError, UnicodeError) as error:  # UnicodeError: the name cannot be a host name
            raise _cannot_listen(host, port, setting, error) from error

    @property
    def port(self) -> int:
        """The port that it listens at, also when the setting is 0, which means any."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Starts to accept clients, in a separate thread."""
        self._accepting.start()

    def stop_accepting(self) -> None:
        """Closes the listening socket; connections go on."""
        if self._accepting.is_alive():
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)  # wakes the accept loop
            self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        # Instead of http.server's, which asks the name service for its own name and may have to wait for it.
        is_dual_stack = self.address_family == socket.AF_INET6 and not self.host
        if is_dual_stack:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def get_request(self) -> tuple[Any, Any]:
        try:
            return self.socket.accept()
        except OSError as error:
            is_out_of_files = error.errno in (errno.EMFILE, errno.ENFILE)
            # The client stays in the queue, and accept() would fail again at once.
            if is_out_of_files:
                time.sleep(OUT_OF_FILES_PAUSE)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the signature is socketserver's
        """Where unexpected errors of a connection end: the others go on."""
        log.exception('a connection failed')  # noqa: LOG004 called where the exception is handled


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
