"""A line that records when the last byte of each telegram was sent. A counter numbers the telegrams."""

import re
import threading
import time
from datetime import datetime

from dsmr_rest.p1.line import BITS_PER_BYTE
from dsmr_rest.simulated.house import DUTCH
from dsmr_rest.simulated.meter import PseudoTerminal
from dsmr_rest.simulated.telegrams import telegram, with_checksum

BYTES_PER_SECOND = 115200 / BITS_PER_BYTE
RETRY = 0.0005
"""Seconds between two attempts to write to a line that has no room."""
COUNTER = re.compile(r'(1-0:1\.8\.1\()[\d.]+')


class Line:
    """Sends a telegram every `interval` seconds on a pseudo-terminal, `chunk` bytes at a time, paced at 115200 baud.

    Between hold() and release() none is sent. With interval 0 telegrams are sent as fast as they are read. `ended` maps
    the number of a telegram, which is the value of its 1-0:1.8.1, to the monotonic time of its last byte. `sent` counts
    all telegrams, also those that were not read.

    Only the line's thread assigns to `ended` and `sent`. They need no lock: the time of a telegram is in `ended` before
    its last byte is sent, and a count that is a moment old does no harm.
    """

    def __init__(self, interval: float, chunk: int = 16) -> None:
        self.ended: dict[float, float] = {}
        self.sent = 0
        self._interval = interval
        self._chunk = chunk
        whole = telegram('5.0', datetime.now(DUTCH)).decode()
        self._text = whole[: whole.rindex('!')]
        self._terminal = PseudoTerminal()
        self._closed = threading.Event()
        self._may_send = threading.Lock()  # has whoever sends, or holds the line
        self._thread = threading.Thread(target=self._run, name='line')
        self._thread.start()

    @property
    def device(self) -> str:
        return self._terminal.name

    def hold(self) -> None:
        """Returns when no telegram is under way any more; the next one comes after release()."""
        self._may_send.acquire()

    def release(self) -> None:
        self._may_send.release()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._terminal.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._closed.is_set():
            number = self.sent / 1000
            data = with_checksum(COUNTER.sub(rf'\g<1>{number:010.3f}', self._text))
            with self._may_send:
                self._send(data, due, number)
            self.sent += 1
            due = max(due + self._interval, time.monotonic() - self._interval)
            self._closed.wait(due - time.monotonic())

    def _send(self, data: bytes, due: float, number: float) -> None:
        if self._interval:
            # The pace is that of a line also when it has been held.
            begin = max(due, time.monotonic())
            self._send_paced(data, begin, number)
        else:
            self._send_unpaced(data)

    def _send_paced(self, data: bytes, begin: float, number: float) -> None:
        for start in range(0, len(data), self._chunk):
            chunk = data[start : start + self._chunk]
            arrival = begin + (start + len(chunk)) / BYTES_PER_SECOND
            time.sleep(max(0.0, arrival - time.monotonic()))
            self.ended[number] = time.monotonic()
            if not self._terminal.write(chunk):  # nobody reads
                return

    def _send_unpaced(self, data: bytes) -> None:
        while data and not self._closed.is_set():
            taken = self._terminal.write(data)
            data = data[taken:]
            if not taken:
                time.sleep(RETRY)
