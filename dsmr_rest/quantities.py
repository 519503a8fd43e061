"""Physical quantities of a reading: numbers of its document in the unit that was asked for.

Pure: it knows the keys and units of the document and nothing of any output format.
"""

from typing import Any

FACTORS: dict[str, dict[str | None, float]] = {
    'kWh': {'Wh': 0.001, 'kWh': 1, 'MWh': 1000},
    'W': {'W': 1, 'kW': 1000, 'MW': 1e6},  # the Q3D sends W
    'V': {'V': 1},
    'A': {'mA': 0.001, 'A': 1},
    'Hz': {'Hz': 1},
    'm3': {'m3': 1},
    '': {None: 1},
}
"""By a unit and one that meters send instead."""
_DIGITS = 9
"""Decimals that a conversion keeps: meters send 7 at most, and the binary fraction's noise is beyond them."""


def number(item: Any) -> float | None:
    """The value of an item; None when it is no number."""
    value = item.get('value') if isinstance(item, dict) else None
    return value if isinstance(value, int | float) else None


def amount(item: Any, unit: str) -> float | None:
    """The number of an item in this unit; None when its own is not one of the same kind."""
    value, factor = number(item), item and FACTORS[unit].get(item['unit'])
    return None if value is None or factor is None else round(value * factor, _DIGITS)
