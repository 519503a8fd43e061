r"""The lines of a telegram: their OBIS codes, their groups, and the item of the document that a line becomes.

A line is a code and its groups, `1-0:1.8.1(000123.456*kWh)`; a group is what one pair of brackets holds (P1 companion
standard, after IEC 62056-21). This module does not know what a code means, or what else a telegram contains. No I/O,
no clock.

dsmr_parser's tables state which kind of value a line has: they hold a parser object for each OBIS pattern.
line_parser() derives one of the parsers below from the public attributes of that object, once for each table entry.
The library's own parsers are never called, because they
- raise exceptions of many types, so that one odd line costs the whole telegram;
- lengthen a list of their own with each power failure log that they parse;
- convert the meter's local time to UTC;
- read one digit of the M-Bus channel.
Here a line that cannot be read raises UnreadableLineError and nothing else.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from dsmr_parser.parsers import (
    CosemParser,
    MaxDemandParser,
    MBusParser,
    ProfileGenericParser,
    ValueParser,
)
from dsmr_parser.value_types import timestamp as utc_timestamp

Groups = list[str]
"""What the pairs of brackets of a line hold."""
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

BYTE = r'(?:25[0-5]|2[0-4]\d|[01]?\d?\d)'
"""Pattern of 0 to 255, with leading zeros or not: each part of an OBIS code is one byte (IEC 62056-6-1)."""
POSITIVE_BYTE = r'(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]\d?)'
"""Pattern of 1 to 255 without leading zeros."""
MOST_FAILURES = 10
"""Entries of a power failure log (P1 companion standard)."""

_GROUPS_OF_TIMED_QUANTITY = 2
_GROUPS_OF_DSMR_2 = 7
_GROUPS_BEFORE_FAILURES = 2
"""Count and code."""

_SUMMER_TIME = timezone(timedelta(hours=2))
_WINTER_TIME = timezone(timedelta(hours=1))
_DUTCH_TIME = ZoneInfo('Europe/Amsterdam')
_ZONES = {
    'S': _SUMMER_TIME,
    'W': _WINTER_TIME,
    '': _DUTCH_TIME,
}
"""By the last letter of a timestamp."""
_TIMESTAMP = re.compile(r'(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([SW]?)', re.ASCII)
_CENTURY_PIVOT = 69
"""Two-digit years from here on are 19xx, as in POSIX: meters without a reading send 700101."""

# At most 30 digits: the longest numbers of known meters have 18, and int() raises ValueError for more than 4,300.
_NUMBER = re.compile(r'-?\d{1,30}(\.\d{0,30})?', re.ASCII)
_WHOLE_NUMBER = re.compile(r'-?\d{1,30}', re.ASCII)

_GROUP = re.compile(r'\(([^()]*)\)')
_CODE = re.compile(r'\d+-\d+:[^(\r]')
_CODE_ALONE = re.compile(r'\d{1,3}-\d{1,3}:(\d{1,3}([.:]\d{1,3}){0,2}(\*\d{1,3})?)?')
_CODE_ON_TWO_LINES = re.compile(r'\d+-\d+:24\.3\.0\(')
_DEVICE_CODE = re.compile(rf'0{{1,3}}-({BYTE}):')


class UnreadableLineError(Exception):
    """The groups of a line are not what its kind of line has."""


class LineParser(Protocol):
    """Makes the item of one kind of line."""

    def parse(self, groups: Groups) -> Item:
        """The item of a line with these groups; raises UnreadableLineError."""


def object_lines(text: str) -> list[str]:
    """The lines of a telegram that begin with an OBIS code.

    DSMR 2.2 sends the gas reading on a separate line, after the line with its code: the two are joined.
    """
    lines: list[str] = []
    for raw_line in text.split('\n'):
        line = raw_line.strip(' \t\r')
        if _CODE.match(line):
            lines.append(line)
            continue
        if not lines or not line.startswith('('):
            continue
        if _CODE_ON_TWO_LINES.match(lines[-1]):
            lines[-1] += line
    return lines


def code_of(line: str) -> str:
    """The OBIS code of a line, '?' if it is not one; never what follows it, which may be personal data."""
    match = _CODE_ALONE.match(line)
    if match is None:
        return '?'
    return match[0]


def device_channel(line: str) -> int | None:
    """The channel, 1 to 255, of the M-Bus device that a line is about; None when it is about the meter itself."""
    match = _DEVICE_CODE.match(line)
    if match is None:
        return None
    return int(match[1]) or None


def groups_of(line: str) -> Groups:
    """What the pairs of brackets of a line hold, without trailing blanks.

    Raises UnreadableLineError when there are brackets within a group, as in a text message with brackets.
    """
    after_code = line[line.find('(') :]
    groups = _GROUP.findall(after_code)
    if after_code.count(')') != len(groups):
        raise UnreadableLineError('brackets within a group')
    return [group.rstrip(' \t') for group in groups]


def local_timestamp(text: str) -> datetime | None:
    """YYMMDDhhmmssX (P1 companion standard) as the meter's local time.

    X = S is summer time, +02:00, and W winter time, +01:00. DSMR 2.2 has no X: its time is Dutch time. None when the
    text is not a date: meters send 632525252525W or zeros where they have no time.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    *digits, season = match.groups()
    year, month, day, hour, minute, second = map(int, digits)
    if year >= _CENTURY_PIVOT:
        year += 1900
    else:
        year += 2000
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=_ZONES[season])
    except ValueError:
        return None


def _time(text: str) -> str | None:
    moment = local_timestamp(text)
    if moment is None:
        return None
    return moment.isoformat()


def _number(text: str) -> float:
    # float() alone also takes 'NaN' and '1E999', which no meter means and JSON does not have.
    if not _NUMBER.fullmatch(text):
        raise UnreadableLineError('not a number')
    return float(text)


def _whole_number(text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise UnreadableLineError('not a whole number')
    return int(text)


def _unknown_type(_: str) -> Any:
    raise UnreadableLineError('a type of value that this version does not know')


_CONVERSIONS: dict[Any, Convert] = {
    utc_timestamp: _time,
    Decimal: _number,
    int: _whole_number,
    str: str,
}
"""By the `coerce_type` of dsmr_parser's ValueParser."""


def _value_and_unit(group: str, convert: Convert) -> ValueAndUnit:
    """Value and unit of a group: `value*unit`, `value`, or nothing."""
    if not group:
        return None, None
    text, asterisk, unit = group.partition('*')
    if not asterisk:
        return convert(text), None
    if '*' in unit:
        raise UnreadableLineError('more than one unit')
    return convert(text), unit


def _values_and_units(groups: Groups, conversions: Conversions) -> list[ValueAndUnit]:
    if len(groups) != len(conversions):
        raise UnreadableLineError(f'{len(groups)} groups instead of {len(conversions)}')
    return list(map(_value_and_unit, groups, conversions))


class _Quantity(NamedTuple):
    """`(value*unit)`: {"value", "unit"}. Further groups must be readable, and are not served."""

    conversions: Conversions

    def parse(self, groups: Groups) -> Item:
        first, *_ = _values_and_units(groups, self.conversions)
        value, unit = first
        return {'value': value, 'unit': unit}


class _TimedQuantity(NamedTuple):
    """`(time)(value*unit)`: {"datetime", "value", "unit"}."""

    conversions: Conversions

    def parse(self, groups: Groups) -> Object:
        timestamp, quantity = _values_and_units(groups, self.conversions)
        time, _ = timestamp
        value, unit = quantity
        return {'datetime': time, 'value': value, 'unit': unit}


class _TimedQuantityOfDsmr2(NamedTuple):
    """`(time)(status)(minutes)(number of values)(code)(unit)(value)` of DSMR 2.2: {"datetime", "value", "unit"}."""

    conversions: Conversions

    def parse(self, groups: Groups) -> Item:
        pairs = _values_and_units(groups, self.conversions)
        values = [value for value, _ in pairs]
        time, *_, unit, value = values
        return {'datetime': time, 'value': value, 'unit': unit}


class _FailureLog(NamedTuple):
    """`(count)(code)` and `(time)(duration*s)` for each power failure: {"buffer_length", "buffer_type", "buffer"}.

    The code says what the entries are. A meter without failures may send `()` alone.
    """

    entries_by_code: Mapping[str, _TimedQuantity]
    other_entries: _TimedQuantity

    def parse(self, groups: Groups) -> Item:
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
        entry_parser = self.entries_by_code.get(code_group, self.other_entries)
        entries = []
        for start in range(0, len(entry_groups), 2):
            end = start + 2
            entry = entry_parser.parse(entry_groups[start:end])
            entries.append(entry)
        return {'buffer_length': count, 'buffer_type': code, 'buffer': entries}


class _PeakHistory:
    """`(count)(code)(code)` and `(month)(time)(value*unit)` for each monthly peak (e-MUCS 1.7).

    A list of {"datetime", "occurred", "value", "unit"}. A meter without peaks may leave the count empty.
    """

    def parse(self, groups: Groups) -> Item:
        if not groups:
            raise UnreadableLineError('a peak history without count')
        count = 0
        if groups[0]:
            count = _whole_number(groups[0])
        peak_groups = groups[3:]
        if not 0 <= count <= len(peak_groups) // 3:
            raise UnreadableLineError(f'{len(peak_groups)} groups for {count} peaks')
        peaks = []
        for start in range(0, count * 3, 3):
            end = start + 3
            peak = self._peak(peak_groups[start:end])
            peaks.append(peak)
        return peaks

    @staticmethod
    def _peak(groups: Groups) -> Object:
        month, occurred, power = groups
        value, unit = _value_and_unit(power, _number)
        if value is None:
            raise UnreadableLineError('a peak without value')
        return {
            'datetime': _time(month),
            'occurred': _time(occurred),
            'value': value,
            'unit': unit,
        }


class _UnknownKind:
    """A kind of line that a newer dsmr_parser knows: its lines are reported as not understood."""

    def parse(self, groups: Groups) -> Item:
        raise UnreadableLineError(
            f'a kind of line that this version does not know, with {len(groups)} groups'
        )


def line_parser(library_parser: Any) -> LineParser:
    """The parser of the lines for which dsmr_parser has this parser object."""
    if isinstance(library_parser, MaxDemandParser):
        return _PeakHistory()
    if isinstance(library_parser, ProfileGenericParser):
        return _failure_log(library_parser)
    if isinstance(library_parser, CosemParser):
        return _Quantity(_conversions(library_parser.value_formats))
    if isinstance(library_parser, MBusParser):
        conversions = _conversions(library_parser.value_formats)
        if len(conversions) == _GROUPS_OF_TIMED_QUANTITY:
            return _TimedQuantity(conversions)
        if len(conversions) == _GROUPS_OF_DSMR_2:
            return _TimedQuantityOfDsmr2(conversions)
    return _UnknownKind()


def _failure_log(library_parser: ProfileGenericParser) -> _FailureLog:
    entries_by_code = {}
    for code, formats in library_parser.buffer_types.items():
        conversions = _conversions(formats)
        entries_by_code[code] = _TimedQuantity(conversions)
    conversions = _conversions(library_parser.parsers_for_unidentified)
    other_entries = _TimedQuantity(conversions)
    return _FailureLog(entries_by_code, other_entries)


def _conversions(formats: Iterable[ValueParser]) -> Conversions:
    return tuple(map(_conversion, formats))


def _conversion(value_format: ValueParser) -> Convert:
    return _CONVERSIONS.get(value_format.coerce_type, _unknown_type)
