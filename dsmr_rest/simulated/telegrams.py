"""What a simulated meter sends: the state of the house, in the words of a version of the standard.

Pure, but for the templates, which are read once. Of the program that is tested with it, this module knows only the
checksum: it must not repeat a mistake in how that program reads a telegram.
"""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dsmr_rest.p1.checksum import crc16
from dsmr_rest.simulated.house import (
    BELGIAN_TARIFFS,
    DELIVERED,
    FIVE_MINUTES,
    GAS_M3_PER_HOUR,
    GRID_VOLTS,
    HOUR,
    LOW,
    NORMAL,
    START_GAS_M3,
    START_WATER_M3,
    USED,
    WATER_M3_PER_HOUR,
    WATTS_PER_VOLT,
    demand_kw,
    energy_kwh,
    metered,
    month_peak,
    past_peaks,
    phases_w,
    stamp_of,
    tariff_at,
)

TEMPLATES = Path(__file__).with_name('templates')
"""One file per version: a telegram as str.format_map() takes it, without the last line. _fields() supplies the fields.
Energy is by tariff, LOW (1) and NORMAL (2), but for its totals; volts, amperes and phases_... are by phase, from 0."""


def _fields(now: datetime) -> dict[str, Any]:
    watts = phases_w(now)
    net_kw = sum(watts) / 1000
    volts = [GRID_VOLTS - phase / WATTS_PER_VOLT for phase in watts]
    tariff = tariff_at(now)
    used_kwh = {number: energy_kwh(now, USED, number) for number in (LOW, NORMAL)}
    delivered_kwh = {number: energy_kwh(now, DELIVERED, number) for number in (LOW, NORMAL)}
    peaks = [
        f'({stamp_of(end)})({peak.stamp})({peak.value:06.3f}*kW)' for end, peak in past_peaks(now)
    ]
    return {
        'time': stamp_of(now),
        'tariff': tariff,
        'belgian_tariff': BELGIAN_TARIFFS[tariff],
        'used_kwh': used_kwh,
        'delivered_kwh': delivered_kwh,
        'used_total_kwh': sum(used_kwh.values()),
        'delivered_total_kwh': sum(delivered_kwh.values()),
        'used_kw': max(0.0, net_kw),
        'delivered_kw': max(0.0, -net_kw),
        'phases_used_kw': [max(0.0, phase / 1000) for phase in watts],
        'phases_delivered_kw': [max(0.0, -phase / 1000) for phase in watts],
        'volts': volts,
        'amperes': [abs(phase) / voltage for phase, voltage in zip(watts, volts, strict=True)],
        'demand_kw': demand_kw(now),
        'month_peak': month_peak(now),
        'past_peaks': ''.join(peaks),
        'gas': metered(now, FIVE_MINUTES, START_GAS_M3, GAS_M3_PER_HOUR),
        'hourly_gas': metered(now, HOUR, START_GAS_M3, GAS_M3_PER_HOUR),
        'water': metered(now, FIVE_MINUTES, START_WATER_M3, WATER_M3_PER_HOUR),
    }


class Version(NamedTuple):
    """What a companion standard specifies: the lines, the seconds between telegrams, the baud rate."""

    template: str
    interval: float
    baud_rate: int
    checksum: bool = True


VERSIONS = {
    '5.0': Version('dsmr-5.0.txt', 1, 115200),
    '4.2': Version('dsmr-4.2.txt', 10, 115200),
    '2.2': Version('dsmr-2.2.txt', 10, 9600, checksum=False),
    'belgium': Version('belgium.txt', 1, 115200),
    'sweden': Version('sweden.txt', 10, 115200),
}


@cache
def _template(version: str) -> str:
    path = TEMPLATES / VERSIONS[version].template
    return path.read_text(encoding='ascii').replace('\n', '\r\n')


def with_checksum(text: str | bytes) -> bytes:
    """The telegram that consists of the given lines, from '/' to the last line end, and of the `!XXXX` line."""
    if isinstance(text, str):
        text = text.encode('latin-1')
    body = text + b'!'
    return b'%b%04X\r\n' % (body, crc16(body))


def telegram(version: str, now: datetime) -> bytes:
    """What a meter of that version sends at that moment, a datetime with a time zone."""
    text = _template(version).format_map(_fields(now))
    if VERSIONS[version].checksum:
        return with_checksum(text)
    return f'{text}!\r\n'.encode('ascii')
