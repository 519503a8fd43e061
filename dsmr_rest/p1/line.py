"""Facts of the serial line between the meter and its reader: line settings, bits per byte, and what was counted on it.

Values only: this module does not know how a port is opened or read.
"""

from operator import sub
from typing import NamedTuple

BITS_PER_BYTE = 10
"""On the wire: both 8N1 and 7E1 take eight bits between a start bit and a stop bit."""
LONGEST_SILENCE = 11.0
"""Seconds. Meters send at least every 10 s (DSMR 2.2 to 4.x): a longer silence means another baud rate or no peer."""


class LineCounters(NamedTuple):
    """What happened on the line since the start of the program."""

    received_bytes: int = 0
    telegrams: int = 0
    checksum_failures: int = 0
    incomplete_telegrams: int = 0
    decryption_failures: int = 0
    invalid_telegrams: int = 0
    port_openings: int = 0
    port_losses: int = 0

    def since(self, before: 'LineCounters') -> 'LineCounters':
        """The counts that were added after `before` was taken."""
        added = map(sub, self, before)
        return LineCounters(*added)

    def plus(self, **added: int) -> 'LineCounters':
        """These counts with some more, such as plus(telegrams=1)."""
        sums = {name: getattr(self, name) + count for name, count in added.items()}
        return self._replace(**sums)
