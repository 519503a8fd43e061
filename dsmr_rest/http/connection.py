"""Connection: one client's TCP or TLS connection, on which nothing takes longer than the caller allows.

It does not know what is said on the connection. Its methods raise OSError when the client has disconnected, and
TimeoutError, which is an OSError as well, when the client takes too long.

A Python socket with settimeout() waits in poll() before each recv() and send(), and each change of its timeout is an
ioctl(). Each of these system calls gives the interpreter lock away, and among many clients it takes longer to get that
back than the call itself takes. Therefore the socket of a TCP connection is a blocking one. The kernel limits how long
a recv() waits (SO_RCVTIMEO). A send() does not wait, and only a client that does not take what it is sent is waited
for in poll(). So a request is one recv(), and a response one send().

Not everything that looks like Linux keeps to SO_RCVTIMEO (an emulator, another kernel behind its system calls), so that
is tried once, before there are clients. Where it does not hold, Python's own timeouts are used.
"""

import select
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from functools import cache

from dsmr_rest.process import threads

RECEIVE_SIZE = 8192
"""Bytes received at a time: a request seldom has more than 1 kB."""
TRIAL_TIME = 0.001
"""Seconds that the kernel's timeouts are tried with. A first client may wait for them, so they are few."""
RESCUE_TIME = 1.0
"""Seconds after which the trial has failed."""
MILLISECONDS = 1_000
MICROSECONDS = 1_000_000
"""In a second."""
TLS_HANDSHAKE = b'\x16'
"""The first byte that a TLS client sends (RFC 8446 5.1): the content type of a handshake."""
LONGEST_TIMEVAL = 16
"""Bytes of the larger of the two kinds of struct timeval."""


class PlainTextError(Exception):
    """What a client sends to a TLS connection is not TLS. `received` is what it has sent so far."""

    def __init__(self, received: bytes) -> None:
        super().__init__('not TLS')
        self.received = received


def connection_of(client: socket.socket) -> 'Connection':
    """The connection of an accepted socket. A TLS socket has yet to shake hands."""
    if isinstance(client, ssl.SSLSocket):
        return TlsConnection(client)
    if kernel_keeps_timeouts():
        return Connection(client)
    return ConnectionWithoutKernelTimeouts(client)


@cache
def kernel_keeps_timeouts() -> bool:
    """Whether a recv() on a socket with SO_RCVTIMEO is known to end after that time.

    Tried once, which takes TRIAL_TIME or, by the clock of the kernel, a few milliseconds more.
    """
    try:
        return _a_timeout_ends_recv()
    except (OSError, threads.NoThreadError):  # there is nothing to try it with
        return False


def _a_timeout_ends_recv() -> bool:
    """Tries it. Raises OSError and NoThreadError when that is impossible."""
    waiting, other = socket.socketpair()
    with waiting, other:
        # Without the timeout, recv() would wait for ever.
        rescue = threading.Timer(RESCUE_TIME, other.send, [b'.'])
        rescue.daemon = True
        threads.start(rescue)
        try:
            set_kernel_timeout(waiting, TRIAL_TIME)
            waiting.recv(1)
        except BlockingIOError:
            return True
        except OSError:  # the kernel does not know the option, or not in this form
            return False
        else:
            return False
        finally:
            rescue.cancel()
            rescue.join()


def set_kernel_timeout(client: socket.socket, seconds: float) -> None:
    """Limits how long a recv() on a blocking socket waits: then it raises BlockingIOError. Raises OSError."""
    # A struct timeval is two integers. Whether they have 8 bytes or 4 depends on the system and on the C library of a
    # 32-bit Python, so the kernel is asked.
    timeval = client.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, LONGEST_TIMEVAL)
    integers = '=qq'
    if len(timeval) < LONGEST_TIMEVAL:
        integers = '=ll'
    # A timeout of 0 would be none.
    microseconds = max(1, round(seconds * MICROSECONDS))
    value = struct.pack(integers, *divmod(microseconds, MICROSECONDS))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)


def disconnect(client: socket.socket) -> None:
    """Disconnects a client at once, from any thread: whoever is waiting for it wakes up."""
    with suppress(OSError):
        # A TLS socket's own shutdown would disturb its thread.
        socket.socket.shutdown(client, socket.SHUT_RDWR)


def send_without_tls(client: socket.socket, data: bytes, seconds: float) -> None:
    """Sends data over a TLS socket that has not shaken hands, and lingers until the client has taken it."""
    deadline = time.monotonic() + seconds
    client.settimeout(seconds)
    # Those of the class, because the TLS socket's own would encrypt.
    socket.socket.sendall(client, data)
    socket.socket.shutdown(client, socket.SHUT_WR)
    while socket.socket.recv(client, RECEIVE_SIZE):  # what the client sends is not read
        seconds_left = deadline - time.monotonic()
        _check_time_left(seconds_left)
        client.settimeout(seconds_left)


def _check_time_left(seconds: float) -> None:
    if seconds <= 0:
        raise TimeoutError


class Connection:
    """A TCP connection. For one thread."""

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._kernel_timeout = 0.0  # in seconds; 0 is none

    def shake_hands(self, seconds: float) -> None:
        """Prepares the connection for the first byte, for which TCP needs nothing. Raises PlainTextError."""

    def receive(self, seconds: float) -> bytes:
        """Waits until the client has sent something and returns it, at most RECEIVE_SIZE bytes.

        Nothing is returned when the client has closed its sending side.
        """
        return self._receive_plain(seconds)

    def send(self, data: bytes, seconds: float) -> None:
        """Waits until all the data is sent. Most of what is sent fits into the socket's buffer, without waiting."""
        deadline = time.monotonic() + seconds
        unsent = data[self.send_at_once(data) :]
        while unsent:
            self._wait_for_room(deadline - time.monotonic())
            unsent = unsent[self.send_at_once(unsent) :]

    def send_at_once(self, data: bytes) -> int:
        """Sends as much as fits into the socket's buffer, without waiting. Returns how many bytes that was."""
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def discard_received(self) -> None:
        """Discards what has arrived: closing a connection with something unread destroys what was sent on it."""
        with suppress(BlockingIOError):
            self._socket.recv(RECEIVE_SIZE, socket.MSG_DONTWAIT)

    def is_connected(self) -> bool:
        """Whether the client has not been seen to leave. Does not wait."""
        # POLLERR and POLLHUP, a reset or both sides closed, are always reported.
        return not self._events(0)

    def has_stopped_sending(self) -> bool:
        """Whether the client has closed its sending side, and perhaps both: TCP does not tell. Does not wait."""
        return bool(self._events(select.POLLRDHUP))

    def linger(self, seconds: float) -> None:
        """Ends the sending, and discards what the client sends until it ends its own.

        To close at once would destroy what has been sent before the client has read it (RFC 9112 9.6). Raises
        TimeoutError when the client has not ended within that time.
        """
        deadline = time.monotonic() + seconds
        self._end_sending(seconds)
        while self._receive_plain(deadline - time.monotonic()):
            pass  # what a client sends after its last response is not read

    def _end_sending(self, _seconds: float) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def _receive_plain(self, seconds: float) -> bytes:
        _check_time_left(seconds)
        if seconds != self._kernel_timeout:
            set_kernel_timeout(self._socket, seconds)
            self._kernel_timeout = seconds
        try:
            return self._socket.recv(RECEIVE_SIZE)
        except BlockingIOError:
            raise TimeoutError from None

    def _events(self, wanted: int) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self._socket, wanted)
        return poll.poll(0)

    def _wait_for_room(self, seconds: float) -> None:
        _check_time_left(seconds)
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        # A little room, too little for the kernel to report it, does not count: the client has not taken anything.
        if not poll.poll(seconds * MILLISECONDS):
            raise TimeoutError


class ConnectionWithoutKernelTimeouts(Connection):
    """A TCP connection whose socket has a timeout of Python's, because the kernel has none that holds."""

    def send_at_once(self, data: bytes) -> int:
        self._socket.settimeout(0)
        return super().send_at_once(data)

    def discard_received(self) -> None:
        self._socket.settimeout(0)
        super().discard_received()

    def _receive_plain(self, seconds: float) -> bytes:
        _check_time_left(seconds)
        self._socket.settimeout(seconds)
        return self._socket.recv(RECEIVE_SIZE)


class TlsConnection(Connection):
    """A TLS connection. Its socket has a timeout of Python's: OpenSSL may need several system calls for one message."""

    _socket: ssl.SSLSocket

    def shake_hands(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        self._set_timeout(seconds)
        # OpenSSL would take the bytes, and could not say what they were.
        received = socket.socket.recv(self._socket, RECEIVE_SIZE, socket.MSG_PEEK)
        if received and not received.startswith(TLS_HANDSHAKE):
            raise PlainTextError(received)
        self._set_timeout(deadline - time.monotonic())
        self._socket.do_handshake()

    def receive(self, seconds: float) -> bytes:
        self._set_timeout(seconds)
        return self._socket.recv(RECEIVE_SIZE)

    def send(self, data: bytes, seconds: float) -> None:
        self._set_timeout(seconds)
        self._socket.sendall(data)

    def send_at_once(self, data: bytes) -> int:
        self._socket.settimeout(0)
        try:
            return self._socket.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0

    def _end_sending(self, seconds: float) -> None:
        self._set_timeout(seconds)
        with suppress(OSError):
            self._socket.unwrap()  # tells the client that nothing is missing (RFC 9112 9.8)
        socket.socket.shutdown(self._socket, socket.SHUT_WR)

    def _receive_plain(self, seconds: float) -> bytes:
        self._set_timeout(seconds)
        return socket.socket.recv(self._socket, RECEIVE_SIZE)

    def _set_timeout(self, seconds: float) -> None:
        _check_time_left(seconds)
        self._socket.settimeout(seconds)
