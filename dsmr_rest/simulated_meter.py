"""A smart meter on a pseudo-terminal: for --demo, for the tests, and by hand (python -m dsmr_rest.simulated_meter).

It behaves as a meter on a wire does: it sends whether or not anybody listens, at the baud rate of its line, and what
finds no room is lost. telegram() has no clock: the moment that it is called with determines what is sent. Only
SimulatedMeter has a clock, a thread and a line. Of the program that is tested with it, this module knows only the
checksum and the facts of the line: it must not repeat a mistake in how that program reads a telegram.
"""

import argparse
import os
import signal
import sys
import threading
import time
import tty
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from dsmr_rest.serial_line import BITS_PER_BYTE
from dsmr_rest.telegram import crc16

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

DAY_W = (
    *[(110, 55, 40, 0)] * 6,  # from midnight
    (160, 55, 60, 0),  # 6 h
    (640, 55, 90, 80),
    (210, 55, 60, 500),
    (151, 430, 40, 1600),
    (151, 107, 40, 2500),
    (151, 107, 40, 3100),
    (310, 107, 40, 3200),  # noon
    (151, 55, 40, 3000),
    (151, 55, 40, 2300),
    (151, 55, 40, 1500),
    (210, 55, 60, 700),
    (820, 55, 180, 100),
    (952, 420, 280, 0),  # 18 h
    (320, 55, 290, 0),
    (240, 55, 290, 0),
    (210, 55, 290, 0),
    (160, 55, 220, 0),
    (110, 55, 90, 0),
)
"""Watts in each hour of every day: used on each of the three phases, and produced by solar panels on the second phase.
The power of all phases together is never near 0, so that the ripple cannot turn use into delivery."""
RIPPLE_W = (0, 14, -9, 5, -12, 8, -3, 11, -14, 2, -7, 5)
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
PEAKS_KW = (4.329, 3.846, 4.012, 3.291, 2.884, 2.507, 2.391, 2.644, 3.102, 3.518, 3.977, 4.215)
"""The peak of each month, from January. They are constants because all days of DAY_W are the same, and they are higher
than any average in it, so that a peak taken in the month's first quarter-hour remains the highest of the month."""
PAST_PEAKS = 13
"""Months of which a Belgian meter keeps the peak (e-MUCS P1, object 0-0:98.1.0)."""

TEMPLATES = Path(__file__).with_name('simulated_telegrams')
"""One file per version: a telegram as str.format_map() takes it, without the last line. _fields() supplies the fields.
Energy is by tariff, LOW (1) and NORMAL (2); volts, amperes and phases_... are by phase, from 0."""


class Capture(NamedTuple):
    """A value with the moment at which it was taken."""

    moment: datetime
    value: float

    @property
    def stamp(self) -> str:
        return _stamp(self.moment)


def _stamp(moment: datetime) -> str:
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


def _metered(moment: datetime, interval: timedelta, start: float, per_hour: float) -> Capture:
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


def _fields(now: datetime) -> dict[str, Any]:
    watts = phases_w(now)
    net_kw = sum(watts) / 1000
    volts = [GRID_VOLTS - phase / WATTS_PER_VOLT for phase in watts]
    tariff = tariff_at(now)
    peaks = [
        f'({_stamp(end)})({peak.stamp})({peak.value:06.3f}*kW)' for end, peak in past_peaks(now)
    ]
    return {
        'time': _stamp(now),
        'tariff': tariff,
        'belgian_tariff': BELGIAN_TARIFFS[tariff],
        'used_kwh': {number: energy_kwh(now, USED, number) for number in (LOW, NORMAL)},
        'delivered_kwh': {number: energy_kwh(now, DELIVERED, number) for number in (LOW, NORMAL)},
        'used_kw': max(0.0, net_kw),
        'delivered_kw': max(0.0, -net_kw),
        'phases_used_kw': [max(0.0, phase / 1000) for phase in watts],
        'phases_delivered_kw': [max(0.0, -phase / 1000) for phase in watts],
        'volts': volts,
        'amperes': [abs(phase) / voltage for phase, voltage in zip(watts, volts, strict=True)],
        'demand_kw': demand_kw(now),
        'month_peak': month_peak(now),
        'past_peaks': ''.join(peaks),
        'gas': _metered(now, FIVE_MINUTES, START_GAS_M3, GAS_M3_PER_HOUR),
        'hourly_gas': _metered(now, HOUR, START_GAS_M3, GAS_M3_PER_HOUR),
        'water': _metered(now, FIVE_MINUTES, START_WATER_M3, WATER_M3_PER_HOUR),
    }


class Version(NamedTuple):
    """What a companion standard specifies: the lines, the seconds between telegrams, the baud rate."""

    template: str
    interval: float
    baud_rate: int
    checksum: bool = True


VERSIONS = {
    '5.0': Version('dsmr-5.0.txt', 1, 115200),
    '4.2': Version('dsmr-4.2.txt', 10, 115200),
    '2.2': Version('dsmr-2.2.txt', 10, 9600, checksum=False),
    'belgium': Version('belgium.txt', 1, 115200),
}


@cache
def _template(version: str) -> str:
    path = TEMPLATES / VERSIONS[version].template
    return path.read_text(encoding='ascii').replace('\n', '\r\n')


def with_checksum(text: str | bytes) -> bytes:
    """The telegram that consists of the given lines, from '/' to the last line end, and of the `!XXXX` line."""
    if isinstance(text, str):
        text = text.encode('latin-1')
    body = text + b'!'
    return b'%b%04X\r\n' % (body, crc16(body))


def telegram(version: str, now: datetime) -> bytes:
    """What a meter of that version sends at that moment, a datetime with a time zone."""
    text = _template(version).format_map(_fields(now))
    if VERSIONS[version].checksum:
        return with_checksum(text)
    return f'{text}!\r\n'.encode('ascii')


CHUNK = 16
"""Bytes sent at once: about what a USB cable passes on at once."""
RETRY = 0.005
"""Seconds between two attempts to write to a line that has no room."""


class PseudoTerminal:
    """A line between this process, which writes, and a reader, which opens `name`: the device, or a link to it.

    Raises FileExistsError when the link's name is taken.
    """

    def __init__(self, link: str | None = None) -> None:
        with ExitStack() as undo:
            self.master, reader_end = os.openpty()
            undo.callback(os.close, self.master)
            undo.callback(os.close, reader_end)  # held open here, it outlives its readers
            tty.setraw(reader_end)
            os.set_blocking(self.master, False)
            self.name = os.ttyname(reader_end)
            if link is not None:
                Path(link).symlink_to(self.name)
                undo.callback(Path(link).unlink, missing_ok=True)
                self.name = link
            self._undo = undo.pop_all()

    def write(self, data: bytes) -> int:
        """The number of bytes that found room."""
        try:
            return os.write(self.master, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """Take the line away, also from a reader that has it open; has no effect the second time."""
        self._undo.close()


class SimulatedMeter:
    """A running meter: a reader opens `port`, and close() ends it.

    Telegrams begin `interval` seconds apart, or when the previous one is out if that is later, and their bytes take the
    time that they need at `baud_rate`. With interval 0 telegrams come as fast as the reader takes them: the meter waits
    for room, and nothing is lost. `source` makes each telegram at the moment it is sent.

    `last` is the newest telegram, `sent` counts those that went out whole. These two are assigned by the meter's thread
    only, and `baud_rate` by other threads only. They need no lock: nothing depends on two of them together, and a value
    that is a moment old does no harm.

    A subclass may override send_next() and write().
    """

    def __init__(
        self,
        version: str = '5.0',
        *,
        interval: float | None = None,
        link: str | None = None,
        baud: int | None = None,
        source: Callable[[], bytes] | None = None,
    ) -> None:
        standard = VERSIONS[version]
        if interval is None:
            interval = standard.interval
        self.interval = interval
        self.baud_rate = baud or standard.baud_rate
        self.source = source or (lambda: telegram(version, datetime.now(timezone.utc)))
        self.sent = 0
        self.last = b''
        self.terminal = PseudoTerminal(link)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='simulated-meter', daemon=True)
        self._thread.start()

    @property
    def port(self) -> str:
        return self.terminal.name

    def __enter__(self) -> 'SimulatedMeter':  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self.terminal.close()

    def send_next(self) -> None:
        """Send one telegram. Called by the meter's thread, once per interval."""
        self.last = self.source()
        if self.transmit(self.last):
            self.sent += 1

    def write(self, data: bytes) -> int:
        """Put bytes on the line; return how many found room. Called by the meter's thread."""
        return self.terminal.write(data)

    def wait(self, seconds: float) -> bool:
        """Wait, and return early with True when the meter is closed. For the meter's thread."""
        return self._closed.wait(seconds)

    def transmit(self, data: bytes) -> bool:
        """Send bytes as the interval demands; return False if the meter was closed before all were sent."""
        if self.interval:
            return self._transmit_paced(data)
        return self._transmit_unpaced(data)

    def _transmit_paced(self, data: bytes) -> bool:
        arrival = time.monotonic()
        for start in range(0, len(data), CHUNK):
            chunk = data[start : start + CHUNK]
            arrival += len(chunk) * BITS_PER_BYTE / self.baud_rate
            if self.wait(arrival - time.monotonic()):
                return False
            self.write(chunk)
        return True

    def _transmit_unpaced(self, data: bytes) -> bool:
        while data:
            taken = self.write(data[:CHUNK])
            data = data[taken:]
            if not taken and self.wait(RETRY):
                return False
        return True

    def _run(self) -> None:
        due = time.monotonic()
        while not self.wait(due - time.monotonic()):
            self.send_next()
            due = max(due + self.interval, time.monotonic())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit status 0 after SIGINT or SIGTERM, 2 when an option is wrong."""
    description = 'A smart meter on a pseudo-terminal, to try things with.'
    parser = argparse.ArgumentParser('python -m dsmr_rest.simulated_meter', description=description)
    parser.add_argument(
        '--version',
        choices=VERSIONS,
        default='5.0',
        help='what it sends: a version of DSMR, or a Belgian meter (default: 5.0)',
    )
    parser.add_argument(
        '--interval',
        type=float,
        metavar='SECONDS',
        help='the time between two telegrams; 0 means no pause (default: as real meters do)',
    )
    options = parser.parse_args(arguments)
    if options.interval is not None and not 0 <= options.interval <= DAY.total_seconds():
        parser.error('argument --interval: must be from 0 to a day')
    # Blocked before the meter's thread starts, so that the thread does not receive them instead of sigwait.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with SimulatedMeter(options.version, interval=options.interval) as meter:
        sys.stdout.write(f'port = {meter.port}\n')
        sys.stdout.flush()
        sys.stderr.write('The meter talks there until Ctrl-C or SIGTERM stops it.\n')
        signal.sigwait(ends)
    return 0


if __name__ == '__main__':
    sys.exit(main())
