"""The items of a telegram's lines become its document: of the meter, of each M-Bus device, and of the gas meter.

Lines that have no name, or that do not fit their name, are in `otherObjects`, so that nothing is lost that the meter
sends. This module does not know what an OBIS code means, nor which table a name comes from. No I/O, no clock.
"""

from collections.abc import Callable
from typing import NamedTuple

from dsmr_rest.reading.gas import gas_keys
from dsmr_rest.reading.items import Item, Object
from dsmr_rest.reading.lines import (
    Groups,
    UnreadableLineError,
    code_of,
    device_channel,
    groups_of,
    has_code,
    numbers_of_code,
    says_what_device_is,
)
from dsmr_rest.reading.quantities import OTHER_OBJECTS


class NamedItem(NamedTuple):
    """The item of a line, its key in the document, and the channel of its M-Bus device, None for the meter itself.

    `is_whole` when the item has all that the line says.
    """

    line_index: int
    channel: int | None
    key: str
    item: Item
    is_whole: bool = True


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
        self._channels_with_device = set()
        for line in lines:
            channel = device_channel(line)
            if channel is None:
                continue
            self._devices[channel] = {}  # in telegram order
            if says_what_device_is(line):
                self._channels_with_device.add(channel)

    def add(self, named: NamedItem) -> None:
        """Puts an item under its key, unless an item with a lower code has it.

        What is lower is more general: channel 0 is the meter as a whole, and 24.2.1 the reading of a device, beside
        which 24.2.3 is another of its values. The line of an earlier item with this key is one without a name then,
        and so is that of an item that is not whole: it is under its OBIS code as well.
        """
        channel = named.channel
        if isinstance(named.item, list):  # monthly peaks are always the meter's
            channel = None
        place = (channel, named.key)
        if place in self._line_of_place:
            earlier = self._line_of_place[place]
            if self._numbers_of_code(earlier) < self._numbers_of_code(named.line_index):
                return
            self._without_name.add(earlier)
        self._line_of_place[place] = named.line_index
        if named.is_whole:
            self._without_name.discard(named.line_index)
        self._owner(channel)[named.key] = named.item

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
            owner = self._owner(self._channel_of_device(line))
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
        document.update(gas_keys(document, devices, received))
        return document

    def _channel_of_device(self, line: str) -> int | None:
        """The channel of a line if there is a device on it: one that has a name for something, or says what it is.

        Meters in Luxembourg send the switch position of channels on which there is no device.
        """
        channel = device_channel(line)
        if channel is None:
            return None
        if self._devices[channel] or channel in self._channels_with_device:
            return channel
        return None

    def _numbers_of_code(self, line_index: int) -> tuple[int, ...]:
        return numbers_of_code(self._lines[line_index])

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
