"""Intake: bytes in, readings out. What happens to the bytes of one opening of the port, step by step.

Framing finds telegrams and frames, frames are decrypted, telegrams are proved, and the last that is proved becomes a
reading. On the way everything is counted in a LineState, which says later why there was no reading. This module knows
the order of these steps and what is logged about them. It does not know the port, nor who waits for a reading.
"""

import logging
import time
from copy import copy
from typing import NamedTuple

from dsmr_rest.config import MeterSettings
from dsmr_rest.p1.framing import EncryptedFrame, Framer, ReceivedTelegram
from dsmr_rest.p1.line import LineCounters, LineState
from dsmr_rest.p1.problem_log import ProblemLog
from dsmr_rest.p1.proof import Prover, Rejection
from dsmr_rest.p1.unpacking import Unpacker
from dsmr_rest.reading.document import Reading, UnusableTelegramError, make_reading
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.reading.telegram import Proof, Telegram

log = logging.getLogger(__name__)

CODES_LOGGED = 10
"""OBIS codes named in one log line."""
FIRST_BYTES = 64
"""Bytes kept from the beginning of an opening, to show when they are not a telegram."""
LAST_BYTES = 2048
"""Bytes kept of the most recent ones, to recognize other protocols: more than their usual frames have."""

_COUNT_OF = {
    Rejection.WRONG_CHECKSUM: LineCounters(checksum_failures=1),
    Rejection.MISSING_CHECKSUM: LineCounters(checksum_failures=1),
    Rejection.WRONG_PARITY: LineCounters(parity_failures=1),
    Rejection.UNCONFIRMED: LineCounters(unconfirmed_telegrams=1),
}
"""What is counted for a telegram that must not be served."""


class _Proved(NamedTuple):
    """A telegram that may be served, and whether it came in an encrypted frame."""

    telegram: Telegram
    is_encrypted: bool


class Outcome(NamedTuple):
    """What some bytes have brought: `found` when a telegram or a frame ended, of whatever use, and a reading."""

    found: bool
    reading: Reading | None = None


class Intake:
    """Makes readings of what a meter sends. One thread at a time; only `state` may be looked at by any thread.

    `state` is what has been seen so far: a copy that is never changed, replaced after each step. `last_length` is the
    number of bytes of the last telegram or frame.
    """

    def __init__(self, settings: MeterSettings) -> None:
        self.state = LineState()
        self._seen = LineState()
        self.framer = Framer()
        self.last_length = 0
        self._settings = settings
        self._prover = Prover(ignores_checksum=settings.checksum == 'ignore')
        self._problems = ProblemLog()
        self._unpacker = Unpacker(settings, self._prover, self._problems)
        self._chooser = Chooser(settings.specification, settings.time_zone)
        self._last_arrival: float | None = None  # of a telegram, in this opening

    def begin(self) -> None:
        """A new opening of the port: what came before it does not belong to what comes now."""
        self._seen.first_bytes = b''
        self._seen.last_bytes = b''
        self._last_arrival = None
        self._count(LineCounters(port_openings=1))
        self.discard()

    def discard(self) -> None:
        """Forgets the beginning of a telegram."""
        self.framer = Framer()
        self._seen.is_inside_telegram = False
        self._publish()

    def note_loss(self) -> None:
        """The open port was lost."""
        self._count(LineCounters(port_losses=1))
        self._publish()

    def note_stall(self, seconds: float, now: float) -> None:
        """This program has not run for so long, and goes on at `now`: what it has of a telegram is worth nothing."""
        self._seen.stall = seconds
        self._seen.stall_end = now
        self.discard()

    def feed(self, data: bytes, arrived: float) -> Outcome:
        """What ended within `data`, and the reading of the last telegram that may be served.

        When several telegrams arrive in one read, something has held them back: only the last may be new, and the
        others are at least the meter's interval older. So they are counted and not handed out. `arrived` is a time of
        clock.now(). Raises MeterError when telegrams cannot be decrypted.
        """
        try:
            return self._feed(data, arrived)
        finally:
            self._publish()

    def _feed(self, data: bytes, arrived: float) -> Outcome:
        found = self._find(data, arrived)
        proved: list[_Proved] = []
        for each in found:
            self.last_length = len(each.raw)
            proved += self._prove(each)
        if found:
            self._note_interval(arrived)
        received = time.time()
        while proved:
            reading = self._reading(proved.pop(), received, arrived)
            if reading is not None:
                self._count(LineCounters(telegrams=1 + len(proved)))
                return Outcome(found=True, reading=reading)
        return Outcome(found=bool(found))

    def _find(self, data: bytes, arrived: float) -> list[ReceivedTelegram | EncryptedFrame]:
        incomplete_before = self.framer.incomplete
        found = self.framer.feed(data)
        incomplete = self.framer.incomplete - incomplete_before
        self._count(LineCounters(received_bytes=len(data), incomplete_telegrams=incomplete))
        seen = self._seen
        missing = max(0, FIRST_BYTES - len(seen.first_bytes))
        seen.first_bytes += data[:missing]
        if found:
            seen.last_bytes = b''
        else:
            seen.last_bytes = (seen.last_bytes + data)[-LAST_BYTES:]
        seen.last_byte = arrived
        seen.is_inside_telegram = self.framer.inside
        return found

    def _note_interval(self, arrived: float) -> None:
        if self._last_arrival is not None:
            self._seen.interval = arrived - self._last_arrival
        self._last_arrival = arrived

    def _prove(self, found: ReceivedTelegram | EncryptedFrame) -> list[_Proved]:
        """The telegrams in what was found that may be served. Raises MeterError when the keys do not work."""
        if isinstance(found, EncryptedFrame):
            return self._prove_encrypted(found)
        self._seen.is_encrypted = False
        outcome = self._prover.prove(found)
        self._seen.foreign_checksums = self._prover.foreign_checksums
        if isinstance(outcome, Rejection):
            self._count(_COUNT_OF[outcome])
            return []
        if outcome.has_changed_line_ends and self._problems.add('line ends'):
            log.warning(
                'the line ends of the telegrams were changed on the way, and nothing else: the port at %s is not raw',
                self._settings.port,
            )
        return [_Proved(outcome, is_encrypted=False)]

    def _prove_encrypted(self, frame: EncryptedFrame) -> list[_Proved]:
        self._seen.is_encrypted = True
        unpacked = self._unpacker.unpack(frame)
        self._count(unpacked.counted)
        if unpacked.invalid_because:
            self._count_invalid(unpacked.invalid_because)
        return [_Proved(telegram, is_encrypted=True) for telegram in unpacked.telegrams]

    def _count(self, more: LineCounters) -> None:
        self._seen.counters = self._seen.counters.plus(more)

    def _publish(self) -> None:
        self.state = copy(self._seen)

    def _count_invalid(self, reason: str) -> None:
        """Counts a telegram that arrived intact and cannot be served."""
        self._count(LineCounters(invalid_telegrams=1))
        self._seen.invalid_because = reason

    def _reading(self, proved: _Proved, received: float, arrived: float) -> Reading | None:
        """The boundary of a telegram: whatever is wrong with it costs its reading, and nothing else."""
        try:
            reading = make_reading(
                proved.telegram, self._chooser, received, arrived, encrypted=proved.is_encrypted
            )
        except UnusableTelegramError as error:
            # What nothing proves and nobody can read is no telegram that arrived intact, but bytes.
            if proved.telegram.verified_by is not Proof.NOTHING:
                self._count_invalid(str(error))
            return None
        except Exception as error:
            self._count(LineCounters(internal_errors=1))
            if self._problems.add('no reading', type(error).__name__):
                log.exception('a telegram from %s could not be read', self._settings.port)
            return None
        _log_not_understood(reading, self._problems)
        return reading


def _log_not_understood(reading: Reading, problems: ProblemLog) -> None:
    codes = reading.not_understood
    if not codes or not problems.add(reading.specification, *codes):
        return
    chosen = reading.specification
    if reading.unsure:
        chosen += ', unsure'
    listed = ' '.join(codes[:CODES_LOGGED])
    if len(codes) > CODES_LOGGED:
        listed += f' and {len(codes) - CODES_LOGGED} more'
    log.warning(
        'specification %s: these lines of the telegram are not understood, and their values are missing: %s',
        chosen,
        listed,
    )
