"""Private, tolerant copies of dsmr_parser's telegram specifications, and the choice between them.

The copies differ from the library's in what real meters need: channels above 9, the meter's own local time, numbers
that are numbers, and a line that cannot be read costs that line and never the telegram. The choice looks at the lines
that a telegram has, never at what parsing gives: a wrong specification does not fail, it lies. No I/O, no clock.
"""

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from dsmr_parser import telegram_specifications
from dsmr_parser.exceptions import ParseError
from dsmr_parser.objects import MBusObjectPeak
from dsmr_parser.parsers import MaxDemandParser, ProfileGenericParser, ValueParser
from dsmr_parser.value_types import timestamp as utc_timestamp

NAMES = tuple(
    name for name, made in vars(telegram_specifications).items() if isinstance(made, dict) and 'objects' in made
)
"""All of dsmr_parser's. V3 is V2_2 and AUSTRIA_ENERGIENETZE_STEIERMARK is SAGEMCOM_T210_D_R by another name."""

# In the order in which a tie is decided.
_PLAIN = ('V2_2', 'V4', 'V5', 'BELGIUM_FLUVIUS', 'LUXEMBOURG_SMARTY', 'SWEDEN', 'EON_HUNGARY', 'ISKRA_IE', 'Q3D')
_ENCRYPTED = ('MSN', 'SAGEMCOM_T210_D_R')

_AMSTERDAM = ZoneInfo('Europe/Amsterdam')
_SEASONS = {'S': timezone(timedelta(hours=2)), 'W': timezone(timedelta(hours=1)), '': _AMSTERDAM}
_TIMESTAMP = re.compile(r'(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([SW]?)', re.ASCII)
_NUMBER = re.compile(r'-?\d{1,30}(\.\d{0,30})?', re.ASCII)
_INTEGER = re.compile(r'-?\d{1,30}', re.ASCII)
_VALUES = re.compile(r'\(([^()]*)\)')
_CODE = re.compile(r'(\d+)-(\d+):[^(\r]+')
_CODE_ALONE = re.compile(r'\d{1,3}-\d{1,3}:(\d{1,3}([.:]\d{1,3}){0,2}(\*\d{1,3})?)?')  # what follows may be personal
_TWO_LINES = re.compile(r'\d+-\d+:24\.3\.0\(')
_VERSION = re.compile(r'1-3:0\.2\.8\(([45])\d\)')
_CENTURY_PIVOT = 69  # POSIX: 69 to 99 are 19xx; meters without a reading send 700101


def local_timestamp(text: str | None) -> datetime | None:
    """YYMMDDhhmmssX (P1 companion standard) as the meter's local time: X = S is +02:00, W +01:00, none Dutch time.

    None for what is no date: meters send 632525252525W or zeros where they have nothing to say.
    """
    match = _TIMESTAMP.fullmatch(text or '')
    if not match:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    year += 1900 if year >= _CENTURY_PIVOT else 2000
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=_SEASONS[match[7]])
    except ValueError:
        return None


def _decimal(text: str) -> Decimal:
    # Decimal() alone takes 'NaN' and '1E999', which no meter means and JSON cannot say.
    if not _NUMBER.fullmatch(text):
        raise ParseError(f'not a number: {text}')
    return Decimal(text)


def _integer(text: str | int) -> int:  # an int: the library's own count of an empty log
    if not _INTEGER.fullmatch(str(text)):
        raise ParseError(f'not a whole number: {text}')
    return int(text)


_COERCIONS: dict[Any, Callable[[Any], Any]] = {utc_timestamp: local_timestamp, Decimal: _decimal, int: _integer}


def code_of(line: str) -> str:
    """The OBIS code at the beginning of a line, and nothing else of it."""
    match = _CODE_ALONE.match(line)
    return match[0] if match else '?'


def _channel(line: str) -> tuple[int, int]:
    match = _CODE.match(line)
    if not match:
        raise ParseError(f'no OBIS code: {line}')
    return int(match[1]), int(match[2])


class _PeakHistory:
    """Monthly peaks (e-MUCS 1.7): a count, two codes, then per month two timestamps and a value."""

    def parse(self, line: str) -> list[MBusObjectPeak]:
        groups = _VALUES.findall(line)
        count, months = int(groups[0] or 0), groups[3:]
        if not 0 <= count <= len(months) // 3:
            raise ParseError(f'not {count} months')
        power = ValueParser(_decimal)
        return [
            MBusObjectPeak(
                obis_id_code=_channel(line),
                values=[
                    {'value': local_timestamp(month), 'unit': None},
                    {'value': local_timestamp(occurred), 'unit': None},
                    power.parse(value),
                ],
            )
            for month, occurred, value in zip(*[iter(months[: count * 3])] * 3, strict=True)
        ]


class _Tolerant:
    """One of the library's line parsers, whose only exception is ParseError and which notes what it could not read."""

    def __init__(self, parser: Any, unreadable: list[str]) -> None:
        self._unreadable = unreadable
        self._parser: Any = _PeakHistory()
        if isinstance(parser, MaxDemandParser):
            return
        self._parser = deepcopy(parser)
        # The library's own take one digit of channel, and only certain characters in a value.
        self._parser._parse_obis_id_code = _channel  # noqa: SLF001
        self._parser._parse = self._values  # noqa: SLF001
        formats = list(self._parser.value_formats)
        if isinstance(self._parser, ProfileGenericParser):
            formats += [value for kind in self._parser.buffer_types.values() for value in kind]
        for value in formats:
            value.coerce_type = _COERCIONS.get(value.coerce_type, value.coerce_type)

    def _values(self, line: str) -> Any:
        groups = line[line.find('(') :]
        values = [value.rstrip(' \t') for value in _VALUES.findall(groups)]
        if ')' in _VALUES.sub('', groups):
            raise ParseError(f'brackets within a value: {line}')
        if not self._parser._is_line_wellformed(line, values):  # noqa: SLF001
            raise ParseError(f'wrong number of values: {line}')
        return self._parser._parse_values([value or None for value in values])  # noqa: SLF001

    def parse(self, line: str) -> Any:
        try:
            return self._parser.parse(line)
        except Exception as error:
            self._unreadable.append(code_of(line))
            raise ParseError(str(error)) from error
        finally:
            if isinstance(self._parser, ProfileGenericParser):
                del self._parser.value_formats[2:]  # it lengthens this list at every parse


def _pattern(library_pattern: str) -> re.Pattern[str]:
    r"""The library's pattern for a line, made exact: channels of any length, and a value behind the whole code.

    '^\d-[1-9]:24\.2\.1.+?\r\n' would also match 24.2.10, and a code without value together with the next line.
    """
    head = library_pattern.partition(r'.+?\r\n')[0].replace('[1-9]', r'[1-9]\d*')
    return re.compile(head.replace(r'\d-', r'\d+-').replace(r'-\d:', r'-\d+:') + r'(?!\d)[^(]*\(')


@dataclass(frozen=True)
class _Object:
    pattern: re.Pattern[str]
    parser: _Tolerant
    name: str


Plan = list[tuple[_Object, int]]


class Specification:
    """One telegram specification. Not for two threads at once: it keeps what it could not read."""

    def __init__(self, name: str) -> None:
        source = getattr(telegram_specifications, name)
        self.name = name
        self.has_checksum: bool = source['checksum_support']
        self._unreadable: list[str] = []
        self._read: dict[tuple[str, str], Any] = {}  # the last telegram's objects
        self._objects = [
            _Object(
                _pattern(item['obis_reference']),
                _Tolerant(item['value_parser'], self._unreadable),
                item['value_name'],
            )
            for item in source['objects']
        ]

    def plan(self, lines: list[str]) -> Plan:
        """Which object reads which line, by its index, in the order in which TelegramParser reads them."""
        return [(each, index) for each in self._objects for index, line in enumerate(lines) if each.pattern.match(line)]

    def parse(self, lines: list[str], plan: Plan) -> tuple[list[tuple[str, Any]], list[str]]:
        """The objects of a telegram by name, and the codes of the lines that could not be read.

        What TelegramParser.parse() does, without searching the telegram anew for each object, and without reading
        anew the lines that were the same in the telegram before, as most are.
        """
        self._unreadable.clear()
        parsed: list[tuple[str, Any]] = []
        before, self._read = self._read, {}
        for each, index in plan:
            key = each.name, lines[index]
            try:
                item = self._read[key] = before.get(key) or each.parser.parse(lines[index])
            except ParseError:
                continue
            parsed.append((each.name, item))
        return parsed, [*dict.fromkeys(self._unreadable)]


def value_names() -> frozenset[str]:
    """The names of all objects of all specifications."""
    return frozenset(item['value_name'] for name in NAMES for item in getattr(telegram_specifications, name)['objects'])


@dataclass(frozen=True)
class Choice:
    """A specification for a telegram, and which of its objects reads which line.

    Unsure when it knows less than half of the telegram's lines.
    """

    specification: Specification
    plan: Plan
    unsure: bool
    unknown_codes: tuple[str, ...]


class Chooser:
    """Finds the specification of each telegram, or holds to the one that is set.

    Not for two threads at once: it remembers the choice for the meter at hand by the codes that it sends.
    """

    def __init__(self, name: str = 'auto') -> None:
        self._fixed = name if name != 'auto' else None
        self._made: dict[str, Specification] = {}
        self._last: tuple[tuple[str, ...], Choice] | None = None

    def choose(self, header: str, lines: list[str], *, encrypted: bool = False) -> Choice:
        """The specification for a telegram by its header and object_lines(); `encrypted` when it came as a frame."""
        version = next((line for line in lines if line.startswith('1-3:0.2.8(')), '')
        codes = [line[: line.find('(') + 1] or line for line in lines]
        key = (header, version, str(encrypted), *codes)
        if not self._last or self._last[0] != key:
            self._last = key, self._choice(header, version, lines, codes, encrypted=encrypted)
        return self._last[1]

    def _choice(self, header: str, version: str, lines: list[str], codes: list[str], *, encrypted: bool) -> Choice:
        names = (self._fixed,) if self._fixed else _candidates(header, version, codes, encrypted=encrypted)
        plans = {name: self._get(name).plan(lines) for name in names}
        known = {name: {index for _, index in plan} for name, plan in plans.items()}
        name = max(known, key=lambda name: len(known[name]))  # the first of them on a tie
        unknown = tuple(code_of(line) for index, line in enumerate(lines) if index not in known[name])
        return Choice(self._get(name), plans[name], len(unknown) * 2 > len(lines), unknown)

    def _get(self, name: str) -> Specification:
        if name not in self._made:
            self._made[name] = Specification(name)
        return self._made[name]


def object_lines(text: str) -> list[str]:
    """The lines of a telegram that begin with an OBIS code; a value alone on a line (DSMR 2.2) joined to its code's."""
    lines: list[str] = []
    for each in text.split('\n'):
        line = each.strip(' \t\r')
        if _CODE.match(line):
            lines.append(line)
        elif line.startswith('(') and lines and _TWO_LINES.match(lines[-1]):
            lines[-1] += line
    return lines


def _candidates(header: str, version: str, codes: list[str], *, encrypted: bool) -> tuple[str, ...]:
    if encrypted:
        return _ENCRYPTED
    if header.startswith('/Lux5'):
        return ('LUXEMBOURG_SMARTY',)
    stated = _VERSION.match(version)
    if stated and not any(code.startswith('1-0:1.8.0') for code in codes):
        return (f'V{stated[1]}',)
    return _PLAIN
