"""Changes of this machine's IPv4 addresses, as the kernel reports them (rtnetlink(7)): nothing is polled.

It does not know what the addresses are used for.
"""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress

from dsmr_rest.process import threads

ADDRESS_GROUP = 0x10
"""RTMGRP_IPV4_IFADDR: messages about addresses that were added or removed."""
SETTLE_TIME = 1.0
"""Seconds without a further change after which the addresses have settled: an interface gets several at once."""
END_TIME = 0.5
"""Seconds for the thread to end."""
MILLISECONDS = 1_000
MESSAGE_SIZE = 65_536


class AddressWatch:
    """Calls a function after each change of the addresses, in a thread of its own, from start() to close()."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._changes: _AddressChanges | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread. Raises OSError when changes are not reported, and threads.NoThreadError."""
        changes = _AddressChanges()
        thread = threading.Thread(
            target=self._watch, args=(changes,), name='addresses', daemon=True
        )
        try:
            threads.start(thread)
        except threads.NoThreadError:
            changes.close()
            raise
        self._changes = changes
        self._thread = thread

    def close(self) -> None:
        """Ends the thread, for which it waits a moment."""
        if self._changes is None or self._thread is None:
            return
        self._changes.end()
        self._thread.join(END_TIME)

    def _watch(self, changes: '_AddressChanges') -> None:
        """The thread."""
        with closing(changes):
            while changes.wait():
                self._on_change()


class _AddressChanges:
    """Waits for changes, in one thread; end() may be called from another. Raises OSError without netlink."""

    def __init__(self) -> None:
        # getattr: mypy knows the constants on Linux only
        family = getattr(socket, 'AF_NETLINK', None)
        if family is None:
            raise OSError('this system has no netlink')
        self._netlink = socket.socket(family, socket.SOCK_RAW, 0)  # 0 is NETLINK_ROUTE
        self._ended, self._end = socket.socketpair()
        self._netlink.bind((0, ADDRESS_GROUP))

    def wait(self) -> bool:
        """Sleeps until the addresses have changed and settled; False when that will not be waited for any more."""
        poll = select.poll()
        poll.register(self._netlink, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        timeout: float | None = None
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(timeout)}
            if self._ended.fileno() in ready:
                return False
            if not ready:
                return True
            with suppress(OSError):  # ENOBUFS: so many messages that some were lost
                self._netlink.recv(MESSAGE_SIZE)
            timeout = SETTLE_TIME * MILLISECONDS

    def end(self) -> None:
        """Ends the waiting, from any thread."""
        with suppress(OSError):
            self._end.send(b'.')

    def close(self) -> None:
        """Closes the sockets, when nobody waits any more."""
        for each in (self._netlink, self._ended, self._end):
            each.close()
