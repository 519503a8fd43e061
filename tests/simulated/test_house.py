"""What the simulated house does: its power, its counters and its peaks at any moment."""

from datetime import datetime, timedelta, timezone

import pytest

from dsmr_rest.simulated.house import (
    DELIVERED,
    DUTCH,
    HOUR,
    LOW,
    MINUTE,
    NORMAL,
    PEAKS_KW,
    QUARTER,
    USED,
    demand_kw,
    energy_kwh,
    month_peak,
    past_peaks,
    phases_w,
    tariff_at,
)
from tests.library_reading import reading

SUMMER_NOON = datetime(2024, 6, 21, 13, 40, 5, tzinfo=DUTCH)
NIGHT = datetime(2024, 6, 22, 2, 0, tzinfo=DUTCH)
COUNTERS = [(direction, tariff) for direction in (USED, DELIVERED) for tariff in (LOW, NORMAL)]


@pytest.mark.parametrize('month', [1, 6])
def test_counters_are_the_integral_of_power(month: int) -> None:
    """Over a day counters never fall, all but one grow, and electricity's grow by power times time."""
    begin = datetime(2024, month, 19, tzinfo=timezone.utc)
    first = last = counters(begin)
    used = delivered = 0.0
    for second in range(5, 24 * 3600 + 1, 5):
        kilowatts = sum(phases_w(begin + timedelta(seconds=second - 5))) / 1000
        used += max(0, kilowatts) * 5 / 3600
        delivered += max(0, -kilowatts) * 5 / 3600
        if second % 300 == 0:
            now = counters(begin + timedelta(seconds=second))
            assert all(new >= old for new, old in zip(now, last, strict=True))
            last = now
    grown = [new - old for new, old in zip(last, first, strict=True)]
    assert sum(grown[:2]) == pytest.approx(used)
    assert sum(grown[2:4]) == pytest.approx(delivered)
    assert min(grown[0], grown[1], grown[3], *grown[4:]) > 0


def counters(moment: datetime) -> list[float]:
    """Energy used and delivered by tariff, gas, water."""
    energy = [energy_kwh(moment, direction, tariff) for direction, tariff in COUNTERS]
    devices = reading('belgium', moment).MBUS_DEVICES
    return [*energy, *(float(device.MBUS_METER_READING.value) for device in devices)]


def test_summer_noon_delivers_and_night_uses() -> None:
    """The sun makes the house deliver, the dark makes it use; it never does both at once."""
    noon, night = reading('5.0', SUMMER_NOON), reading('5.0', NIGHT)
    assert noon.CURRENT_ELECTRICITY_DELIVERY.value > 0.5
    assert noon.CURRENT_ELECTRICITY_USAGE.value == 0
    assert night.CURRENT_ELECTRICITY_USAGE.value > 0.1
    assert night.CURRENT_ELECTRICITY_DELIVERY.value == 0


def test_phases_agree() -> None:
    """On each phase power is either used or delivered, and is voltage times current."""
    for hour in range(24):
        result = reading('belgium', SUMMER_NOON + hour * HOUR)
        for phase in (1, 2, 3):
            used = getattr(result, f'INSTANTANEOUS_ACTIVE_POWER_L{phase}_POSITIVE').value
            delivered = getattr(result, f'INSTANTANEOUS_ACTIVE_POWER_L{phase}_NEGATIVE').value
            volts = getattr(result, f'INSTANTANEOUS_VOLTAGE_L{phase}').value
            amperes = getattr(result, f'INSTANTANEOUS_CURRENT_L{phase}').value
            assert min(used, delivered) == 0
            assert 220 < volts < 240
            assert float(volts * amperes) == pytest.approx(float(1000 * (used + delivered)), abs=3)


@pytest.mark.parametrize(
    ('moment', 'tariff'),
    [
        (datetime(2024, 1, 19, 6, 59, 59, tzinfo=DUTCH), LOW),
        (datetime(2024, 1, 19, 7, tzinfo=DUTCH), NORMAL),
        (datetime(2024, 1, 19, 22, 59, 59, tzinfo=DUTCH), NORMAL),
        (datetime(2024, 1, 19, 23, tzinfo=DUTCH), LOW),
        (datetime(2024, 1, 20, 12, tzinfo=DUTCH), NORMAL),
        (datetime(2024, 6, 21, 7, 59, tzinfo=DUTCH), LOW),
        (datetime(2024, 6, 21, 8, tzinfo=DUTCH), NORMAL),
    ],
)
def test_tariff_hours(moment: datetime, tariff: int) -> None:
    """The normal tariff applies every day from 7 to 23 h, in winter time all year round."""
    assert tariff_at(moment) == tariff


def test_each_tariff_counts_its_own_hours() -> None:
    """Each counter grows while its tariff holds and not otherwise."""
    begin = datetime(2024, 1, 16, 22, 30, tzinfo=DUTCH)
    grown = {tariff: energy_kwh(begin + HOUR / 2, USED, tariff) for tariff in (LOW, NORMAL)}
    assert grown[NORMAL] > energy_kwh(begin, USED, NORMAL)
    assert grown[LOW] == energy_kwh(begin, USED, LOW)


def test_the_october_night_lasts_an_hour_longer() -> None:
    """Counters across the change differ by the time that really passed."""
    half_past = [counters(datetime(2024, 10, 27, hour, 30, tzinfo=DUTCH)) for hour in (1, 3, 4)]
    used, gas = ([moment[index] for moment in half_past] for index in (0, 4))
    assert used[1] - used[0] == pytest.approx(3 * (used[2] - used[1]))
    assert gas[1] - gas[0] == pytest.approx(3 * (gas[2] - gas[1]), abs=0.002)


def test_quarter_hour_demand_starts_from_zero() -> None:
    """The demand grows through a quarter-hour to its average and is 0 again at its end."""
    begin = datetime(2024, 1, 16, 19, 0, tzinfo=DUTCH)
    for minute in range(1, 15):
        energy = energy_kwh(begin + minute * MINUTE, USED, NORMAL) - energy_kwh(begin, USED, NORMAL)
        assert demand_kw(begin + minute * MINUTE) == pytest.approx(energy * 4)
    assert demand_kw(begin + 15 * MINUTE) == 0


def test_no_quarter_hour_exceeds_the_month_peak() -> None:
    """From the end of the month's first quarter-hour on, its peak is constant and higher than every average power."""
    month = datetime(2024, 7, 1, tzinfo=DUTCH)
    peak = month_peak(month + QUARTER)
    assert peak.moment == month + QUARTER
    for days in range(31):
        assert month_peak(month + timedelta(days=days, hours=12)) == peak
    for quarter in range(96):
        begin = month + quarter * QUARTER
        used = sum(counters(begin + QUARTER)[:2]) - sum(counters(begin)[:2])
        assert used / (QUARTER / HOUR) < min(PEAKS_KW)


def test_month_peak_joins_the_past_ones() -> None:
    """At the end of a month its peak becomes the newest of thirteen, the oldest goes, a new one begins."""
    end = datetime(2024, 2, 1, tzinfo=DUTCH)
    peak, past = month_peak(end - 10 * MINUTE), past_peaks(end - 10 * MINUTE)
    assert past_peaks(end) == [*past[1:], (end, peak)]
    assert len({end for end, _ in past}) == 13
    assert month_peak(end).value == 0
    history = reading('belgium', end + MINUTE).BELGIUM_MAXIMUM_DEMAND_13_MONTHS
    assert len(history) == 13
    assert [entry.occurred for entry in history] == sorted(entry.occurred for entry in history)


def test_counters_of_years() -> None:
    """In a year a household's energy is used; a clock set far back finds the counters where they began."""
    used = [sum(counters(SUMMER_NOON + timedelta(days=days))[:2]) for days in (0, 366)]
    assert 1000 < used[1] - used[0] < 5000
    assert counters(datetime(1970, 1, 1, tzinfo=timezone.utc)) == counters(
        datetime(2023, 12, 31, tzinfo=DUTCH)
    )
