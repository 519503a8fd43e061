"""The loop that tests read a meter with."""

import time
from collections.abc import Callable
from contextlib import closing

from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.reading.document import Reading

PATIENCE = 20.0
"""Seconds until a test that waits for readings fails."""


def read_until(reader: P1Reader, enough: Callable[[list[Reading]], object]) -> list[Reading]:
    """The readings of one opening; `enough` is asked whenever read() generates something, a reading or None."""
    readings: list[Reading] = []
    deadline = time.monotonic() + PATIENCE
    with closing(reader.read()) as stream:
        for reading in stream:
            if reading:
                readings.append(reading)
            if enough(readings):
                return readings
            assert time.monotonic() < deadline, (
                len(readings),
                reader.counters,
                reader.baud_rates_tried,
            )
    raise AssertionError
