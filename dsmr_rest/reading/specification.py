"""The choice between dsmr_parser's telegram specifications, and the plan by which a telegram is read.

A telegram specification is one of dsmr_parser's tables (tables.py). The choice depends on the header, the stated
version and the OBIS codes of a telegram, not on whether its values can be parsed: with a wrong specification they often
can, under wrong names. For the same reason a table that was chosen only because it knows the most lines does not give
the names of its own country, unless the telegram shows that it is from there; and lines that the chosen table does not
know have the name that all other tables agree on. No I/O, no clock.
"""

import re
from functools import cached_property
from typing import NamedTuple

from dsmr_rest.choices import TIME_ZONE
from dsmr_rest.reading.items import Parsers
from dsmr_rest.reading.lines import device_channel
from dsmr_rest.reading.tables import (
    SIGNS_OF_COUNTRY,
    AgreedNames,
    Entry,
    entry_of,
    rows,
)
from dsmr_rest.reading.times import MeterTime

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


class PlannedLine(NamedTuple):
    """A line of a telegram, by its number from 0 on, and the entry of the specification that it is parsed with.

    `channel` is that of the M-Bus device whose line it is, None when it is the meter's own.
    """

    entry: Entry
    number: int
    channel: int | None


Plan = list[PlannedLine]
"""In the order of the specification's entries."""


class Specification:
    """One of dsmr_parser's telegram specifications."""

    def __init__(self, name: str, parsers: Parsers) -> None:
        self.name = name
        self._entries = [entry_of(row, parsers) for row in rows(name)]

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


class Choice(NamedTuple):
    """The specification for a telegram, and which entry reads which line.

    `known_lines` is how many lines the specification itself knows, `unsure` when that is less than half of them.
    """

    specification: Specification
    plan: Plan
    known_lines: int
    unsure: bool


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

    def __init__(self, name: str = 'auto', time_zone: str = TIME_ZONE) -> None:
        self.parsers = Parsers(MeterTime(time_zone))
        self._name = name
        self._specifications: dict[str, Specification] = {}
        self._last_signature: _Signature | None = None
        self._last_choice: Choice | None = None

    @cached_property
    def _agreed_names(self) -> AgreedNames:
        return AgreedNames(self.parsers)

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
            best = max(choices, key=_known_lines)  # the first on a tie
            if names == _PLAIN:
                best = _without_names_of_other_countries(best)
            self._last_choice = self._with_agreed_names(best, lines)
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
        known_lines = len({planned.number for planned in plan})
        return Choice(
            specification=specification,
            plan=plan,
            known_lines=known_lines,
            unsure=known_lines * 2 < len(lines),
        )

    def _with_agreed_names(self, choice: Choice, lines: list[str]) -> Choice:
        """The choice with an entry for each further line whose name all tables agree on."""
        planned_lines = {planned.number for planned in choice.plan}
        plan = list(choice.plan)
        for index, line in enumerate(lines):
            if index in planned_lines:
                continue
            entry = self._agreed_names.entry(line)
            if entry is not None:
                channel = device_channel(line)
                plan.append(PlannedLine(entry, index, channel))
        return choice._replace(plan=plan)

    def _specification(self, name: str) -> Specification:
        if name not in self._specifications:
            self._specifications[name] = Specification(name, self.parsers)
        return self._specifications[name]


def _known_lines(choice: Choice) -> int:
    return choice.known_lines


def _without_names_of_other_countries(choice: Choice) -> Choice:
    """The choice without the names of the table's country, unless the telegram shows that it is the meter's too."""
    names = {planned.entry.name for planned in choice.plan}
    if not names.isdisjoint(SIGNS_OF_COUNTRY):
        return choice
    plan = [planned for planned in choice.plan if not planned.entry.is_national]
    return choice._replace(plan=plan)


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
