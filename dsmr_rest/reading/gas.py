"""Which of the M-Bus devices is the gas meter in use, and the keys that it has at the top of the document.

A gas meter that was removed stays in the telegrams, with its last reading. What tells it from the one in use is the
time of its reading; and of the three clocks involved each may be wrong. Of meters in use, some have electricity meters
whose clocks are months or decades behind; a removed gas meter may have a time years ahead; a Raspberry Pi without
network does not know the time at all.

Pure: it knows the keys of the document, and is told what time it is.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from dsmr_rest.reading.mbus import GAS_METER, MbusDevice, mbus_device
from dsmr_rest.reading.quantities import (
    GAS,
    GAS_IDENTIFIER,
    TIME_OF_TELEGRAM,
    moment_of,
    time_of,
)

CLOCK_TOLERANCE = timedelta(days=1)
"""How far two clocks that are right may differ, and how old the reading of a gas meter in use is at most."""


class _GasReading(NamedTuple):
    time: datetime
    meter: MbusDevice


def gas_keys(
    document: Mapping[str, Any], devices: list[dict[str, Any]], received: float
) -> dict[str, Any]:
    """The keys at the top for the gas meter in use, of these items of mbusDevices; empty when none has a reading.

    `document` is what else is at the top, and `received` the Unix time at which the telegram arrived.
    """
    readings = []
    for device in devices:
        meter = mbus_device(device)
        time = time_of(meter.measured)
        if meter.kind == GAS_METER and time is not None:
            readings.append(_GasReading(time, meter))
    if not readings:
        return {}
    now = datetime.fromtimestamp(received, timezone.utc)
    meter = _live(readings, moment_of(document.get(TIME_OF_TELEGRAM)), now)
    keys: dict[str, Any] = {'deviceType': {'value': GAS_METER, 'unit': None}}
    if meter.identifier:
        keys[GAS_IDENTIFIER] = meter.identifier
    keys[GAS.total] = meter.measured
    return keys


def _live(readings: list[_GasReading], telegram_time: datetime | None, now: datetime) -> MbusDevice:
    """The gas meter with the newest reading that counts.

    Readings from about the time of the telegram, if there are any, because they and the telegram confirm each other.
    Otherwise those that do not lie in the future, measured against the later of the telegram's time and the computer's.
    When all do, none of these times says which is the newest, and all count.
    """
    latest = now
    if telegram_time is not None:
        latest = max(now, telegram_time)
        confirmed = [
            reading for reading in readings if abs(reading.time - telegram_time) <= CLOCK_TOLERANCE
        ]
        if confirmed:
            return _newest(confirmed)
    past = [reading for reading in readings if reading.time <= latest + CLOCK_TOLERANCE]
    return _newest(past or readings)


def _newest(readings: list[_GasReading]) -> MbusDevice:
    """The meter with the newest of these readings, the first of two at the same time."""
    newest = max(readings, key=lambda reading: reading.time)
    return newest.meter
