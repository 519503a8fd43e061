"""A line that knows when each telegram's last byte went out: telegrams of a simulated meter, numbered by a counter."""

import os
import pty
import re
import threading
import time
import tty
from datetime import datetime

from dsmr_rest.simulated_meter import DUTCH, House, telegram, with_checksum

BYTES_PER_SECOND = 115200 / 10


class Line:
    """Sends a telegram every `interval` s on a pty, `arrival` bytes at a time as they come at 115200 baud.

    Interval 0: one behind the other as fast as they are read. `ended` has the monotonic time of each last byte, by the
    number that stands in 1-0:1.8.1.
    """

    def __init__(self, interval: float, arrival: int = 16) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.device = os.ttyname(self._slave)
        self.ended: dict[float, float] = {}
        self.sent = 0
        self._interval, self._arrival = interval, arrival
        plain = telegram(House(), '5.0', datetime.now(DUTCH)).decode()
        self._text = plain[: plain.rindex('!')]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name='line')
        os.set_blocking(self._master, False)
        self._thread.start()

    def _run(self) -> None:
        at = time.monotonic()
        while not self._stop.is_set():
            number = self.sent / 1000
            data = with_checksum(re.sub(r'(1-0:1\.8\.1\()[\d.]+', rf'\g<1>{number:010.3f}', self._text))
            if self._interval:
                self._trickle(data, at, number)
            else:
                self._push(data)
            self.sent += 1
            at = max(at + self._interval, time.monotonic() - self._interval)
            self._stop.wait(at - time.monotonic())

    def _trickle(self, data: bytes, at: float, number: float) -> None:
        for start in range(0, len(data), self._arrival):
            chunk = data[start : start + self._arrival]
            time.sleep(max(0.0, at + (start + len(chunk)) / BYTES_PER_SECOND - time.monotonic()))
            self.ended[number] = time.monotonic()
            try:
                os.write(self._master, chunk)
            except BlockingIOError:  # nobody reads
                return

    def _push(self, data: bytes) -> None:
        while data and not self._stop.is_set():
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                time.sleep(0.0005)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)
