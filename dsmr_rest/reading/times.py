"""Timestamps of telegrams: YYMMDDhhmmss and a letter for the season (P1 companion standard).

A timestamp says the local time of the meter, so it needs a time zone to become a moment. Meters have several ways to
say that there is no time: impossible dates such as 632525252525W, zeros, or nothing. This module does not know which
line a text is from. No I/O, no clock; the time zone database is read once for each MeterTime.
"""

import re
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from dsmr_rest.choices import TIME_ZONE

_TIMESTAMP = re.compile(r'(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)([A-Za-z]?)', re.ASCII)
_DIGITS = 12
_CENTURY_PIVOT = 69
"""Two-digit years from here on are 19xx, as in POSIX: meters without a reading send 700101."""
_MARKS_OF_NO_TIME = ('', '000000000000', '632525252525')
"""What meters send in place of a time; with a letter, any impossible date is such a
mark, and so are digits with another letter than S and W."""
_YEAR_OF_OFFSETS = 2024
"""What S and W mean is a property of the zone, not of the year: one in which zones with summer time have it."""


def has_form_of_timestamp(text: str) -> bool:
    """Whether a text is twelve digits, perhaps with a letter, also when they are no date."""
    return _TIMESTAMP.fullmatch(text) is not None


def is_date(text: str) -> bool:
    """Whether a text is twelve digits of a time that exists, perhaps with a letter."""
    return _local_time(text) is not None


def may_be_time(text: str) -> bool:
    """Whether a text is a time, or a mark for none, and no number.

    Twelve digits without letter that are no date are a number, unless they are one of the known marks.
    """
    has_letter = text[-1:].isalpha()
    if has_letter and has_form_of_timestamp(text):
        return True
    return text in _MARKS_OF_NO_TIME or is_date(text)


class MeterTime:
    """The time zone of a meter: what the times in its telegrams mean."""

    def __init__(self, zone_name: str = TIME_ZONE) -> None:
        zone = ZoneInfo(zone_name)
        winter, summer = _offsets(zone)
        self._zones = {
            'S': timezone(summer),
            'W': timezone(winter),
            '': zone,
        }

    def moment(self, text: str) -> datetime | None:
        """A timestamp as the meter's local time with its UTC offset; None when it says no time.

        Its letter is S for summer time and W for winter time. DSMR 2.2 sends none: its time is that of the zone.
        """
        local = _local_time(text)
        letter = text[_DIGITS:]
        if local is None or letter not in self._zones:
            return None
        return local.replace(tzinfo=self._zones[letter])


def _offsets(zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """The UTC offsets of winter and summer time, which are equal in a zone without summer time."""
    offsets = []
    for month in (1, 7):
        middle = datetime(_YEAR_OF_OFFSETS, month, 15, tzinfo=zone)
        offsets.append(middle.utcoffset() or timedelta())
    return min(offsets), max(offsets)


def _local_time(text: str) -> datetime | None:
    """The digits of a timestamp as a time without zone; None when they are no date."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    *digits, _ = match.groups()
    year, month, day, hour, minute, second = map(int, digits)
    if year >= _CENTURY_PIVOT:
        year += 1900
    else:
        year += 2000
    try:
        return datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 the caller knows the zone
    except ValueError:
        return None
