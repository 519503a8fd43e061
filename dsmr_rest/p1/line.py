"""Facts of the serial line between the meter and its reader, and what has been seen on it.

Values only: this module does not know how a port is opened or read.
"""

from dataclasses import dataclass
from typing import NamedTuple

BITS_PER_BYTE = 10
"""On the wire: both 8N1 and 7E1 take eight bits between a start bit and a stop bit."""
LONGEST_SILENCE = 11.0
"""Seconds. Meters send at least every 10 s (DSMR 2.2 to 4.x): a longer silence means another baud rate or no peer."""


class LineCounters(NamedTuple):
    """What happened on the line since the start of the program.

    Each whole telegram is counted once: as one of `telegrams`, which may be served, or by what is wrong with it. A
    telegram of an encrypted frame that could not be decrypted is only one of `decryption_failures`.
    """

    received_bytes: int = 0
    telegrams: int = 0
    checksum_failures: int = 0
    parity_failures: int = 0
    unconfirmed_telegrams: int = 0
    incomplete_telegrams: int = 0
    decryption_failures: int = 0
    invalid_telegrams: int = 0
    internal_errors: int = 0
    port_openings: int = 0
    port_losses: int = 0

    @property
    def damaged(self) -> int:
        """Telegrams without encryption that did not arrive as the meter sent them."""
        return self.checksum_failures + self.parity_failures

    def since(self, before: 'LineCounters') -> 'LineCounters':
        """The counts that were added after `before` was taken."""
        added = [now - then for now, then in zip(self, before, strict=True)]
        return LineCounters(*added)

    def plus(self, more: 'LineCounters') -> 'LineCounters':
        """These counts with some more, such as plus(LineCounters(telegrams=1))."""
        # Lists, because their length is known: CPython would keep 200 kB of the tuples that it makes of iterators.
        sums = [mine + others for mine, others in zip(self, more, strict=True)]
        return LineCounters(*sums)


NOTHING_COUNTED = LineCounters()


@dataclass
class LineState:
    """What has been seen on the line so far.

    Times are those of clock.now(), durations are in seconds.
    """

    counters: LineCounters = NOTHING_COUNTED
    first_bytes: bytes = b''
    """Since the port was opened; to show when they are not a telegram."""
    last_bytes: bytes = b''
    """The most recent ones, kept until a telegram is found; to recognize what they are instead."""
    is_inside_telegram: bool = False
    """Whether a telegram has begun and not ended."""
    last_byte: float | None = None
    """When the last byte arrived."""
    interval: float | None = None
    """Between the last two telegrams of one opening of the port."""
    is_encrypted: bool = False
    """Whether the last telegram came in an encrypted frame."""
    invalid_because: str = ''
    """Why the last telegram that arrived intact could not be served."""
    foreign_checksums: int = 0
    """Telegrams in a row whose lines all have a form, but whose checksum is one that has never held."""
    stall_end: float | None = None
    """When this program went on after it had not run for some time."""
    stall: float = 0.0
    """How long it had not run."""
