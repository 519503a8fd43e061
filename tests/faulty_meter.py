"""A simulated meter with faults: silence, wrong digits, noise, a loose plug, and a reader at another baud rate.

It can also send when it is asked to, and knows how far its reader is, so that a test need not rely on a clock.
"""

import os
import re
import select
import termios
import threading
import time
from pathlib import Path
from typing import Any

from dsmr_rest.p1.line import BITS_PER_BYTE
from dsmr_rest.simulated.meter import RETRY, PseudoTerminal, SimulatedMeter

PATIENCE = 60.0
"""Seconds that a test waits for the meter, far more than it needs on a busy machine."""
LOCKS = Path('/proc/locks')
"""The locks of all processes, proc_locks(5)."""
BAUD_RATES = {
    getattr(termios, f'B{rate}'): rate
    for rate in (300, 1200, 2400, 4800, 9600, 19200, 57600, 115200)
}
"""By the constants of termios. B38400 is left out: a pseudo-terminal has it until a reader opens it."""


class UnpluggedError(Exception):
    """The meter has no port at the moment."""


def is_locked(port: str) -> bool:
    """Whether a reader has locked the port, as each does while it is open. Looking disturbs no reader that opens it."""
    try:
        status = Path(port).stat()
    except FileNotFoundError:  # unplugged in this moment
        return False
    device = f'{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}'
    file = f' {device}:{status.st_ino} '
    return any('FLOCK' in line and file in line for line in LOCKS.read_text().splitlines())


def misread(data: bytes, sent_baud: int, read_baud: int) -> bytes:
    """The bytes that a receiver at another baud rate makes of the levels on the wire, sampled at its own times."""
    levels = []
    for byte in data:
        data_bits = [byte >> number & 1 for number in range(8)]
        levels += [0, *data_bits, 1]
    stride = sent_baud / read_baud
    time = 0.0  # in bits as sent
    received = bytearray()
    while time < len(levels):
        is_idle = levels[int(time)] == 1
        if is_idle:
            time = int(time) + 1
            continue
        byte = 0
        for number in range(8):
            sample = int(time + (number + 1.5) * stride)
            level = levels[sample] if sample < len(levels) else 1
            byte += level << number
        received.append(byte)
        time += BITS_PER_BYTE * stride
    return bytes(received)


class FaultyMeter(SimulatedMeter):
    """A simulated meter whose faults are attributes, which it looks at before each telegram.

    `silent`: it sends nothing. `corrupt_every` n: every n-th telegram has a wrong digit; 0: none has. `cut`: it sends
    only so many bytes of each telegram. `noise`: bytes sent before each telegram. A reader at another baud rate gets
    garbage.

    While it is silent, send() and ask() have it send all the same. `taken` counts the telegrams of which a reader that
    had the port open all the time took all that was sent.

    Tests assign the faults and the meter's thread reads each once per telegram. They need no lock: none depends on
    another, and one that comes too late for a telegram holds for the next. A test that must be sure calls hush().
    """

    silent = False
    corrupt_every = 0
    cut: int | None = None
    noise = b''

    def __init__(self, version: str = '5.0', *, link: str | None = None, **options: Any) -> None:
        self._link = link
        self._telegrams = 0
        self.taken = 0
        self._is_being_taken = (
            False  # of the last telegram: a reader was there, and may still be taking it
        )
        self._sending = threading.Lock()
        """Held from the look at `silent` to the end of the telegram."""
        self._asking = threading.Lock()
        """Guards `_asked`, which two threads count."""
        self._asked = 0  # telegrams to send although it is silent
        self._plug = threading.Lock()
        """Guards `terminal` and `_is_plugged_in`: nothing is written to a terminal that is being closed."""
        self._is_plugged_in = True
        super().__init__(version, link=link, **options)

    def __enter__(self) -> 'FaultyMeter':  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def hush(self) -> None:
        """Silence the meter; returns when nothing more is sent, not even the end of a telegram."""
        self.silent = True
        assert self._sending.acquire(timeout=PATIENCE), 'a telegram does not end'
        self._sending.release()

    @property
    def has_reader(self) -> bool:
        """Whether a reader has the port open."""
        return self._is_plugged_in and is_locked(self.port)

    def ask(self, count: int = 1) -> None:
        """Have a silent meter send so many telegrams, each when a reader has the port open and has taken the last one.

        As on any line, a reader that is only just opening the port may miss the beginning of the first.
        """
        with self._asking:
            self._asked += count

    def send(self, count: int = 1) -> None:
        """Have a silent meter send so many telegrams; return when the reader has taken them. See ask()."""
        self.ask(count)
        deadline = time.monotonic() + PATIENCE
        while self._asked:
            assert time.monotonic() < deadline, 'no reader takes the telegrams'
            time.sleep(RETRY)

    def unplug(self) -> None:
        """Take the port away, also from a reader that has it open."""
        with self._plug:
            self._is_plugged_in = False
            self.terminal.close()

    def plug_in(self) -> None:
        """Make the port again: under another name, unless there is a link. Has no effect while it is there."""
        with self._plug:
            if not self._is_plugged_in:
                self.terminal = PseudoTerminal(self._link)
                self._is_plugged_in = True

    def send_next(self) -> None:
        has_reader = self.has_reader
        self._count_taken(has_reader=has_reader)
        is_asked = self._asked > 0 and has_reader
        with self._sending:
            is_due = is_asked or not self.silent
            has_sent = is_due and self._send_with_faults()
        if not has_sent:
            self.wait(RETRY)
            return
        self._is_being_taken = has_reader
        if is_asked:
            self._wait_until_taken()
            with self._asking:
                self._asked -= 1

    def write(self, data: bytes) -> int:
        with self._plug:
            if not self._is_plugged_in:
                raise UnpluggedError
            # Both ends of a pseudo-terminal share its settings, so the meter sees the reader's.
            setting = termios.tcgetattr(self.terminal.master)[4]
            read_baud = BAUD_RATES.get(setting, self.baud_rate)
            if read_baud == self.baud_rate:
                return super().write(data)
            garbage = misread(data, self.baud_rate, read_baud)
            has_room = super().write(garbage) > 0
        return len(data) if has_room else 0

    def _count_taken(self, *, has_reader: bool) -> None:
        """Count the last telegram when the reader that was there at its beginning has taken it."""
        if self._is_being_taken and not has_reader:
            self._is_being_taken = False
        if self._is_being_taken and not self._has_unread():
            self._is_being_taken = False
            self.taken += 1

    def _wait_until_taken(self) -> None:
        """Return when the reader has taken the last telegram, or has closed the port, or the meter is closed."""
        self._count_taken(has_reader=self.has_reader)
        while self._is_being_taken and not self.wait(RETRY):
            self._count_taken(has_reader=self.has_reader)

    def _has_unread(self) -> bool:
        """Whether there are bytes on the line that the reader has not taken.

        Unlike FIONREAD, select() has the kernel first hand over what was only just written (tty_buffer_flush_work).
        """
        with self._plug:
            if not self._is_plugged_in:
                return False
            readable, _, _ = select.select([self.terminal.reader_end], [], [], 0)
        return bool(readable)

    def _send_with_faults(self) -> bool:
        """Send the next telegram; return whether all that was to be sent of it found a line."""
        self._telegrams += 1
        self.last = self._corrupted(self.source())
        cut = self.cut
        sent = self.last[:cut]
        try:
            is_out = self.transmit(self.noise + sent)
        except UnpluggedError:
            return False
        if is_out and sent == self.last:
            self.sent += 1
        return is_out

    def _corrupted(self, telegram: bytes) -> bytes:
        """The telegram, with its first digit before a unit exchanged when it is its turn."""
        every = self.corrupt_every
        if every == 0 or self._telegrams % every:
            return telegram
        return re.sub(rb'\d(?=\*)', lambda digit: b'%d' % (9 - int(digit[0])), telegram, count=1)
