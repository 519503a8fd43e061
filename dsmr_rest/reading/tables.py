"""dsmr_parser's tables: which lines they are for, what they call them, and which names all of them agree on.

rows() is the only place where the tables are read; they are never changed. Of a row, the name is used as it is, the
pattern is made exact (`_exact_pattern`), and the library's parser object becomes a parser of this project (items.py).
This module does not know which table a telegram is read with. No I/O, no clock.
"""

import re
from functools import cache
from typing import Any, NamedTuple

from dsmr_parser import telegram_specifications

from dsmr_rest.choices import SPECIFICATION_NAMES
from dsmr_rest.reading.items import LineParser, Parsers
from dsmr_rest.reading.lines import BYTE, POSITIVE_BYTE

OWN_NUMBERS = (
    'EQUIPMENT_IDENTIFIER',
    'BELGIUM_EQUIPMENT_IDENTIFIER',
    'LUXEMBOURG_EQUIPMENT_IDENTIFIER',
    'EQUIPMENT_SERIAL_NUMBER',
    'COSEM_LOGICAL_DEVICE_NAME',
    'Q3D_EQUIPMENT_IDENTIFIER',
)
"""What the tables call the number of the electricity meter; those that say it best come first."""
SIGNS_OF_COUNTRY = (
    'BELGIUM_VERSION_INFORMATION',
    'EQUIPMENT_SERIAL_NUMBER',
    'COSEM_LOGICAL_DEVICE_NAME',
    'Q3D_EQUIPMENT_IDENTIFIER',
)
"""How the meters of a table's country identify themselves, where the header line does not: a telegram in which a table
knows one of these is of that country."""

_END_OF_CODE = r'(?:[.*]255)?[ \t]*\('
"""Value group F of an OBIS code is 255, or absent, for a present value; others are of past billing periods
(IEC 62056-6-1)."""
_CODE_OF_VERSION = r'^\d-\d:0\.2\.8'
_EXACT_CODE_OF_VERSION = r'^1-3:0\.2\.8'
"""The P1 standard's version; 1-0:0.2.8 is the signature of the meter's firmware (IEC 62056-6-1)."""
_CODE_OF_AVERAGE = re.compile(r':(?!24\\)\d+\\\.4\\\.0')
"""Value group D = 4 is an average (IEC 62056-6-1). What else a table calls it, such as the threshold of a fuse, is a
rule of its country. In 24.4.0, of an M-Bus device, D has another meaning."""


class Row(NamedTuple):
    """A row of one of dsmr_parser's tables: its regular expression for whole lines, a name and a parser object."""

    pattern: str
    name: str
    library_parser: Any


FURTHER_ROWS: dict[str, tuple[Row, ...]] = {}
"""Rows that a table lacks, by its name, until dsmr_parser has them: a code that meters of its country send."""


def rows(specification: str) -> list[Row]:
    """The rows of the table with this name, in the order of the table, and those that it lacks."""
    table = getattr(telegram_specifications, specification)
    found = []
    for row in table['objects']:
        pattern, name, parser = row['obis_reference'], row['value_name'], row['value_parser']
        found.append(Row(pattern, name, parser))
    found.extend(FURTHER_ROWS.get(specification, ()))
    return found


@cache
def value_names() -> frozenset[str]:
    """The names of all rows of all tables."""
    names = set()
    for specification in SPECIFICATION_NAMES:
        for row in rows(specification):
            names.add(row.name)
    return frozenset(names)


class Entry(NamedTuple):
    """A row as it is used: the lines it is for up to the bracket of their value, their name, and their parser.

    `is_national` when the name is right in one country only.
    """

    pattern: re.Pattern[str]
    name: str
    parser: LineParser
    is_national: bool


def entry_of(row: Row, parsers: Parsers) -> Entry:
    """A row with an exact pattern and a parser of this project."""
    return Entry(
        pattern=_exact_pattern(row.pattern),
        name=row.name,
        parser=parsers.line_parser(row.library_parser),
        is_national=_is_national(row),
    )


def _exact_pattern(library_pattern: str) -> re.Pattern[str]:
    r"""A pattern for the lines that the library means, up to the bracket of their value.

    The library's '^\d-[1-9]:24\.2\.1.+?\r\n' knows one digit of channel, also matches 24.2.10, and matches a code
    without value together with the next line.
    """
    code, _, _ = library_pattern.partition(r'.+?\r\n')
    code = code.replace(_CODE_OF_VERSION, _EXACT_CODE_OF_VERSION)
    code = code.replace(r'^\d-', f'^{BYTE}-')
    code = code.replace('-[1-9]:', f'-{POSITIVE_BYTE}:')
    code = code.replace(r'-\d:', f'-{BYTE}:')
    return re.compile(code + _END_OF_CODE)


def _is_national(row: Row) -> bool:
    """Whether a name begins as that of a table does, or the code has another meaning in the international standard."""
    countries = {specification.split('_')[0] for specification in SPECIFICATION_NAMES}
    first_word = row.name.split('_')[0]
    return first_word in countries or bool(_CODE_OF_AVERAGE.search(row.pattern))


class AgreedNames:
    """The names on which all tables that know a line agree.

    A table lacks codes that other tables know, because it was made from the meters of one country; a code of the
    international standard means the same in all of them.
    """

    def __init__(self, parsers: Parsers) -> None:
        entries: dict[tuple[str, str], Entry] = {}
        for specification in SPECIFICATION_NAMES:
            for row in rows(specification):
                same_line_and_name = (row.pattern, row.name)
                if same_line_and_name not in entries:
                    entries[same_line_and_name] = entry_of(row, parsers)
        self._entries = tuple(entries.values())

    def entry(self, line: str) -> Entry | None:
        """The entry with the name that a line has in all tables that know it.

        None when no table does, when two of them differ, or when the name is one country's own.
        """
        matching = [entry for entry in self._entries if entry.pattern.match(line)]
        names = {entry.name for entry in matching}
        if len(names) != 1:
            return None
        first, *_ = matching
        if first.is_national:
            return None
        return first
