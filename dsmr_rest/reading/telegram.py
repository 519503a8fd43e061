"""A telegram: what the wire hands over, and what a reading is made of.

A value only: this module does not know how a telegram is found among bytes, nor what its lines mean.
"""

from typing import NamedTuple


class Telegram(NamedTuple):
    """A whole telegram as on the wire, from '/' to the end of its last line."""

    raw: bytes
    checksum_holds: bool | None
    """None when the telegram has no checksum (DSMR 2.2 and 3)."""
