"""Departures: tells whoever waits on behalf of a client that the client may have left.

One thread sleeps until the kernel reports a client (epoll(7)). So a wait costs no wake-up, however long it is and
however many wait. To ask for each of hundreds of clients a few times a second would take much of a slow machine.

It does not know what is said on a connection, nor whether a client that may have left has: TCP does not tell when a
client has closed its sending side alone.
"""

import os
import select
import socket
import threading
from collections.abc import Callable

from dsmr_rest.process import threads

STOP_TIME = 0.3
"""Seconds for the thread to end."""


class Departures:
    """Watches clients, from start() to close(). All methods are for any thread.

    Each watch is for one report: whoever goes on waiting for a client watches it again.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._end = os.eventfd(0)  # can be read when the thread must end
        self._epoll.register(self._end, select.EPOLLIN)
        self._closed = threading.Event()
        self._lock = threading.Lock()  # guards what follows, and which clients the kernel watches
        # What to call, by the file descriptor of each client that is watched and has not been reported.
        self._calls: dict[int, Callable[[], None]] = {}
        self._thread = threading.Thread(
            target=threads.repeat,
            args=(self._report, self._closed),
            name='departures',
            daemon=True,
        )

    def start(self) -> None:
        """Raises threads.NoThreadError."""
        threads.start(self._thread)

    def watch(
        self, client: socket.socket, call: Callable[[], None], *, has_stopped_sending: bool
    ) -> None:
        """`call` is called, in another thread, once the client has disconnected, also if it already has.

        Unless the client is known to have stopped sending, that is reported too. After close() nothing is.
        """
        number = client.fileno()
        # A reset, or both sides closed, are reported in any case (EPOLLERR and EPOLLHUP).
        events = select.EPOLLONESHOT
        if not has_stopped_sending:
            events |= select.EPOLLRDHUP
        with self._lock:
            if self._closed.is_set():
                return
            is_watched = number in self._calls
            self._calls[number] = call
            if is_watched:
                return
            try:
                self._epoll.register(number, events)
            except FileExistsError:  # it has been reported before
                self._epoll.modify(number, events)

    def forget(self, client: socket.socket) -> None:
        """Call it before the client's socket is closed, which ends the kernel's part of the watch."""
        with self._lock:
            self._calls.pop(client.fileno(), None)

    def close(self) -> None:
        """Ends the thread; has no effect the second time."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        if self._thread.is_alive():
            os.eventfd_write(self._end, 1)
            self._thread.join(STOP_TIME)
        self._epoll.close()
        os.close(self._end)

    def _report(self) -> None:
        """What the thread does again and again: sleeps until there are clients to report, and makes their calls."""
        for number, _ in self._epoll.poll():
            with self._lock:
                call = self._calls.pop(number, None)
            if call is not None:
                call()
