"""A telegram: what the wire hands over, and what a reading is made of.

Values only: this module does not know how a telegram is found among bytes or proved, nor what its lines mean.
"""

from enum import Enum
from typing import NamedTuple


class Proof(Enum):
    """What shows that a telegram arrived as the meter sent it."""

    CHECKSUM = 'checksum'
    """The checksum at its end holds (DSMR 4 and later)."""
    PARITY = 'parity'
    """Every byte has the parity bit of a 7E1 line (DSMR 2.2 and 3), which one changed bit does not survive."""
    AUTHENTICATION = 'authentication'
    """The tag of its encrypted frame holds (AES-GCM, IEC 62056-5-3)."""
    NOTHING = 'nothing'
    """The meter sends none of these, or [meter] checksum = ignore."""


class Telegram(NamedTuple):
    """A whole telegram that may be served, from '/' to the end of its last line.

    `raw` is as received, but without the parity bits of a 7E1 line. `has_changed_line_ends` when its checksum holds
    only with the CR LF that the meter sent, because something on the way has changed the line ends.
    """

    raw: bytes
    verified_by: Proof
    has_changed_line_ends: bool = False
