"""The syntax of a line: its code, its groups, the device that it is about, and the line that it is continued on."""

import re

import pytest

from dsmr_rest.reading.lines import (
    BYTE,
    POSITIVE_BYTE,
    UnreadableLineError,
    code_of,
    device_channel,
    groups_of,
    has_code,
    numbers_of_code,
    object_lines,
)


def test_the_groups_of_a_line_are_what_its_brackets_hold() -> None:
    """An empty pair is an empty group, blanks at the end of a group are dropped, what follows the last is ignored."""
    assert groups_of('1-0:1.8.1(1*kWh)( 2 \t)() end') == ['1*kWh', ' 2', '']


def test_brackets_in_pairs_belong_to_the_text_of_their_group() -> None:
    """Only the outer pairs make groups, so that a message with brackets is one text."""
    assert groups_of('0-0:96.13.0(Tel (06) 1/23 (a(b)))') == ['Tel (06) 1/23 (a(b))']
    assert groups_of('1-0:1.8.1(1)((2))') == ['1', '(2)']


def test_a_message_that_ran_into_the_next_line_is_its_last_pair() -> None:
    """Of any other line that has lost its end, nothing is taken for its value."""
    assert groups_of('0-0:96.13.0(30311-0:32.7.0(220.1*V)') == ['220.1*V']
    with pytest.raises(UnreadableLineError):
        groups_of('1-0:1.8.1(0001-0:1.8.2(5.0*kWh)')


@pytest.mark.parametrize(
    'line',
    [
        '1-0:1.8.1(0.1)*kW)',
        '1-0:1.8.1(1))',
        '1-0:1.8.1(12(41.882*kWh)',
        '1-0:1.8.1(1',
        '1-0:1.8.1',
    ],
)
def test_a_line_without_groups_or_with_a_bracket_alone_is_unreadable(line: str) -> None:
    """No part of such a line is taken for its value."""
    with pytest.raises(UnreadableLineError):
        groups_of(line)


def test_a_value_on_a_line_of_its_own_belongs_to_a_2_2_gas_reading_only() -> None:
    """The second line of 24.3.0 is joined to the first; after another code, or without one, it is dropped."""
    text = '(0)\n1-0:1.8.1(1)\r\n(2)\r\n0-1:24.3.0(1)(m3)\r\n  (00123.450) \r\nstray\n'
    assert object_lines(text) == ['1-0:1.8.1(1)', '0-1:24.3.0(1)(m3)(00123.450)']


@pytest.mark.parametrize(
    ('code', 'channel'),
    [
        ('0-1:24.1.0', 1),
        ('0-12:24.1.0', 12),
        ('0-255:24.1.0', 255),
        ('00-01:24.1.0', 1),
        ('0-0:96.1.1', None),
        ('1-1:31.4.0', None),
        ('0-256:24.1.0', None),
        ('0-999:24.1.0', None),
        ('0-0001:24.1.0', None),
        (f'0-{"9" * 5000}:24.1.0', None),
        (f'{"0" * 5000}-1:24.1.0', None),
    ],
)
def test_a_channel_is_one_byte(code: str, channel: int | None) -> None:
    """A line is a device's when its medium is 0 and its channel from 1 to 255."""
    assert device_channel(f'{code}(003)') == channel


@pytest.mark.parametrize(
    ('line', 'numbers'),
    [
        ('1-0:1.8.0(23.4*kWh)', (1, 0, 1, 8, 0)),
        ('01-012:1.8.0*255(1)', (1, 12, 1, 8, 0, 255)),
        ('1.8.0(1)', (1, 8, 0)),
        ('no code(1)', ()),
    ],
)
def test_the_numbers_of_a_code_put_lines_in_order(line: str, numbers: tuple[int, ...]) -> None:
    """Only what is before the brackets counts, and leading zeros do not."""
    assert numbers_of_code(line) == numbers


def test_the_patterns_of_a_byte_match_each_byte_and_no_other_number() -> None:
    """BYTE takes leading zeros, POSITIVE_BYTE neither these nor 0."""
    numbers = range(1200)
    assert [number for number in numbers if re.fullmatch(BYTE, str(number))] == [*range(256)]
    assert [number for number in numbers if re.fullmatch(BYTE, f'{number:03}')] == [*range(256)]
    assert [number for number in numbers if re.fullmatch(POSITIVE_BYTE, str(number))] == [
        *range(1, 256)
    ]
    assert not re.fullmatch(POSITIVE_BYTE, '01')


@pytest.mark.parametrize(
    ('line', 'code'),
    [
        ('1-0:1.8.1(1)', '1-0:1.8.1'),
        ('1-0:1.8.1*255(1)', '1-0:1.8.1*255'),
        ('1-0:72:32.0(1)', '1-0:72:32.0'),
        ('0-0:F.F(00)', '0-0:F.F'),
        ('C.1.0(1)', 'C.1.0'),
        ('1.8.0*01(1)', '1.8.0*01'),
        ('1.8.0&01(1)', '1.8.0&01'),
        ('1-0:1.8.1 \t(1)', '1-0:1.8.1'),
    ],
)
def test_a_line_has_the_code_that_was_sent(line: str, code: str) -> None:
    """The code is all that is before the first bracket, with value group F, and letters where the standard has some."""
    assert object_lines(line) == [line]
    assert has_code(line)
    assert code_of(line) == code


@pytest.mark.parametrize(
    ('line', 'shown'),
    [
        ('1-0:John Doe(1)', '1-0:'),
        ('1-0:1.8.1 John(1)', '1-0:1.8.1'),
        ('1-0:1.8.1234(1)', '1-0:1.8.123'),
        ('1234-0:1.8.1(1)', '?'),
    ],
)
def test_what_is_no_code_is_not_shown(line: str, shown: str) -> None:
    """A line whose beginning is not a code has none, and no more of it is named than a code could be."""
    assert object_lines(line) == [line]
    assert not has_code(line)
    assert code_of(line) == shown
