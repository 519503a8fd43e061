"""Backlog: what a network has held back is not handed out as new."""

from dataclasses import replace

import pytest

from dsmr_rest.p1.backlog import LATE, LEAST_DELAY, Backlog
from tests.telegrams import of_version, read

OLD = read(of_version('5.0'))
NEW = replace(OLD, arrived=1.0)


def test_a_punctual_meter_s_readings_are_handed_out_at_once() -> None:
    """While nothing is late, nothing is held."""
    backlog = Backlog()
    for _ in range(3):
        backlog.bytes_arrived(1.0, 1.0)
        assert backlog.reading_arrived(OLD) is OLD
        assert backlog.line_paused() is None


def test_after_a_delay_only_the_last_reading_before_a_pause_counts() -> None:
    """Readings that come one after the other without a pause may all be old but the last."""
    backlog = Backlog()
    backlog.bytes_arrived(9.0, 1.0)
    assert backlog.reading_arrived(OLD) is None
    backlog.bytes_arrived(0.1, 1.0)
    assert backlog.reading_arrived(NEW) is None
    assert backlog.line_paused() is NEW
    assert backlog.line_paused() is None
    backlog.bytes_arrived(1.0, 1.0)
    assert backlog.reading_arrived(OLD) is OLD


@pytest.mark.parametrize(
    ('silence', 'interval', 'is_held'),
    [
        (LEAST_DELAY, 1.0, False),
        (LEAST_DELAY + 0.1, 1.0, True),
        (10.0 * LATE, 10.0, False),
        (10.0 * LATE + 0.1, 10.0, True),
        (60.0, None, False),
    ],
)
def test_how_late_a_port_must_be(silence: float, interval: float | None, *, is_held: bool) -> None:
    """Later than the meter's interval and a half, and than two seconds; without a known interval nothing is late."""
    backlog = Backlog()
    backlog.bytes_arrived(silence, interval)
    assert (backlog.reading_arrived(OLD) is None) == is_held
