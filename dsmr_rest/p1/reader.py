"""P1Reader: the meter's port as a series of readings.

It is dsmr_parser's SerialReader, made from a device, serial settings and a specification, whose read() generates what
the meter sends. It opens the port with the serial settings of that base, but with pyserial, and in a loop of its own:
since dsmr_parser 1.7 the base reads through another serial package, and its read() never returns on a silent line.

This module decides when the port is read, when its bytes are too old, and when its baud rate changes. It does not know
what the bytes mean (intake.py), how a port works (port.py), or who waits for a reading, and it has no threads.
"""

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from dsmr_parser.clients.serial_ import SerialReader

from dsmr_rest.choices import BAUD_RATES
from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.p1.backlog import Backlog
from dsmr_rest.p1.baud_rate_search import BaudRateSearch
from dsmr_rest.p1.intake import Intake
from dsmr_rest.p1.line import BITS_PER_BYTE, LONGEST_SILENCE, LineCounters, LineState
from dsmr_rest.p1.port import TICK, Port, is_remote, serial_settings
from dsmr_rest.process import clock
from dsmr_rest.reading.document import Reading

if TYPE_CHECKING:
    from dsmr_rest.p1.inquiry import Inquiry

log = logging.getLogger(__name__)

NOTHING_TO_PARSE: dict[str, list[object]] = {'objects': []}
"""The specification for the parser of the base, which is not used, and would compile a pattern for each object."""
LONGEST_ROUND = 2 * TICK
"""Seconds from one read to the next: bytes may gather for a TICK, and a read may wait for one."""
STALL_TIME = 1.0
"""Seconds beyond those that reading takes, after which what arrived meanwhile is of unknown age."""
END_IN_SIGHT = 16
"""Bytes before the expected end of a telegram from which each arrival is read at once; before that they gather.

Weighed by `python -m benchmarks`, which has arrivals of 16 and of 180 bytes: delay on one side, CPU on the other.
"""
LINE_CHUNK = 512
"""Bytes: more at a time than a serial adapter hands over, so it comes from something faster than a line."""


class P1Reader(SerialReader):  # type: ignore[misc] # the library has no types
    """Reads the meter at `settings.port`; one thread at a time. `state` and why_nothing() are for any thread.

    `longest_silence` is in seconds, see LONGEST_SILENCE.
    """

    def __init__(self, settings: MeterSettings, longest_silence: float = LONGEST_SILENCE) -> None:
        super().__init__(settings.port, serial_settings(), NOTHING_TO_PARSE)
        self.settings = settings
        self.longest_silence = longest_silence
        self._search = BaudRateSearch(*_baud_rates(settings.line), longest_silence=longest_silence)
        self._intake = Intake(settings)
        self._is_remote = is_remote(settings.port)

    @property
    def state(self) -> LineState:
        """What has been seen on the line so far."""
        return self._intake.state

    @property
    def counters(self) -> LineCounters:
        """What happened on the line so far."""
        return self.state.counters

    @property
    def line(self) -> str:
        """The line settings in use, as config.ini names them."""
        return _line_settings(self.settings.line, self._search.baud_rate)

    @property
    def baud_rates_tried(self) -> list[int]:
        """The baud rates at which no telegram was found, or the one at which the last was."""
        return list(self._search.tried)

    @cached_property
    def _inquiry(self) -> 'Inquiry':
        return _new_inquiry(self.settings.port, self.longest_silence, is_remote=self._is_remote)

    def read(self) -> Generator[Reading | None, None, None]:
        """Opens the port and generates a reading for what arrives, and None after each look at the port.

        A look takes at most LONGEST_ROUND seconds, so that the caller can stop between two; closing the generator
        closes the port. Raises MeterError when the port cannot be opened or is lost, and when telegrams cannot be
        decrypted.
        """
        while True:
            with closing(self._open()) as port:
                try:
                    yield from self._read_port(port)
                except OSError as error:
                    self._intake.note_loss()
                    raise self._inquiry.lost(error, is_there=port.is_there) from error

    def read_as_object(self) -> NoReturn:
        """Not supported: the base would open the port a second time, through another serial package."""
        raise NotImplementedError('read_as_object() is not supported: use read()')

    def why_nothing(
        self, before: LineCounters, waited: float, *, overslept: float = 0.0
    ) -> MeterError:
        """Why there was no reading for `waited` seconds, by what was seen since `before` was counted.

        `overslept` are the seconds by which the caller noticed the end of its wait too late. May take some time,
        because it looks which other programs use the port.
        """
        return self._inquiry.nothing_arrived(self.state, before, waited, self.line, overslept)

    def _open(self) -> Port:
        try:
            port = Port(self.serial_settings | {'baudrate': self._search.baud_rate})
        except OSError as error:
            raise self._inquiry.refused(error) from error
        self._intake.begin()
        return port

    def _read_port(self, port: Port) -> Iterator[Reading | None]:
        """Generates readings until the port is lost, or a remote port must be connected to again.

        A process that is stopped, or swapped out, reads late what was received in time. Such a telegram must not be
        served as a new one: a local port is emptied, and a remote one is left, because its peer may have kept more than
        has arrived. A remote port that is silent for long is left too: a peer on the network that went away without a
        word is silent for ever.
        """
        backlog = Backlog()
        last_read = last_heard = time.monotonic()
        while True:
            began = time.monotonic()
            data = port.read()
            now = time.monotonic()
            stall = now - last_read - LONGEST_ROUND
            last_read = now
            if stall > STALL_TIME:
                self._note_stall(stall)
                if self._is_remote:
                    return
                port.discard()
                yield None
                continue
            if data:
                if self._is_remote:
                    backlog.bytes_arrived(now - last_heard, self.state.interval)
                last_heard = now
                yield self._take(data, backlog)
                self._gather(len(data))
            else:
                yield backlog.line_paused()
            self._follow_search(port, data, now - began)
            if self._is_remote and now - last_heard > self.longest_silence:
                return

    def _note_stall(self, seconds: float) -> None:
        log.warning(
            'this server did not run for %.1f s: what arrived meanwhile is discarded', seconds
        )
        self._intake.note_stall(seconds, clock.now())

    def _take(self, data: bytes, backlog: Backlog) -> Reading | None:
        """The reading that these bytes complete and that may be handed out, if any."""
        outcome = self._intake.feed(data, clock.now())
        if outcome.found:
            self._search.telegram_found()
        if outcome.reading is None:
            return None
        return backlog.reading_arrived(outcome.reading)

    def _gather(self, arrived: int) -> None:
        """Sleeps while the greater part of a telegram arrives, by the length of the one before.

        Each wake-up costs as much as framing 50 bytes, so few are better; but the end must be seen as soon as it is
        there. What arrives faster than a line can carry is not on a line, and is there already.
        """
        if arrived >= LINE_CHUNK:
            return
        before_end = self._intake.last_length - END_IN_SIGHT
        missing = before_end - self._intake.framer.pending
        if 0 < missing < before_end:
            time.sleep(min(TICK, missing * BITS_PER_BYTE / self._search.baud_rate))

    def _follow_search(self, port: Port, data: bytes, seconds: float) -> None:
        """Tells the search what a read of `seconds` has brought, and sets the port to the baud rate that it wants."""
        framer = self._intake.framer
        if data:
            has_changed = self._search.bytes_arrived(
                seconds, framer.unexplained, framer.unprintable, inside_telegram=framer.inside
            )
        else:
            has_changed = self._search.nothing_arrived(seconds, framer.unexplained)
        if has_changed:
            self._intake.discard()
            port.set_baud_rate(self._search.baud_rate)


def _new_inquiry(port: str, longest_silence: float, *, is_remote: bool) -> 'Inquiry':
    """Two threads that ask at once may get one each. Then each looks by itself which programs use the port."""
    from dsmr_rest.p1.inquiry import Inquiry  # noqa: PLC0415 no reading needs it, so the start does not wait for it

    return Inquiry(port, longest_silence, is_remote=is_remote)


def _baud_rates(line: str) -> list[int]:
    """Those to search, the one of most meters first."""
    if line == 'auto':
        return [BAUD_RATES['115200 8N1'], BAUD_RATES['9600 7E1']]
    return [BAUD_RATES[line]]


def _line_settings(setting: str, baud_rate: int) -> str:
    """The line settings at a baud rate that was found have their usual name: 9600 baud is 9600 7E1."""
    if setting != 'auto':
        return setting
    if baud_rate == BAUD_RATES['115200 8N1']:
        return '115200 8N1'
    return '9600 7E1'
