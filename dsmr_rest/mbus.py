"""The devices on a meter's M-Bus channels (gas, water, heat), read out of the document of a reading.

Pure: it knows the keys of the document and nothing of telegrams, of HTTP or of any output format.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GAS_METER = 3
KINDS = {
    2: 'electricity',
    3: 'gas',
    4: 'heat',
    6: 'warm water',
    7: 'water',
    8: 'heat cost allocator',
    10: 'cooling',
    11: 'cooling',
    12: 'heat',
    13: 'heat and cooling',
    21: 'hot water',
    22: 'cold water',
}
"""M-Bus device types (EN 13757-3); for heat and cooling there is one each for a meter in the return and the flow."""
NEVER = '1971'
"""Times before it are none: what was never read shows 1970."""


@dataclass(frozen=True)
class MbusDevice:
    """A meter on one of the meter's M-Bus channels.

    `kind` is its number in KINDS or another, None when it is not said. `measured` is {"datetime", "value", "unit"};
    None when it was never read, or what is there was left behind by a meter that was exchanged.
    """

    channel: int
    kind: int | None
    identifier: Mapping[str, Any] | None
    measured: Mapping[str, Any] | None

    @property
    def kind_name(self) -> str:
        """The kind in a word or two."""
        return 'unknown' if self.kind is None else KINDS.get(self.kind, f'type {self.kind}')

    @property
    def own_number(self) -> str:
        """What `identifier` says, as text; empty when there is none."""
        return str((self.identifier and self.identifier['value']) or '')


def mbus_device(device: Mapping[str, Any]) -> MbusDevice:
    """An item of mbusDevices, by whatever names its specification has for what it holds."""

    def ending(name: str) -> Any:
        return next((item for key, item in device.items() if key.lower().endswith(name)), None)

    kind, measured = ending('devicetype'), ending('meterreading')
    identifier = ending('mbusequipmentidentifier') or ending('equipmentidentifiergas') or ending('equipmentidentifier')
    said = str(kind['value'] if kind else '')
    read = measured and measured['value'] is not None and measured['datetime'] and measured['datetime'] >= NEVER
    left_behind = identifier and not str(identifier['value'] or '').strip('0') and not (read and measured['value'])
    return MbusDevice(
        device['channelId'],
        int(said) if said.isdecimal() else None,
        identifier,
        measured if read and not left_behind else None,
    )
