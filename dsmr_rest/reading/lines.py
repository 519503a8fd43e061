r"""The syntax of a telegram's lines: their OBIS codes and their groups.

A line is a code and its groups, `1-0:1.8.1(000123.456*kWh)`; a group is what one outer pair of brackets holds (P1
companion standard, after IEC 62056-21). Of what codes mean this module only knows which are about M-Bus devices; it
does not know what a group says. No I/O, no clock.
"""

import re

Groups = list[str]
"""What the pairs of brackets of a line hold."""

BYTE = r'(?:25[0-5]|2[0-4]\d|[01]?\d?\d)'
"""Pattern of 0 to 255, with leading zeros or not: each part of an OBIS code is one byte (IEC 62056-6-1)."""
POSITIVE_BYTE = r'(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]\d?)'
"""Pattern of 1 to 255 without leading zeros."""

_BRACKET = re.compile('([()])')  # with a group, so that split() keeps the brackets
_PART = r'(?:\d{1,3}|[CFLP])'
"""Of a code: a byte, or the letter that IEC 62056-61 has for some of them."""
_REDUCED_CODE = rf'{_PART}(?:[.:]{_PART}){{1,3}}(?:[*&]\d{{1,3}})?'
"""Pattern of C.D.E*F, as meters after IEC 62056-21 send it, without medium and channel."""
_BEGIN_OF_CODE = re.compile(rf'\d+-\d+:[^(\r]|{_REDUCED_CODE}\(')
_CODE_ALONE = re.compile(
    rf'(?:\d{{1,3}}-\d{{1,3}}:)?{_REDUCED_CODE}|\d{{1,3}}-\d{{1,3}}:(?:{_PART})?'
)
_CODE_ON_TWO_LINES = re.compile(r'\d+-\d+:24\.3\.0\(')
_CODE_OF_DEVICE_ITSELF = re.compile(rf'0{{1,3}}-{POSITIVE_BYTE}:(?:24\.[123]|96\.1)\.\d{{1,3}}\(')
"""The type, the reading or the number of an M-Bus device (P1 companion standard)."""
_CUT_MESSAGE = re.compile(r'\d+-\d+:96\.13\.\d+\([^()]*\(([^()]*)\)')
_NUMBER = re.compile(r'\d+')
_DEVICE_CODE = re.compile(rf'0{{1,3}}-({BYTE}):')


class UnreadableLineError(Exception):
    """The groups of a line are not what its kind of line has."""


def object_lines(text: str) -> list[str]:
    """The lines of a telegram that begin with an OBIS code.

    DSMR 2.2 sends the gas reading on a separate line, after the line with its code: the two are joined.
    """
    lines: list[str] = []
    for raw_line in text.split('\n'):
        line = raw_line.strip(' \t\r')
        if _BEGIN_OF_CODE.match(line):
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


def has_code(line: str) -> bool:
    """Whether all that a line has before its first group is an OBIS code."""
    before_groups, _, _ = line.partition('(')
    return bool(_CODE_ALONE.fullmatch(before_groups.rstrip(' \t')))


def device_channel(line: str) -> int | None:
    """The channel, 1 to 255, of the M-Bus device that a line is about; None when it is about the meter itself."""
    match = _DEVICE_CODE.match(line)
    if match is None:
        return None
    return int(match[1]) or None


def numbers_of_code(line: str) -> tuple[int, ...]:
    """The numbers of the code of a line, such as (1, 0, 1, 8, 0) for 1-0:1.8.0."""
    numbers = _NUMBER.findall(code_of(line))
    return tuple(map(int, numbers))


def says_what_device_is(line: str) -> bool:
    """Whether a line has the type, the reading or the number of an M-Bus device."""
    return _CODE_OF_DEVICE_ITSELF.match(line) is not None


def groups_of(line: str) -> Groups:
    """What the outer pairs of brackets of a line hold, without trailing blanks.

    Pairs within them, as in a text message, are part of the text. Raises UnreadableLineError when the line has no
    groups, or a bracket without its partner, because then it is not sure where a group begins: of a number, digits
    would be lost. A text message that was cut short is its last pair, as dsmr_parser has it.
    """
    cut_message = _CUT_MESSAGE.fullmatch(line)
    if cut_message is not None:
        return [cut_message[1].rstrip(' \t')]
    groups = []
    group = ''
    depth = 0
    for part in _BRACKET.split(line):
        if part == ')':
            depth -= 1
            if depth < 0:
                raise UnreadableLineError('a bracket that closes nothing')
            if depth == 0:
                groups.append(group.rstrip(' \t'))
                group = ''
        if depth > 0:
            group += part
        if part == '(':
            depth += 1
    if depth > 0:
        raise UnreadableLineError('a bracket that is not closed')
    if not groups:
        raise UnreadableLineError('no groups')
    return groups
