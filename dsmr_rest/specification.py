"""Private, tolerant copies of dsmr_parser's telegram specifications, and the choice between them.

The copies differ from the library's in what real meters need: channels above 9, the meter's own local time, numbers
that are numbers, and a line that cannot be read costs that line and never the telegram. The choice looks at the lines
that a telegram has, never at what parsing gives: a wrong specification does not fail, it lies. No I/O, no clock.
"""

import logging
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
from dsmr_parser.objects import Telegram as ParsedTelegram
from dsmr_parser.parsers import MaxDemandParser, ProfileGenericParser, TelegramParser, ValueParser
from dsmr_parser.value_types import timestamp as utc_timestamp

# dsmr_parser reports each line it cannot read with a traceback, at every telegram; Specification.parse() names them.
logging.getLogger('dsmr_parser').setLevel(logging.CRITICAL + 1)

NAMES = (
    'V2_2',
    'V3',
    'V4',
    'V5',
    'BELGIUM_FLUVIUS',
    'LUXEMBOURG_SMARTY',
    'MSN',
    'SWEDEN',
    'EON_HUNGARY',
    'ISKRA_IE',
    'Q3D',
    'SAGEMCOM_T210_D_R',
    'AUSTRIA_ENERGIENETZE_STEIERMARK',
)
"""All of dsmr_parser's. V3 is V2_2 and AUSTRIA_ENERGIENETZE_STEIERMARK is SAGEMCOM_T210_D_R by another name."""

# In the order in which a tie is decided.
_PLAIN = ('V2_2', 'V4', 'V5', 'BELGIUM_FLUVIUS', 'LUXEMBOURG_SMARTY', 'SWEDEN', 'EON_HUNGARY', 'ISKRA_IE', 'Q3D')
_ENCRYPTED = ('MSN', 'SAGEMCOM_T210_D_R')

_AMSTERDAM = ZoneInfo('Europe/Amsterdam')
_SEASONS = {'S': timezone(timedelta(hours=2)), 'W': timezone(timedelta(hours=1)), '': _AMSTERDAM}
_TIMESTAMP = re.compile(r'(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([SW]?)', re.ASCII)
_NUMBER = re.compile(r'-?\d{1,30}(\.\d{0,30})?', re.ASCII)
_CODE = re.compile(r'(\d+)-(\d+):[^(\r\n]+')
_VERSION = re.compile(r'^1-3:0\.2\.8\(([45])\d\)', re.MULTILINE)
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


_COERCIONS: dict[Any, Callable[[Any], Any]] = {utc_timestamp: local_timestamp, Decimal: _decimal}


def _channel(line: str) -> tuple[int, int]:
    match = _CODE.match(line)
    if not match:
        raise ParseError(f'no OBIS code: {line}')
    return int(match[1]), int(match[2])


class _PeakHistory:
    """Monthly peaks (e-MUCS 1.7): a count, two codes, then per month two timestamps and a value."""

    def parse(self, line: str) -> list[MBusObjectPeak]:
        groups = re.findall(r'\(([^()]*)\)', line)
        count, months = int(groups[0] or 0), groups[3:]
        if len(months) // 3 < count:
            raise ParseError(f'fewer months than {count}')
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
        self._parser._parse_obis_id_code = _channel  # noqa: SLF001 the library's takes one digit each
        formats = list(self._parser.value_formats)
        if isinstance(self._parser, ProfileGenericParser):
            formats += [value for kind in self._parser.buffer_types.values() for value in kind]
        for value in formats:
            value.coerce_type = _COERCIONS.get(value.coerce_type, value.coerce_type)

    def parse(self, line: str) -> Any:
        try:
            return self._parser.parse(line)
        except Exception as error:
            self._unreadable.append(line.partition('(')[0])
            raise ParseError(str(error)) from error
        finally:
            if isinstance(self._parser, ProfileGenericParser):
                del self._parser.value_formats[2:]  # it lengthens this list at every parse


def _pattern(library_pattern: str) -> str:
    r"""The library's pattern for a line, made exact: more than one digit of channel, nothing past the line's end.

    '^\d-[1-9]:24\.2\.1.+?\r\n' would also match 24.2.10, or a code without value and then the line behind it. The gas
    reading of DSMR 2.2 goes on in a second line, which begins with '('.
    """
    head, two_lines = library_pattern.removesuffix(r'.+?\r\n'), library_pattern.count(r'.+?\r\n') > 1
    head = (
        head.removesuffix(r'.+?\r\n').replace('[1-9]', r'[1-9]\d*').replace(r'\d-', r'\d+-').replace(r'-\d:', r'-\d+:')
    )
    return head + r'(?!\d)[^(\n]*\([^\n]*\n' + (r'(?:\([^\n]*\n)?' if two_lines else '')


class Specification:
    """One telegram specification. Not for two threads at once: it keeps what it could not read."""

    def __init__(self, name: str) -> None:
        source = getattr(telegram_specifications, name)
        self.name = name
        self.has_checksum: bool = source['checksum_support']
        self._unreadable: list[str] = []
        objects = [
            {
                'obis_reference': _pattern(item['obis_reference']),
                'value_parser': _Tolerant(item['value_parser'], self._unreadable),
                'value_name': item['value_name'],
            }
            for item in source['objects']
        ]
        # What arrives is plain and its checksum verified, on the bytes (telegram.py).
        self._parser = TelegramParser({'objects': objects, 'checksum_support': False}, apply_checksum_validation=False)
        self._any_line = re.compile('|'.join(item['obis_reference'] for item in objects), re.MULTILINE)

    def understood(self, lines: list[str]) -> list[str]:
        """Those of the lines, each with its end, that this specification has an object for."""
        return [line for line in lines if self._any_line.match(line)]

    def parse(self, text: str) -> tuple[ParsedTelegram, list[str]]:
        """The objects of a telegram with CRLF line ends, and the codes of the lines that could not be read."""
        self._unreadable.clear()
        parsed = self._parser.parse(text)
        return parsed, [*dict.fromkeys(self._unreadable)]


def value_names() -> frozenset[str]:
    """The names of all objects of all specifications."""
    return frozenset(item['value_name'] for name in NAMES for item in getattr(telegram_specifications, name)['objects'])


@dataclass(frozen=True)
class Choice:
    """A specification for a telegram; unsure when it knows less than half of the telegram's lines."""

    specification: Specification
    unsure: bool
    unknown_codes: tuple[str, ...]


class Chooser:
    """Finds the specification of each telegram, or holds to the one that is set.

    Not for two threads at once: it remembers the choice for the meter at hand by the codes that it sends.
    """

    def __init__(self, name: str = 'auto') -> None:
        self._fixed = None if name == 'auto' else Specification(name)
        self._made: dict[str, Specification] = {}
        self._last: tuple[tuple[str, ...], Choice] | None = None

    def choose(self, text: str, *, encrypted: bool = False) -> Choice:
        """The specification for a telegram with CRLF line ends; `encrypted` when it came as a cipher frame."""
        lines = [line for line in text.splitlines(keepends=True) if _CODE.match(line)]
        codes = tuple(line.partition('(')[0].strip() for line in lines)
        version = _VERSION.search(text)
        key = (text.partition('\n')[0], version[1] if version else '', str(encrypted), *codes)
        if not self._last or self._last[0] != key:
            found = self._fixed or self._find(text, lines, version, encrypted=encrypted)
            known = set(found.understood(lines))
            unknown = tuple(code for code, line in zip(codes, lines, strict=True) if line not in known)
            self._last = key, Choice(found, len(unknown) * 2 > len(lines), unknown)
        return self._last[1]

    def _find(self, text: str, lines: list[str], version: re.Match[str] | None, *, encrypted: bool) -> Specification:
        if text.startswith('/Lux5') and not encrypted:
            return self._get('LUXEMBOURG_SMARTY')
        if version and not encrypted and not any(line.startswith('1-0:1.8.0') for line in lines):
            return self._get('V' + version[1])
        candidates = [self._get(name) for name in (_ENCRYPTED if encrypted else _PLAIN)]
        return max(candidates, key=lambda candidate: len(candidate.understood(lines)))

    def _get(self, name: str) -> Specification:
        if name not in self._made:
            self._made[name] = Specification(name)
        return self._made[name]
