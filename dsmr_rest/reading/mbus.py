"""The devices on a meter's M-Bus channels (gas, water, heat), read out of the document of a reading.

Pure: it knows the keys of the document and what a kind of device is called; nothing of telegrams, of HTTP or of how a
device is shown.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dsmr_rest.reading.quantities import OTHER_OBJECTS, Item, time_of


class DeviceKind(NamedTuple):
    """What a kind of M-Bus device is called: its name as it is shown, and HomeWizard's, empty where it has none."""

    name: str
    homewizard_type: str = ''


GAS_METER = 3
KINDS = {
    2: DeviceKind('electricity'),
    3: DeviceKind('gas', 'gas_meter'),
    4: DeviceKind('heat', 'heat_meter'),
    6: DeviceKind('warm water', 'warm_water_meter'),
    7: DeviceKind('water', 'water_meter'),
    8: DeviceKind('heat cost allocator'),
    10: DeviceKind('cooling'),
    11: DeviceKind('cooling'),
    12: DeviceKind('heat', 'inlet_heat_meter'),
    13: DeviceKind('heat and cooling'),
    21: DeviceKind('hot water'),
    22: DeviceKind('cold water'),
}
"""By M-Bus device type (EN 13757-3). Heat and cooling have two each: a meter in the return pipe or the flow pipe."""

_DEVICE_TYPE = re.compile('0*([0-9]{1,3})')
"""One byte (EN 13757-3), in decimal."""


class _DeviceObject(NamedTuple):
    """What a device sends, as the document has it: under a key, or in otherObjects under an OBIS code.

    `key_ends` are the ends of keys in lower case, because each telegram specification has its own name for the same
    object, and `codes` the ends of codes (C.D.E), for those that have none. The earlier ones come first.
    """

    key_ends: tuple[str, ...]
    codes: tuple[str, ...]


_TYPE = _DeviceObject(('devicetype',), ('24.1.0',))
_READING = _DeviceObject(('meterreading',), ('24.2.1', '24.2.3'))
_NUMBER = _DeviceObject(
    ('mbusequipmentidentifier', 'equipmentidentifiergas', 'equipmentidentifier'),
    ('96.1.0', '96.1.1'),
)


class MbusDevice(NamedTuple):
    """A meter on one of the electricity meter's M-Bus channels.

    `kind` is its M-Bus device type, one of KINDS or another; None when the telegram does not state it. `measured` is
    {"datetime", "value", "unit"}; None when the device was never read, or the reading is that of a meter that was
    removed. `others` are its further objects, such as a valve position, by the keys of the document.
    """

    channel: int
    kind: int | None
    identifier: Item | None
    measured: Item | None
    others: Mapping[str, Any]

    @property
    def kind_name(self) -> str:
        """The kind in a word or two."""
        if self.kind is None:
            return 'unknown'
        if self.kind in KINDS:
            return KINDS[self.kind].name
        return f'type {self.kind}'

    @property
    def homewizard_type(self) -> str:
        """HomeWizard's name for the kind; empty where it has none."""
        if self.kind in KINDS:
            return KINDS[self.kind].homewizard_type
        return ''

    @property
    def own_number(self) -> str:
        """The value of `identifier` as text; empty when there is none."""
        return _text(self.identifier)


def mbus_device(device: Mapping[str, Any]) -> MbusDevice:
    """An item of mbusDevices, whatever names its telegram specification has for the objects."""
    identifier = _item(device, _NUMBER)
    measured = _item(device, _READING)
    if not _was_read(measured) or _was_removed(identifier, measured):
        measured = None
    return MbusDevice(
        channel=device['channelId'],
        kind=_kind(_item(device, _TYPE)),
        identifier=identifier,
        measured=measured,
        others=_others(device),
    )


def _others(device: Mapping[str, Any]) -> dict[str, Any]:
    """The objects of a device except its channel, its type and its reading."""
    found = {}
    for key, item in device.items():
        if key == OTHER_OBJECTS:
            found[key] = {code: other for code, other in item.items() if not _is_main(code)}
        elif key != 'channelId' and not key.lower().endswith(_TYPE.key_ends + _READING.key_ends):
            found[key] = item
    return found


def _is_main(code: str) -> bool:
    return _without_channel(code) in _TYPE.codes + _READING.codes


def _without_channel(code: str) -> str:
    _, _, rest = code.partition(':')
    return rest


def _item(device: Mapping[str, Any], wanted: _DeviceObject) -> Item | None:
    for key_end in wanted.key_ends:
        for key, item in device.items():
            if key.lower().endswith(key_end) and isinstance(item, Mapping):
                return item
    others = device.get(OTHER_OBJECTS, {})
    for wanted_code in wanted.codes:
        for code, item in others.items():
            if (
                _without_channel(code) == wanted_code
                and isinstance(item, Mapping)
                and 'value' in item
            ):
                return item
    return None


def _text(item: Item | None) -> str:
    if item is None or item['value'] is None:
        return ''
    return str(item['value'])


def _kind(item: Item | None) -> int | None:
    match = _DEVICE_TYPE.fullmatch(_text(item))
    if match is None:
        return None
    return int(match[1])


def _was_read(measured: Item | None) -> bool:
    if measured is None or measured['value'] is None:
        return False
    return time_of(measured) is not None


def _was_removed(identifier: Item | None, measured: Item | None) -> bool:
    """Whether a channel shows nothing but zeros: its identifier is there but empty, and its reading is zero."""
    if identifier is None or measured is None:
        return False
    return not _text(identifier).strip('0') and not measured['value']
