"""Physical quantities of a reading: which keys of its document have them, and their numbers in one unit.

Pure: it knows the keys and units of the document and nothing of any output format.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Item = Mapping[str, Any]
"""An object of the document: {"value", "unit"}, with "datetime" where it has a time."""
Document = Mapping[str, Any]
Unit = str | None
"""As in the document: None for a count."""

TARIFFS = ('1', '2', '3', '4')
PHASES = ('1', '2', '3')
DURATIONS = ('short', 'long')

FACTORS: dict[Unit, dict[Unit, float]] = {
    'kWh': {'Wh': 0.001, 'kWh': 1, 'MWh': 1000},
    'W': {'W': 1, 'kW': 1000, 'MW': 1e6},  # the Q3D sends W
    'V': {'V': 1},
    'A': {'mA': 0.001, 'A': 1},
    'Hz': {'Hz': 1},
    'm3': {'m3': 1},
    None: {None: 1},
}
"""What a number is multiplied by: by the unit that is wanted, then by the unit that the meter sends."""
LARGEST = 1e30
"""The largest number that counts as one: no meter gets there, and every conversion and sum stays a finite float."""
FIRST_YEAR = 1971
"""Earlier times mean "never": a device that was not read yet sends 1970."""
_DIGITS = 9
"""Decimals that a conversion keeps: meters send 7 at most, and the binary fraction's noise is beyond them."""


def number(item: Any) -> float | None:
    """The value of an item of the document, in its own unit; None when it is not a number of at most LARGEST."""
    if not isinstance(item, Mapping):
        return None
    value = item.get('value')
    if isinstance(value, int | float) and abs(value) <= LARGEST:  # false for NaN
        return value
    return None


def amount(item: Any, unit: Unit) -> float | None:
    """The number of an item in this unit; None when its own unit is not one of the same kind."""
    value = number(item)
    if value is None:
        return None
    sent_unit = item.get('unit')
    factor = FACTORS[unit].get(sent_unit)
    if factor is None:
        return None
    return round(value * factor, _DIGITS)


def time_of(item: Any) -> datetime | None:
    """The meter's local time of an item, with its offset; None when it has none, or it was never measured."""
    if not isinstance(item, Mapping):
        return None
    text = item.get('datetime')
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.year < FIRST_YEAR:
        return None
    return moment


@dataclass(frozen=True)
class Quantity:
    """What a meter measures in total, in parts (by tariff, phase or duration), or both.

    `unit` is the unit that its amounts are converted to. `parts` has the document's key of each part,
    and `total` the key of all of them together, empty when no telegram specification has one.
    """

    unit: Unit = None
    parts: Mapping[str, str] = field(default_factory=dict)
    total: str = ''

    def total_in(self, document: Document) -> float | None:
        """The total as the meter sends it, not a sum of parts; None when it is missing or its unit does not fit."""
        item = document.get(self.total)
        return amount(item, self.unit)

    def parts_in(self, document: Document) -> dict[str, float]:
        """The parts that the document has in a unit that fits."""
        found = {}
        for part, key in self.parts.items():
            item = document.get(key)
            value = amount(item, self.unit)
            if value is not None:
                found[part] = value
        return found


def _by(parts: Iterable[str], key: str) -> dict[str, str]:
    """A key for each part, with the part in place of the braces."""
    return {part: key.format(part) for part in parts}


ENERGY_USED = Quantity(
    unit='kWh',
    parts=_by(TARIFFS, 'electricityUsedTariff{}'),
    total='electricityImportedTotal',
)
ENERGY_DELIVERED = Quantity(
    unit='kWh',
    parts=_by(TARIFFS, 'electricityDeliveredTariff{}'),
    total='electricityExportedTotal',
)
POWER_USED = Quantity(
    unit='W',
    parts=_by(PHASES, 'instantaneousActivePowerL{}Positive'),
    total='currentElectricityUsage',
)
POWER_DELIVERED = Quantity(
    unit='W',
    parts=_by(PHASES, 'instantaneousActivePowerL{}Negative'),
    total='currentElectricityDelivery',
)
VOLTAGE = Quantity(unit='V', parts=_by(PHASES, 'instantaneousVoltageL{}'))
CURRENT = Quantity(unit='A', parts=_by(PHASES, 'instantaneousCurrentL{}'))
FREQUENCY = Quantity(unit='Hz', total='frequency')
VOLTAGE_SAGS = Quantity(parts=_by(PHASES, 'voltageSagL{}Count'))
VOLTAGE_SWELLS = Quantity(parts=_by(PHASES, 'voltageSwellL{}Count'))
POWER_FAILURES = Quantity(parts=_by(DURATIONS, '{}PowerFailureCount'))
AVERAGE_DEMAND = Quantity(unit='W', total='belgiumCurrentAverageDemand')
MONTHLY_PEAK = Quantity(unit='W', total='belgiumMaximumDemandMonth')
GAS = Quantity(unit='m3', total='hourlyGasMeterReading')

ACTIVE_TARIFF = 'electricityActiveTariff'
GAS_IDENTIFIER = 'equipmentIdentifierGas'
GAS_COPIES = frozenset({'deviceType', GAS_IDENTIFIER, GAS.total})
"""Keys at the top of the document whose values are copies from the M-Bus device that is the gas meter."""
