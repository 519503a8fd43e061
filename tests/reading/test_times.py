"""Timestamps of telegrams: dates, marks of no time, and the time zone of the meter."""

import pytest

from dsmr_rest.reading.times import MeterTime, has_form_of_timestamp, is_date, may_be_time


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('200927202614S', '2020-09-27T20:26:14+02:00'),
        ('240115103000W', '2024-01-15T10:30:00+01:00'),
        ('241027023000S', '2024-10-27T02:30:00+02:00'),  # the ambiguous hour, both times
        ('241027023000W', '2024-10-27T02:30:00+01:00'),
        ('240701120000W', '2024-07-01T12:00:00+01:00'),  # a meter that stays on W all summer
        ('240115120000S', '2024-01-15T12:00:00+02:00'),
        ('240701120000', '2024-07-01T12:00:00+02:00'),
        ('240115120000', '2024-01-15T12:00:00+01:00'),
        ('240229000000W', '2024-02-29T00:00:00+01:00'),
        ('700101000000W', '1970-01-01T00:00:00+01:00'),
        ('691231235959W', '1969-12-31T23:59:59+01:00'),
        ('681231235959W', '2068-12-31T23:59:59+01:00'),
        ('000101000000W', '2000-01-01T00:00:00+01:00'),
    ],
)
def test_a_timestamp_is_the_meter_s_own(text: str, expected: str) -> None:
    """The digits stay as they are, with the offset of their suffix, or of the Netherlands without one."""
    moment = MeterTime().moment(text)
    assert moment
    assert moment.isoformat() == expected


NO_DATES = [
    '632525252525W',
    '632525252525',
    '000000000000W',
    '230229120000W',
    '240115250000W',
    '240115106000W',
    '240115103060W',
    '24011510300W',
    '2401151030000W',
    '240115103000s',
    '240115103000X',
    '240115103000W\n',
    '2401151030',
    '-40115103000W',
    ' 40115103000W',
    '24011510300\u0663W',
    '9' * 5000,
    '',
]


@pytest.mark.parametrize('text', NO_DATES)
def test_what_is_no_date_is_none(text: str) -> None:
    """Meters send impossible dates where they have nothing to say."""
    assert MeterTime().moment(text) is None


@pytest.mark.parametrize(
    ('zone', 'summer', 'winter'),
    [
        ('Europe/Amsterdam', '+02:00', '+01:00'),
        ('Europe/Helsinki', '+03:00', '+02:00'),
        ('Europe/Vilnius', '+03:00', '+02:00'),
        ('Europe/London', '+01:00', '+00:00'),
        (
            'Europe/Dublin',
            '+01:00',
            '+00:00',
        ),  # whose winter time is the exception, in the database
        ('Australia/Sydney', '+11:00', '+10:00'),  # where summer is in January
        ('Europe/Istanbul', '+03:00', '+03:00'),  # without summer time
    ],
)
def test_the_letter_means_the_offset_of_the_zone(zone: str, summer: str, winter: str) -> None:
    """S is the summer time of the meter's zone and W its winter time, whatever the date."""
    time = MeterTime(zone)
    for digits, local in (
        ('230605105510', '2023-06-05T10:55:10'),
        ('700101000000', '1970-01-01T00:00:00'),
    ):
        for letter, offset in (('S', summer), ('W', winter)):
            moment = time.moment(digits + letter)
            assert moment
            assert moment.isoformat() == local + offset


@pytest.mark.parametrize(
    ('text', 'expected'),
    [('230605105510', '2023-06-05T10:55:10+03:00'), ('231205105510', '2023-12-05T10:55:10+02:00')],
)
def test_without_a_letter_it_is_local_time(text: str, expected: str) -> None:
    """The zone's own rules say whether it is summer time."""
    moment = MeterTime('Europe/Helsinki').moment(text)
    assert moment
    assert moment.isoformat() == expected


@pytest.mark.parametrize(
    ('text', 'has_form', 'date', 'time'),
    [
        ('240115103000W', True, True, True),
        ('240115103000', True, True, True),
        ('632525252525W', True, False, True),
        ('632525252525', True, False, True),
        ('000000000000', True, False, True),
        ('000000000000S', True, False, True),
        ('240115103000s', True, True, True),
        ('', False, False, True),
        ('000012345678', True, False, False),
        ('0001234567', False, False, False),
        ('240115103000*W', False, False, False),
        ('24011510300\u0663W', False, False, False),
        ('ON', False, False, False),
    ],
)
def test_what_may_be_a_time_is_no_number(text: str, has_form: bool, date: bool, time: bool) -> None:
    """Digits that are a date, a known mark, and digits with a letter are times; other digits are a number."""
    assert (has_form_of_timestamp(text), is_date(text), may_be_time(text)) == (has_form, date, time)
