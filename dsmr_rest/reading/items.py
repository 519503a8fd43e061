"""The groups of a line become an item of the document: by the kind of line that a table says it is, or by their form.

dsmr_parser's tables state which kind of value a line has: they hold a parser object for each OBIS pattern.
line_parser() derives one of the parsers below from the public attributes of that object, once for each table entry.
The library's own parsers are never called, because they
- raise exceptions of many types, so that one odd line costs the whole telegram;
- lengthen a list of their own with each power failure log that they parse;
- convert the meter's local time to UTC;
- read one digit of the M-Bus channel;
- take a time for a number where a meter sends the two groups of a timed quantity in the other order.
Here groups that do not fit raise UnreadableLineError and nothing else, and a line that no table can read has
item_by_form(). This module does not know what a code means, or what else a telegram contains. No I/O, no clock.
"""

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from itertools import filterfalse
from typing import Any, NamedTuple, Protocol

from dsmr_parser.parsers import (
    CosemParser,
    MaxDemandParser,
    MBusParser,
    ProfileGenericParser,
    ValueParser,
)
from dsmr_parser.value_types import timestamp as utc_timestamp

from dsmr_rest.reading.lines import Groups, UnreadableLineError, has_code
from dsmr_rest.reading.times import MeterTime, has_form_of_timestamp, is_date, may_be_time

Object = dict[str, Any]
"""A JSON object: JSON values by their keys."""
Item = Object | list[Object]
"""What a line becomes in the document."""
Convert = Callable[[str], Any]
"""The text of a value to its JSON value; raises UnreadableLineError."""
Conversions = tuple[Convert, ...]
"""One for each group of a line."""
ValueAndUnit = tuple[Any, str | None]
"""The JSON value of a group, None when the group is empty, and its unit, None when it has none."""

MOST_FAILURES = 10
"""Entries of a power failure log (P1 companion standard)."""

_GROUPS_OF_TIMED_QUANTITY = 2
_GROUPS_OF_DSMR_2 = 7
_GROUPS_BEFORE_FAILURES = 2
"""Count and code."""

# At most 30 digits: the longest numbers of known meters have 18, and int() raises ValueError for more than 4,300.
_NUMBER = re.compile(r'-?\d{1,30}(\.\d{0,30})?', re.ASCII)
_WHOLE_NUMBER = re.compile(r'-?\d{1,30}', re.ASCII)


class LineParser(Protocol):
    """Makes the item of one kind of line."""

    def parse(self, groups: Groups) -> Item:
        """The item of a line with these groups; raises UnreadableLineError."""


# Values of a group


def _number(text: str) -> float:
    # float() alone also takes 'NaN' and '1E999', which no meter means and JSON does not have.
    if not _NUMBER.fullmatch(text):
        raise UnreadableLineError('not a number')
    return float(text)


def _whole_number(text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise UnreadableLineError('not a whole number')
    return int(text)


def _whole_or_decimal_number(text: str) -> float:
    if _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    return _number(text)


def _unknown_type(_: str) -> Any:
    raise UnreadableLineError('a type of value that this version does not know')


def _value_and_unit(group: str, convert: Convert) -> ValueAndUnit:
    """Value and unit of a group: `value*unit`, `value`, or nothing.

    Digits without a unit that read as a timestamp are no number: a counter with twelve digits has its unit.
    """
    if not group:
        return None, None
    text, asterisk, unit = group.partition('*')
    value = convert(text)
    if not asterisk:
        is_number = isinstance(value, int | float)
        if is_number and is_date(text):
            raise UnreadableLineError('a time, not a number')
        return value, None
    if '*' in unit:
        raise UnreadableLineError('more than one unit')
    return value, unit


def _values_and_units(groups: Groups, conversions: Conversions) -> list[ValueAndUnit]:
    if len(groups) != len(conversions):
        raise UnreadableLineError(f'{len(groups)} groups instead of {len(conversions)}')
    return list(map(_value_and_unit, groups, conversions))


# Kinds of lines


class _Quantity(NamedTuple):
    """`(value*unit)`: {"value", "unit"}. Further groups must be readable, and are not in the item."""

    conversions: Conversions

    def parse(self, groups: Groups) -> Object:
        first, *_ = _values_and_units(groups, self.conversions)
        value, unit = first
        return {'value': value, 'unit': unit}


class _TimedQuantity(NamedTuple):
    """`(time)(value*unit)` or `(value*unit)(time)`: {"datetime", "value", "unit"}.

    One group must be a time or a mark for none, and the other no time. Either may be empty.
    """

    time: Convert
    quantity: Callable[[str], ValueAndUnit]

    def parse(self, groups: Groups) -> Object:
        if len(groups) != _GROUPS_OF_TIMED_QUANTITY:
            raise UnreadableLineError(f'{len(groups)} groups instead of a time and a value')
        for time_group, value_group in (groups, groups[::-1]):
            value_is_time = value_group != '' and may_be_time(value_group)
            if may_be_time(time_group) and not value_is_time:
                value, unit = self.quantity(value_group)
                return {'datetime': self.time(time_group), 'value': value, 'unit': unit}
        raise UnreadableLineError('not a time and a value')


class _TimedQuantityOfDsmr2(NamedTuple):
    """`(time)(status)(minutes)(number of values)(code)(unit)(value)` of DSMR 2.2: {"datetime", "value", "unit"}."""

    conversions: Conversions

    def parse(self, groups: Groups) -> Object:
        pairs = _values_and_units(groups, self.conversions)
        values = [value for value, _ in pairs]
        time, *_, unit, value = values
        return {'datetime': time, 'value': value, 'unit': unit}


class _FailureLog(NamedTuple):
    """`(count)(code)` and `(time)(duration*s)` for each power failure: {"buffer_length", "buffer_type", "buffer"}.

    The code says what the entries are; they are read by their form, whatever it is. A meter without failures may send
    `()` alone.
    """

    entry: _TimedQuantity

    def parse(self, groups: Groups) -> Object:
        if groups == ['']:
            return {'buffer_length': 0, 'buffer_type': None, 'buffer': []}
        if len(groups) < _GROUPS_BEFORE_FAILURES:
            raise UnreadableLineError('a power failure log without count and code')
        count_group, code_group, *entry_groups = groups
        count = _whole_number(count_group)
        count_is_valid = 0 <= count <= MOST_FAILURES
        if not count_is_valid or len(entry_groups) != 2 * count:
            raise UnreadableLineError(f'{len(entry_groups)} groups for {count} power failures')
        code, _ = _value_and_unit(code_group, str)
        entries = []
        for start in range(0, len(entry_groups), 2):
            end = start + 2
            entry = self.entry.parse(entry_groups[start:end])
            entries.append(entry)
        return {'buffer_length': count, 'buffer_type': code, 'buffer': entries}


class _PeakHistory(NamedTuple):
    """`(count)(code)(code)` and `(month)(time)(value*unit)` for each monthly peak (e-MUCS 1.7).

    The value is the group that is no time, wherever it is; of the two times the month is the first. A list of
    {"datetime", "occurred", "value", "unit"}. A meter without peaks may leave the count empty.
    """

    time: Convert

    def parse(self, groups: Groups) -> Item:
        count = 0
        if groups[0]:
            count = _whole_number(groups[0])
        codes, peak_groups = groups[1:3], groups[3:]
        if not all(code == '' or has_code(code) for code in codes):
            raise UnreadableLineError('no codes before the peaks')
        surplus = any(peak_groups[max(count, 0) * 3 :])
        if surplus or not 0 <= count <= len(peak_groups) // 3:
            raise UnreadableLineError(f'{len(peak_groups)} groups for {count} peaks')
        peaks = []
        for start in range(0, count * 3, 3):
            end = start + 3
            peak = self._peak(peak_groups[start:end])
            peaks.append(peak)
        return peaks

    def _peak(self, groups: Groups) -> Object:
        times = list(filter(may_be_time, groups))
        values = list(filterfalse(may_be_time, groups))
        if len(values) != 1:
            raise UnreadableLineError(f'{len(values)} values in a peak')
        month, occurred = times
        value, unit = _value_and_unit(values[0], _number)
        return {
            'datetime': self.time(month),
            'occurred': self.time(occurred),
            'value': value,
            'unit': unit,
        }


class _UnknownKind:
    """A kind of line that a newer dsmr_parser knows: its lines are served by their form."""

    def parse(self, groups: Groups) -> Item:
        raise UnreadableLineError(
            f'a kind of line that this version does not know, with {len(groups)} groups'
        )


class Parsers:
    """Makes the parsers of lines for a meter whose times are `time`."""

    def __init__(self, time: MeterTime) -> None:
        self._time = time
        self._conversions: dict[Any, Convert] = {
            utc_timestamp: self._timestamp,
            Decimal: _number,
            int: _whole_number,
            str: str,
        }
        self._timed_by_form = _TimedQuantity(self._timestamp, _number_by_form)

    def line_parser(self, library_parser: Any) -> LineParser:
        """The parser of the lines for which dsmr_parser has this parser object."""
        if isinstance(library_parser, MaxDemandParser):
            return _PeakHistory(self._timestamp)
        if isinstance(library_parser, ProfileGenericParser):
            return _FailureLog(self._timed(_whole_or_decimal_number))
        if isinstance(library_parser, CosemParser):
            return _Quantity(self._all(library_parser.value_formats))
        if isinstance(library_parser, MBusParser):
            return self._timed_quantity(library_parser.value_formats)
        return _UnknownKind()

    def item_by_form(self, groups: Groups) -> Object:
        """The item of a line that no table can read, by the form of its groups alone.

        `(value*unit)` and `(value)` are {"value", "unit"}: a number when it is decimal and has a unit or a point, null
        when it is empty, else the text. `(time)(value*unit)` in either order is {"datetime", "value", "unit"}. All else
        is {"groups"}, a list of texts.
        """
        if len(groups) == 1:
            return _quantity_by_form(groups[0])
        try:
            return self._timed_by_form.parse(groups)
        except UnreadableLineError:
            return {'groups': groups}

    def _timestamp(self, text: str) -> str | None:
        """ISO 8601 with offset; None when there is no time. Raises UnreadableLineError when it is something else."""
        if text and not has_form_of_timestamp(text):
            raise UnreadableLineError('not a time')
        moment = self._time.moment(text)
        if moment is None:
            return None
        return moment.isoformat()

    def _timed_quantity(self, formats: list[ValueParser]) -> LineParser:
        first, *_ = formats
        if first.coerce_type is not utc_timestamp:
            return _UnknownKind()
        conversions = self._all(formats)
        if len(conversions) == _GROUPS_OF_TIMED_QUANTITY:
            _, number = conversions
            return self._timed(number)
        if len(conversions) == _GROUPS_OF_DSMR_2:
            return _TimedQuantityOfDsmr2(conversions)
        return _UnknownKind()

    def _timed(self, number: Convert) -> _TimedQuantity:
        quantity = partial(_value_and_unit, convert=number)
        return _TimedQuantity(self._timestamp, quantity)

    def _all(self, formats: Iterable[ValueParser]) -> Conversions:
        return tuple(map(self._conversion, formats))

    def _conversion(self, value_format: ValueParser) -> Convert:
        return self._conversions.get(value_format.coerce_type, _unknown_type)


def _quantity_by_form(group: str) -> Object:
    text, asterisk, unit = group.partition('*')
    if '*' in unit:
        return {'groups': [group]}
    value: float | str | None = text
    if not group:
        value = None
    elif _NUMBER.fullmatch(text) and (unit or '.' in text):
        value = float(text)
    if not asterisk:
        return {'value': value, 'unit': None}
    return {'value': value, 'unit': unit}


def _number_by_form(group: str) -> ValueAndUnit:
    item = _quantity_by_form(group)
    value = item.get('value')
    if not isinstance(value, float):
        raise UnreadableLineError('a value that is not a number')
    return value, item['unit']
