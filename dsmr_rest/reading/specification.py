"""dsmr_parser's telegram specifications, and the choice between them.

A telegram specification is one of dsmr_parser's tables: which OBIS pattern has which name and which kind of value. The
tables are read, never changed. Of an entry, the name is used as it is, the pattern is made exact (`_exact_pattern`),
and the kind of value becomes a parser of this project (lines.py).

The choice depends on the header, the stated version and the OBIS codes of a telegram, not on whether its values can be
parsed: with a wrong specification they often can, under wrong names. No I/O, no clock.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from dsmr_parser import telegram_specifications

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.lines import (
    BYTE,
    POSITIVE_BYTE,
    LineParser,
    code_of,
    device_channel,
    line_parser,
)

# The first of them is chosen when several know equally many lines.
_PLAIN = (
    'V2_2',
    'V4',
    'V5',
    'BELGIUM_FLUVIUS',
    'LUXEMBOURG_SMARTY',
    'SWEDEN',
    'EON_HUNGARY',
    'ISKRA_IE',
    'Q3D',
)
_ENCRYPTED = ('MSN', 'SAGEMCOM_T210_D_R')

_VERSION_CODE = '1-3:0.2.8('
_VERSION_LINE = re.compile(r'1-3:0\.2\.8\(([45])\d\)')
_TOTAL_ENERGY_CODE = '1-0:1.8.0'


def _exact_pattern(library_pattern: str) -> re.Pattern[str]:
    r"""A pattern for the lines that the library means, up to the bracket of their value.

    The library's '^\d-[1-9]:24\.2\.1.+?\r\n' knows one digit of channel, also matches 24.2.10, and matches a code
    without value together with the next line.
    """
    code, _, _ = library_pattern.partition(r'.+?\r\n')
    code = code.replace(r'^\d-', f'^{BYTE}-')
    code = code.replace('-[1-9]:', f'-{POSITIVE_BYTE}:')
    code = code.replace(r'-\d:', f'-{BYTE}:')
    return re.compile(code + r'(?!\d)[^(]*\(')


class Entry(NamedTuple):
    """An entry of a specification: the lines it is for, their name in dsmr_parser, and their parser."""

    pattern: re.Pattern[str]
    name: str
    parser: LineParser


@dataclass(frozen=True)
class PlannedLine:
    """A line of a telegram, by its index, and the entry of the specification that it is parsed with.

    `channel` is that of the M-Bus device whose line it is, None when it is the meter's own.
    """

    entry: Entry
    index: int
    channel: int | None


Plan = list[PlannedLine]
"""In the order of the specification's entries."""


class Specification:
    """One of dsmr_parser's telegram specifications."""

    def __init__(self, name: str) -> None:
        table = _table(name)
        self.name = name
        self.has_checksum: bool = table['checksum_support']
        self._entries: list[Entry] = []
        for row in table['objects']:
            entry = Entry(
                pattern=_exact_pattern(row['obis_reference']),
                name=row['value_name'],
                parser=line_parser(row['value_parser']),
            )
            self._entries.append(entry)

    def plan(self, lines: list[str]) -> Plan:
        """The lines that this specification knows, in the order of its entries, which is the document's.

        A line that several entries are for is planned for each of them.
        """
        plan = []
        for entry in self._entries:
            for index, line in enumerate(lines):
                if entry.pattern.match(line):
                    channel = device_channel(line)
                    plan.append(PlannedLine(entry, index, channel))
        return plan


def _table(name: str) -> dict[str, Any]:
    table: dict[str, Any] = getattr(telegram_specifications, name)
    return table


def value_names() -> frozenset[str]:
    """The names of all entries of all specifications."""
    names = set()
    for specification in SPECIFICATION_NAMES:
        for row in _table(specification)['objects']:
            names.add(row['value_name'])
    return frozenset(names)


class Choice(NamedTuple):
    """The specification for a telegram, and which of its entries reads which line.

    `unsure` when it knows less than half of the telegram's lines; `unknown_codes` are those of the lines it does not
    know.
    """

    specification: Specification
    plan: Plan
    unsure: bool
    unknown_codes: tuple[str, ...]


class _Signature(NamedTuple):
    """What the choice for a telegram depends on; equal for all telegrams of one meter."""

    header: str
    version_line: str
    codes: tuple[str, ...]
    encrypted: bool


class Chooser:
    """Finds the specification of each telegram, or keeps to the one that is set.

    Trying all specifications takes longer than reading the telegram, and a meter sends the same codes each time.
    Therefore the last choice is kept for as long as the signature of the telegrams stays the same.

    Not for two threads at once.
    """

    def __init__(self, name: str = 'auto') -> None:
        self._name = name
        self._specifications: dict[str, Specification] = {}
        self._last_signature: _Signature | None = None
        self._last_choice: Choice | None = None

    def choose(self, header: str, lines: list[str], *, encrypted: bool = False) -> Choice:
        """The specification for a telegram with this header line and these object_lines().

        `encrypted` when the telegram came as an encrypted frame.
        """
        signature = _Signature(
            header=header,
            version_line=_version_line(lines),
            codes=tuple(map(_up_to_value, lines)),
            encrypted=encrypted,
        )
        if self._last_choice is None or signature != self._last_signature:
            names = self._candidates(signature)
            choices = [self._choice(name, lines) for name in names]
            self._last_choice = min(choices, key=_unknown_lines)  # the first on a tie
            self._last_signature = signature
        return self._last_choice

    def _candidates(self, signature: _Signature) -> tuple[str, ...]:
        if self._name != 'auto':
            return (self._name,)
        if signature.encrypted:
            return _ENCRYPTED
        if signature.header.startswith('/Lux5'):
            return ('LUXEMBOURG_SMARTY',)
        stated_version = _VERSION_LINE.match(signature.version_line)
        if stated_version is None:
            return _PLAIN
        for code in signature.codes:
            if code.startswith(_TOTAL_ENERGY_CODE):  # which Dutch meters do not send
                return _PLAIN
        return (f'V{stated_version[1]}',)

    def _choice(self, name: str, lines: list[str]) -> Choice:
        specification = self._specification(name)
        plan = specification.plan(lines)
        known_lines = {planned.index for planned in plan}
        unknown_codes = []
        for index, line in enumerate(lines):
            if index not in known_lines:
                code = code_of(line)
                unknown_codes.append(code)
        return Choice(
            specification=specification,
            plan=plan,
            unsure=len(unknown_codes) * 2 > len(lines),
            unknown_codes=tuple(unknown_codes),
        )

    def _specification(self, name: str) -> Specification:
        if name not in self._specifications:
            self._specifications[name] = Specification(name)
        return self._specifications[name]


def _unknown_lines(choice: Choice) -> int:
    return len(choice.unknown_codes)


def _version_line(lines: list[str]) -> str:
    for line in lines:
        if line.startswith(_VERSION_CODE):
            return line
    return ''


def _up_to_value(line: str) -> str:
    """The beginning of a line with its first bracket, or all of a line that has none."""
    bracket = line.find('(')
    if bracket == -1:
        return line
    return line[: bracket + 1]
