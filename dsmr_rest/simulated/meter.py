"""A smart meter on a pseudo-terminal: for --demo, for the tests, and by hand (python -m dsmr_rest.simulated).

It behaves as a meter on a wire does: it sends whether or not anybody listens, at the baud rate of its line, and what
finds no room is lost. This module has the clock, the thread and the line; it does not know what a telegram says. Of the
program that is tested with it, it knows only the facts of the line.
"""

import os
import threading
import time
import tty
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from dsmr_rest.p1.line import BITS_PER_BYTE
from dsmr_rest.simulated.telegrams import VERSIONS, telegram

CHUNK = 16
"""Bytes sent at once: about what a USB cable passes on at once."""
RETRY = 0.005
"""Seconds between two attempts to write to a line that has no room."""


class PseudoTerminal:
    """A line between this process, which writes, and a reader, which opens `name`: the device, or a link to it.

    Raises FileExistsError when the link's name is taken.
    """

    def __init__(self, link: str | None = None) -> None:
        with ExitStack() as undo:
            self.master, self.reader_end = os.openpty()
            undo.callback(os.close, self.master)
            undo.callback(os.close, self.reader_end)  # held open here, it outlives its readers
            tty.setraw(self.reader_end)
            os.set_blocking(self.master, False)
            self.name = os.ttyname(self.reader_end)
            if link is not None:
                Path(link).symlink_to(self.name)
                undo.callback(Path(link).unlink, missing_ok=True)
                self.name = link
            self._undo = undo.pop_all()

    def write(self, data: bytes) -> int:
        """The number of bytes that found room."""
        try:
            return os.write(self.master, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Take the line away, also from a reader that has it open; has no effect the second time."""
        self._undo.close()


class SimulatedMeter:
    """A running meter: a reader opens `port`, and close() ends it.

    Telegrams begin `interval` seconds apart, or when the previous one is out if that is later, and their bytes take the
    time that they need at `baud_rate`. With interval 0 telegrams come as fast as the reader takes them: the meter waits
    for room, and nothing is lost. `source` makes each telegram at the moment it is sent.

    `last` is the newest telegram, `sent` counts those that went out whole. These two are assigned by the meter's thread
    only, and `baud_rate` by other threads only. They need no lock: nothing depends on two of them together, and a value
    that is a moment old does no harm.

    A subclass may override send_next() and write().
    """

    def __init__(
        self,
        version: str = '5.0',
        *,
        interval: float | None = None,
        link: str | None = None,
        baud: int | None = None,
        source: Callable[[], bytes] | None = None,
    ) -> None:
        standard = VERSIONS[version]
        if interval is None:
            interval = standard.interval
        self.interval = interval
        self.baud_rate = baud or standard.baud_rate
        self.source = source or (lambda: telegram(version, datetime.now(timezone.utc)))
        self.sent = 0
        self.last = b''
        self.terminal = PseudoTerminal(link)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='simulated-meter', daemon=True)
        self._thread.start()

    @property
    def port(self) -> str:
        return self.terminal.name

    def __enter__(self) -> 'SimulatedMeter':  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self.terminal.close()

    def send_next(self) -> None:
        """Send one telegram. Called by the meter's thread, once per interval."""
        self.last = self.source()
        if self.transmit(self.last):
            self.sent += 1

    def write(self, data: bytes) -> int:
        """Put bytes on the line; return how many found room. Called by the meter's thread."""
        return self.terminal.write(data)

    def wait(self, seconds: float) -> bool:
        """Wait, and return early with True when the meter is closed. For the meter's thread."""
        return self._closed.wait(seconds)

    def transmit(self, data: bytes) -> bool:
        """Send bytes as the interval demands; return False if the meter was closed before all were sent."""
        if self.interval:
            return self._transmit_paced(data)
        return self._transmit_unpaced(data)

    def _transmit_paced(self, data: bytes) -> bool:
        arrival = time.monotonic()
        for start in range(0, len(data), CHUNK):
            chunk = data[start : start + CHUNK]
            arrival += len(chunk) * BITS_PER_BYTE / self.baud_rate
            if self.wait(arrival - time.monotonic()):
                return False
            self.write(chunk)
        return True

    def _transmit_unpaced(self, data: bytes) -> bool:
        while data:
            taken = self.write(data[:CHUNK])
            data = data[taken:]
            if not taken and self.wait(RETRY):
                return False
        return True

    def _run(self) -> None:
        due = time.monotonic()
        while not self.wait(due - time.monotonic()):
            self.send_next()
            due = max(due + self.interval, time.monotonic())
