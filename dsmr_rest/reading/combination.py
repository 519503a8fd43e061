"""The items of a telegram's lines become its document: of the meter, of each M-Bus device, and of the gas meter.

Lines that have no name, or that do not fit their name, are in `otherObjects`, so that nothing is lost that the meter
sends. This module does not know what an OBIS code means, nor which table a name comes from. No I/O, no clock.
"""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from dsmr_rest.reading.items import Item, Object
from dsmr_rest.reading.lines import (
    Groups,
    UnreadableLineError,
    code_of,
    device_channel,
    groups_of,
    has_code,
)
from dsmr_rest.reading.mbus import GAS_METER, MbusDevice, mbus_device
from dsmr_rest.reading.quantities import (
    GAS,
    GAS_IDENTIFIER,
    OTHER_OBJECTS,
    TIME_OF_TELEGRAM,
    moment_of,
    time_of,
)

CLOCK_TOLERANCE = timedelta(days=1)
"""How far the clocks of a gas meter, of the electricity meter and of this computer may differ."""


class NamedItem(NamedTuple):
    """The item of a line, its key in the document, and the channel of its M-Bus device, None for the meter itself."""

    line_index: int
    channel: int | None
    key: str
    item: Item


class Combination:
    """Puts the items of the lines of one telegram together, each in its place.

    `not_understood` are the codes of the lines that are nowhere: without OBIS code or without groups.
    """

    def __init__(self, lines: list[str]) -> None:
        self.not_understood: list[str] = []
        self._lines = lines
        self._without_name = set(range(len(lines)))
        self._own: Object = {}
        self._devices: dict[int, Object] = {}
        self._line_of_place: dict[tuple[int | None, str], int] = {}
        for line in lines:  # so that the devices are in telegram order
            channel = device_channel(line)
            if channel is not None:
                self._devices[channel] = {}

    def add(self, named: NamedItem) -> None:
        """Puts an item under its key. An earlier item with this key is one without a name then."""
        channel = named.channel
        if isinstance(named.item, list):  # monthly peaks are always the meter's
            channel = None
        place = (channel, named.key)
        if place in self._line_of_place:
            self._without_name.add(self._line_of_place[place])
        self._line_of_place[place] = named.line_index
        self._without_name.discard(named.line_index)
        self._owner(channel)[named.key] = named.item

    def add_copy(self, named: NamedItem) -> None:
        """Puts an item of the meter itself under its key too; the line has its place elsewhere."""
        self._own[named.key] = named.item

    def add_others(self, item_by_form: Callable[[Groups], Object]) -> None:
        """Puts the lines that have no place yet into otherObjects, each under its OBIS code."""
        for index in sorted(self._without_name):
            line = self._lines[index]
            try:
                groups = groups_of(line)
            except UnreadableLineError:
                self.not_understood.append(code_of(line))
                continue
            if not has_code(line):
                self.not_understood.append(code_of(line))
                continue
            owner = self._owner(device_channel(line))
            others = owner.setdefault(OTHER_OBJECTS, {})
            _add_to_list(others, code_of(line), item_by_form(groups))

    def document(self, received: float) -> Object:
        """The whole document; `received` is the Unix time at which the computer received the telegram."""
        document = dict(self._own)
        devices = []
        for channel, device in self._devices.items():
            if device:
                devices.append({'channelId': channel, **device})
        if devices:
            document['mbusDevices'] = devices
        document.update(_gas(devices, _latest_time(document, received)))
        return document

    def _owner(self, channel: int | None) -> Object:
        if channel is None:
            return self._own
        return self._devices[channel]


def _add_to_list(others: Object, code: str, item: Object) -> None:
    """Adds an item under its code; a code that comes twice has a list."""
    if code not in others:
        others[code] = item
        return
    earlier = others[code]
    if isinstance(earlier, list):
        earlier.append(item)
    else:
        others[code] = [earlier, item]


def _latest_time(document: Object, received: float) -> datetime:
    """The time that no reading of a device can be much later than.

    The computer's clock may be wrong, because a Raspberry Pi has none of its own, and so may be the meter's: of meters
    in use some are years behind. The later of the two is the better one, because none runs ahead of a battery.
    """
    now = datetime.fromtimestamp(received, timezone.utc)
    time_of_telegram = moment_of(document.get(TIME_OF_TELEGRAM))
    if time_of_telegram is not None:
        now = max(now, time_of_telegram)
    return now + CLOCK_TOLERANCE


def _gas(devices: list[Object], latest_time: datetime) -> Object:
    """The keys at the top for the gas meter in use; empty when no gas meter has a reading."""
    gas_meters = []
    for device in devices:
        meter = mbus_device(device)
        if meter.kind == GAS_METER and meter.measured:
            gas_meters.append(meter)
    if not gas_meters:
        return {}
    live = _live(gas_meters, latest_time)
    keys: Object = {'deviceType': {'value': GAS_METER, 'unit': None}}
    if live.identifier:
        keys[GAS_IDENTIFIER] = live.identifier
    keys[GAS.total] = live.measured
    return keys


def _live(gas_meters: list[MbusDevice], latest_time: datetime) -> MbusDevice:
    """The gas meter in use, of those that have a reading: the one with the newest.

    A meter that was removed stays in the telegram with its last reading, whose time may lie years ahead. So times
    after `latest_time` do not count, unless all are after it. The first of two with the same time.
    """
    past = [meter for meter in gas_meters if _time_of_reading(meter) <= latest_time]
    return max(past or gas_meters, key=_time_of_reading)


def _time_of_reading(meter: MbusDevice) -> datetime:
    time = time_of(meter.measured)
    if time is None:
        return datetime.min.replace(tzinfo=timezone.utc)
    return time
