"""The house whose meter is simulated: the power on its phases, its counters and its peaks at any moment.

Pure: the moment that a function is called with determines what it returns. Of a telegram it knows only how
a time is written there.
"""

from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from zoneinfo import ZoneInfo

DUTCH = ZoneInfo('Europe/Amsterdam')
"""The time zone of the time stamps, and of the months to which the Belgian peaks belong."""
WINTER_TIME = timezone(timedelta(hours=1))
"""The time zone of the tables and of the tariffs, all year round: no hour of theirs is skipped or comes twice."""
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
FIVE_MINUTES = 5 * MINUTE
QUARTER = 15 * MINUTE
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

LOW, NORMAL = 1, 2
"""The Dutch numbers of the tariffs."""
BELGIAN_TARIFFS = {NORMAL: 1, LOW: 2}
NORMAL_HOURS = range(7, 23)
"""The hours of every day in which the normal tariff applies."""
USED, DELIVERED = 1, -1
"""The directions of energy: the sign of the power in each direction."""

_DAY = """
hour    phase 1  phase 2  phase 3   solar
   0        110       55       40       0
   1        110       55       40       0
   2        110       55       40       0
   3        110       55       40       0
   4        110       55       40       0
   5        110       55       40       0
   6        160       55       60       0
   7        640       55       90      80
   8        210       55       60     500
   9        151      430       40    1600
  10        151      107       40    2500
  11        151      107       40    3100
  12        310      107       40    3200
  13        151       55       40    3000
  14        151       55       40    2300
  15        151       55       40    1500
  16        210       55       60     700
  17        820       55      180     100
  18        952      420      280       0
  19        320       55      290       0
  20        240       55      290       0
  21        210       55      290       0
  22        160       55      220       0
  23        110       55       90       0
"""


class HourOfDay(NamedTuple):
    """Watts in one hour of every day: used on each of the three phases, and produced by solar panels on the second."""

    phase_1: int
    phase_2: int
    phase_3: int
    solar: int


def _hours_of_day(table: str) -> list[HourOfDay]:
    """The rows of the table, whose first line names the columns."""
    _, *rows = table.strip().splitlines()
    hours = []
    for row in rows:
        _, *watts = map(int, row.split())
        hours.append(HourOfDay(*watts))
    return hours


DAY_W = _hours_of_day(_DAY)
"""By the hour. The power of all phases together is never near 0, so that the ripple cannot turn use into delivery."""
RIPPLE_W = (
    0,
    14,
    -9,
    5,
    -12,
    8,
    -3,
    11,
    -14,
    2,
    -7,
    5,
)
"""Watts added to the first phase, each for a second, so that successive telegrams differ. Their sum is 0: energy can be
counted without them."""
GRID_VOLTS = 229.5
WATTS_PER_VOLT = 1200.0
"""The watts on a phase that lower its voltage by one volt."""

START = datetime(2024, 1, 1, tzinfo=WINTER_TIME)
"""The counters had the following values until then."""
START_KWH = {
    (USED, LOW): 3563.643,
    (USED, NORMAL): 3158.281,
    (DELIVERED, LOW): 645.663,
    (DELIVERED, NORMAL): 849.801,
}
START_GAS_M3, GAS_M3_PER_HOUR = 1978.06, 0.125
START_WATER_M3, WATER_M3_PER_HOUR = 383.1095, 0.0125
PEAKS_KW = (
    4.329,
    3.846,
    4.012,
    3.291,
    2.884,
    2.507,
    2.391,
    2.644,
    3.102,
    3.518,
    3.977,
    4.215,
)
"""The peak of each month, from January. They are constants because all days of DAY_W are the same, and they are higher
than any average in it, so that a peak taken in the month's first quarter-hour remains the highest of the month."""
PAST_PEAKS = 13
"""Months of which a Belgian meter keeps the peak (e-MUCS P1, object 0-0:98.1.0)."""


class Capture(NamedTuple):
    """A value with the moment at which it was taken."""

    moment: datetime
    value: float

    @property
    def stamp(self) -> str:
        return stamp_of(self.moment)


def stamp_of(moment: datetime) -> str:
    """A P1 time stamp: local time, then S in summer or W in winter."""
    local = moment.astimezone(DUTCH)
    season = 'S' if local.dst() else 'W'
    return f'{local:%y%m%d%H%M%S}{season}'


def _round_down(moment: datetime, step: timedelta) -> datetime:
    """The last moment at which a whole number of steps had passed since START."""
    return moment.astimezone(WINTER_TIME) - (moment - START) % step


def _month_start(moment: datetime, months_ago: int = 0) -> datetime:
    local = moment.astimezone(DUTCH)
    months = local.year * 12 + local.month - 1 - months_ago
    year, month = divmod(months, 12)
    return datetime(year, month + 1, 1, tzinfo=DUTCH)


def metered(moment: datetime, interval: timedelta, start: float, per_hour: float) -> Capture:
    """A counter that is read once per interval, of something that flows evenly."""
    taken = _round_down(moment, interval)
    hours = max(taken - START, timedelta(0)) / HOUR
    return Capture(taken, start + per_hour * hours)


def _tariff_of(hour: int) -> int:
    if hour in NORMAL_HOURS:
        return NORMAL
    return LOW


def tariff_at(moment: datetime) -> int:
    """LOW or NORMAL."""
    return _tariff_of(moment.astimezone(WINTER_TIME).hour)


def phases_w(moment: datetime) -> list[float]:
    """The watts used on each phase, less those produced: negative where the phase delivers."""
    hour = moment.astimezone(WINTER_TIME).hour
    second = (moment - START) // SECOND
    ripple = RIPPLE_W[second % len(RIPPLE_W)]
    phase_1, phase_2, phase_3, solar = DAY_W[hour]
    return [phase_1 + ripple, phase_2 - solar, phase_3]


def average_kw(hour: int, direction: int) -> float:
    """The average power in one direction in an hour of the day. A meter adds up its phases first."""
    phase_1, phase_2, phase_3, solar = DAY_W[hour]
    net_w = phase_1 + phase_2 + phase_3 - solar
    return max(0, direction * net_w) / 1000


def energy_kwh(moment: datetime, direction: int, tariff: int) -> float:
    """The counter of one direction and one tariff.

    As every day is the same, each hour of the day has passed once in each whole day since START, and today not at all,
    in part or whole.
    """
    days, today = divmod(max(moment - START, timedelta(0)), DAY)
    counter = START_KWH[direction, tariff]
    for hour in range(24):
        if _tariff_of(hour) == tariff:
            passed_today = min(max(today / HOUR - hour, 0.0), 1.0)
            counter += average_kw(hour, direction) * (days + passed_today)
    return counter


def demand_kw(moment: datetime) -> float:
    """The energy used in this quarter-hour so far, as an average over the whole quarter-hour."""
    begin = _round_down(moment, QUARTER)
    return average_kw(begin.hour, USED) * ((moment - begin) / QUARTER)


def month_peak(moment: datetime) -> Capture:
    """The month's peak in kW, with the end of its quarter-hour: the first of the month, before which it is 0."""
    month = _month_start(moment)
    first_end = month + QUARTER
    if moment < first_end:
        return Capture(month, 0.0)
    return Capture(first_end, PEAKS_KW[month.month - 1])


def past_peaks(moment: datetime) -> list[tuple[datetime, Capture]]:
    """The end of each of the past months, the oldest first, with that month's peak."""
    ends = [_month_start(moment, months_ago) for months_ago in reversed(range(PAST_PEAKS))]
    return [(end, month_peak(end - SECOND)) for end in ends]
