"""A house with a smart meter, whose P1 port is a pseudo-terminal: for --demo, for the tests, and by hand.

The law: it behaves as a meter on a wire does. It talks whether or not anybody listens, at the speed of its
line; what finds no room is lost, and a reader at another speed hears garbage. It shares with what it tests only
the checksum, which is tested against the library's. House thinks and has no clock; telegram() renders;
SimulatedMeter alone has clock, thread and line.
"""
# ruff: noqa: S311 - its chance has to be repeatable and hides nothing

from __future__ import annotations

import argparse
import math
import os
import random
import re
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dsmr_rest.serial_line import BITS_PER_BYTE
from dsmr_rest.telegram import crc16

DUTCH = ZoneInfo('Europe/Amsterdam')
EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FIVE_MINUTES, QUARTER = 5 * MINUTE, 15 * MINUTE

LOW, NORMAL = 1, 2  # the Dutch numbers of the tariffs
WEEKDAYS, NORMAL_HOURS = range(5), range(7, 23)
BASE_WATTS, FRIDGE_WATTS, SUN_WATTS = (70.0, 55.0, 40.0), 85.0, 4000.0
FRIDGE_CYCLE, FRIDGE_RUN = 45, 15  # minutes
PEAKS_KEPT = 13  # months
APPLIANCES = (  # phase, watts, minutes, earliest and latest start as minute of the day, likelihood
    (0, 2100.0, 4, 400, 460, 1.0),  # kettle
    (0, 2100.0, 4, 900, 960, 0.7),
    (1, 1900.0, 25, 540, 660, 0.5),  # washing machine
    (2, 2300.0, 40, 1050, 1110, 0.8),  # oven
    (2, 160.0, 330, 1050, 1070, 1.0),  # lights and television
)
LATITUDE, LONGITUDE, TILT_OF_THE_EARTH = math.radians(52.1), 5.1, math.radians(23.44)

HELP = 'A smart meter on a pseudo-terminal, to try things with.'
CHUNK = 16  # bytes: about what the receive buffer of a USB cable hands over at once
RETRY = 0.005  # seconds between two looks at a line without room or without plug
SPEEDS = {getattr(termios, f'B{baud}'): baud for baud in (300, 1200, 2400, 4800, 9600, 19200, 57600, 115200)}


class Capture(NamedTuple):
    """A value with the moment it was taken."""

    moment: datetime
    value: float


@lru_cache(maxsize=8)
def _runs(seed: int, day: date) -> tuple[tuple[int, float, range], ...]:
    """Phase, watts and minutes of each run of an appliance on that day."""
    chance = random.Random(f'{seed} {day}')  # nosec B311
    runs = []
    for phase, watts, minutes, earliest, latest, likelihood in APPLIANCES:
        start = chance.randint(earliest, latest)
        if chance.random() < likelihood:
            runs.append((phase, watts, range(start, start + minutes)))
    return tuple(runs)


def _season(moment: datetime) -> float:
    """From 1 at the start of winter to -1 at the start of summer."""
    return math.cos(math.tau * (moment.timetuple().tm_yday + 10) / 365)


def _sun_height(moment: datetime) -> float:
    """Sine of the sun's height at a UTC moment, negative at night."""
    declination = -TILT_OF_THE_EARTH * _season(moment)
    hour_angle = math.tau * (moment.hour + moment.minute / 60 + LONGITUDE / 15 - 12) / 24
    across = math.cos(LATITUDE) * math.cos(declination) * math.cos(hour_angle)
    return math.sin(LATITUDE) * math.sin(declination) + across


def _floor(moment: datetime, step: timedelta) -> datetime:
    return moment - (moment - EPOCH) % step


def _month_start(moment: datetime, months_ago: int = 0) -> datetime:
    local = moment.astimezone(DUTCH)
    year, month = divmod(local.year * 12 + local.month - 1 - months_ago, 12)
    return datetime(year, month + 1, 1, tzinfo=DUTCH).astimezone(timezone.utc)


class House:
    """Three phases, solar panels on the second, gas and water; there is nothing to ask before advance().

    Per phase: `net_w`, `used_w`, `delivered_w`, `volts`, `amperes`. Together: `used_kw`, `delivered_kw`.
    By tariff: `used_kwh`, `delivered_kwh`. `demand_kw`: what was used in this quarter-hour, over all of it.
    """

    def __init__(self, seed: int = 1) -> None:
        self._seed, self._chance = seed, random.Random(seed)  # nosec B311
        between = self._chance.uniform
        self.moment: datetime | None = None
        self.used_kwh = {LOW: between(4000, 5000), NORMAL: between(3000, 4000)}
        self.delivered_kwh = {LOW: between(1000, 1500), NORMAL: between(2500, 3500)}
        self.demand_kw = 0.0
        self._gas_m3, self._water_m3 = between(2000, 3000), between(300, 600)

    @staticmethod
    def tariff(moment: datetime) -> int:
        local = moment.astimezone(DUTCH)
        return NORMAL if local.weekday() in WEEKDAYS and local.hour in NORMAL_HOURS else LOW

    def advance(self, now: datetime) -> None:
        """Live until that moment; one that has passed already changes nothing."""
        now = now.astimezone(timezone.utc)  # differences of local times are wrong across a clock change
        if self.moment is None:
            self._begin(now)
        moment = self.moment or now
        step = MINUTE if now - moment <= DAY else QUARTER  # a clock set years ahead must not stop the meter
        while moment < now:
            then = min(_floor(moment, step) + step, now)
            self._live(moment, then)
            self.moment = moment = then

    def _begin(self, now: datetime) -> None:
        self.moment = now
        self._measure(now)
        self.gas_hourly = Capture(_floor(now, HOUR), self._gas_m3)
        self.gas_recent = Capture(_floor(now, FIVE_MINUTES), self._gas_m3)
        self.water = Capture(_floor(now, FIVE_MINUTES), self._water_m3)
        self.month_peak = Capture(_floor(now, QUARTER), self._chance.uniform(1, 2))
        ends = [_month_start(now, months_ago) for months_ago in reversed(range(PEAKS_KEPT))]
        days_before = [self._chance.randint(1, 2000) * QUARTER for _ in ends]
        self.past_peaks = [  # the end of each month with its peak
            (end, Capture(end - before, self._chance.uniform(2, 5)))
            for end, before in zip(ends, days_before, strict=True)
        ]

    def _measure(self, now: datetime) -> None:
        local, seconds = now.astimezone(DUTCH), int((now - EPOCH).total_seconds())
        minute = local.hour * 60 + local.minute
        flicker = random.Random(self._seed * 31 + seconds)  # nosec B311
        net = [base + flicker.uniform(-5, 5) for base in BASE_WATTS]
        net[0] += FRIDGE_WATTS * ((minute + self._seed) % FRIDGE_CYCLE < FRIDGE_RUN)
        for phase, watts, minutes in _runs(self._seed, local.date()):
            net[phase] += watts * (minute in minutes)
        net[1] -= SUN_WATTS * max(0.0, _sun_height(now)) * (0.7 + 0.3 * math.sin(seconds / 1700 + self._seed))
        grid = 230 + 1.5 * math.sin(seconds / 900)
        self.net_w, self.volts = tuple(net), tuple(grid - watts / 1200 for watts in net)
        self.used_w, self.delivered_w = [tuple(max(0.0, sign * watts) for watts in net) for sign in (1, -1)]
        self.used_kw, self.delivered_kw = max(0.0, sum(net) / 1000), max(0.0, -sum(net) / 1000)
        self.amperes = tuple(abs(watts) / volts for watts, volts in zip(net, self.volts, strict=True))

    def _live(self, moment: datetime, then: datetime) -> None:
        hours, tariff = (then - moment) / HOUR, self.tariff(moment)
        awake = moment.astimezone(DUTCH).hour in NORMAL_HOURS
        self._measure(then)
        self.used_kwh[tariff] += self.used_kw * hours
        self.delivered_kwh[tariff] += self.delivered_kw * hours
        self.demand_kw += self.used_kw * hours * (HOUR / QUARTER)
        self._gas_m3 += hours * (0.02 + max(0.0, _season(then)) * (0.9 if awake else 0.3))
        self._water_m3 += hours * 0.015 * awake
        self._keep(then)

    def _keep(self, now: datetime) -> None:
        """What a meter notes at round moments."""
        if now == _floor(now, FIVE_MINUTES):
            self.gas_recent, self.water = Capture(now, self._gas_m3), Capture(now, self._water_m3)
        if now == _floor(now, HOUR):
            self.gas_hourly = self.gas_recent
        if now == _floor(now, QUARTER):
            self.month_peak = max(self.month_peak, Capture(now, self.demand_kw), key=lambda peak: peak.value)
            self.demand_kw = 0.0
        if now == _month_start(now):
            self.past_peaks = [*self.past_peaks[1:], (now, self.month_peak)]
            self.month_peak = Capture(now, 0.0)


def _stamp(moment: datetime) -> str:
    local = moment.astimezone(DUTCH)
    return f'{local:%y%m%d%H%M%S}{"S" if local.dst() else "W"}'


def _identifier(text: str) -> str:
    return text.encode().hex().upper()


def _m3(capture: Capture) -> str:
    return f'({_stamp(capture.moment)})({capture.value:09.3f}*m3)'


def _kw(capture: Capture) -> str:
    return f'({_stamp(capture.moment)})({capture.value:06.3f}*kW)'


def _energy(house: House, tariffs: tuple[int, int], form: str = '010.3f') -> list[str]:
    counters = ((1, house.used_kwh), (2, house.delivered_kwh))
    return [
        f'1-0:{direction}.8.{number}({kwh[tariff]:{form}}*kWh)'
        for direction, kwh in counters for number, tariff in enumerate(tariffs, 1)
    ]  # fmt: skip


def _power(house: House, form: str = '06.3f') -> list[str]:
    return [f'1-0:1.7.0({house.used_kw:{form}}*kW)', f'1-0:2.7.0({house.delivered_kw:{form}}*kW)']


def _per_phase(code: int, values: Iterable[float], form: str, unit: str) -> list[str]:
    return [f'1-0:{code + 20 * phase}.7.0({value:{form}}*{unit})' for phase, value in enumerate(values)]


def _phase_power(house: House) -> list[str]:
    both = ((21, house.used_w), (22, house.delivered_w))
    return [line for code, w in both for line in _per_phase(code, [x / 1000 for x in w], '06.3f', 'kW')]


def _dsmr_4_2(house: House, now: datetime) -> list[str]:
    return [
        '/SIM5\\2DEMO-0042', '', '1-3:0.2.8(42)', f'0-0:1.0.0({_stamp(now)})',
        f'0-0:96.1.1({_identifier("E0001000000000001")})',
        *_energy(house, (LOW, NORMAL)), f'0-0:96.14.0({house.tariff(now):04})', *_power(house),
        '0-0:96.7.21(00007)', '0-0:96.7.9(00002)',
        '1-0:99.97.0(2)(0-0:96.7.19)(190723141802S)(0000000512*s)(170113023740W)(0000007264*s)',
        '1-0:32.32.0(00003)', '1-0:52.32.0(00001)', '1-0:72.32.0(00002)',
        '1-0:32.36.0(00000)', '1-0:52.36.0(00001)', '1-0:72.36.0(00000)', '0-0:96.13.1()', '0-0:96.13.0()',
        *_per_phase(31, house.amperes, '03.0f', 'A'), *_phase_power(house),
        '0-1:24.1.0(003)', f'0-1:96.1.0({_identifier("G0001000000000001")})',
        f'0-1:24.2.1{_m3(house.gas_hourly)}',
    ]  # fmt: skip


def _dsmr_5_0(house: House, now: datetime) -> list[str]:
    """As 4.2, with the voltages instead of the message code, and gas every five minutes."""
    lines = _dsmr_4_2(house, now)
    lines[0], lines[2] = '/SIM5\\2DEMO-0050', '1-3:0.2.8(50)'
    lines.remove('0-0:96.13.1()')
    after_texts = lines.index('0-0:96.13.0()') + 1
    lines[after_texts:after_texts] = _per_phase(32, house.volts, '05.1f', 'V')
    lines[-1] = f'0-1:24.2.1{_m3(house.gas_recent)}'
    return lines


def _dsmr_2_2(house: House, now: datetime) -> list[str]:
    gas = house.gas_hourly
    return [
        '/SIM5 DEMO0022', '', f'0-0:96.1.1({_identifier("E0001000000000001")})',
        *_energy(house, (LOW, NORMAL), '09.3f'), f'0-0:96.14.0({house.tariff(now):04})',
        *_power(house, '07.2f'),
        '0-0:17.0.0(0999.00*kW)', '0-0:96.3.10(1)', '0-0:96.13.1()', '0-0:96.13.0()',
        '0-1:24.1.0(3)', f'0-1:96.1.0({_identifier("G0001000000000001")})',
        f'0-1:24.3.0({_stamp(gas.moment)[:-1]})(00)(60)(1)(0-1:24.2.1)(m3)', f'({gas.value:09.3f})',
        '0-1:24.4.0(1)',
    ]  # fmt: skip


def _belgium(house: House, now: datetime) -> list[str]:
    peaks = [f'({_stamp(end)}){_kw(peak)}' for end, peak in house.past_peaks]
    return [
        '/SIM5\\2DEMO_BE', '', '0-0:96.1.4(50217)', f'0-0:96.1.1({_identifier("1SIM0000000001")})',
        f'0-0:1.0.0({_stamp(now)})', *_energy(house, (NORMAL, LOW)),
        f'0-0:96.14.0({LOW + NORMAL - house.tariff(now):04})',  # in Belgium 1 is the day
        f'1-0:1.4.0({house.demand_kw:06.3f}*kW)', f'1-0:1.6.0{_kw(house.month_peak)}',
        f'0-0:98.1.0({len(peaks)})(1-0:1.6.0)(1-0:1.6.0){"".join(peaks)}',
        *_power(house), *_phase_power(house), *_per_phase(32, house.volts, '05.1f', 'V'),
        *_per_phase(31, house.amperes, '06.2f', 'A'),
        '0-0:96.3.10(1)', '0-0:17.0.0(999.9*kW)', '1-0:31.4.0(999*A)', '0-0:96.13.0()',
        '0-1:24.1.0(003)', f'0-1:96.1.1({_identifier("7SIM0000000001")})', '0-1:24.4.0(1)',
        f'0-1:24.2.3{_m3(house.gas_recent)}',
        '0-2:24.1.0(007)', f'0-2:96.1.1({_identifier("8SIM0000000001")})', f'0-2:24.2.1{_m3(house.water)}',
    ]  # fmt: skip


class Version(NamedTuple):
    """What a companion standard lays down: the lines, and how often and how fast they are sent."""

    lines: Callable[[House, datetime], list[str]]
    interval: float
    baud: int
    checksum: bool = True


VERSIONS = {
    '5.0': Version(_dsmr_5_0, 1, 115200),
    '4.2': Version(_dsmr_4_2, 10, 115200),
    '2.2': Version(_dsmr_2_2, 10, 9600, checksum=False),
    'belgium': Version(_belgium, 1, 115200),
}


def with_checksum(text: str | bytes) -> bytes:
    """The telegram whose lines are given, from its '/' to its last line end, with the `!XXXX` line."""
    body = (text.encode('latin-1') if isinstance(text, str) else text) + b'!'
    return b'%b%04X\r\n' % (body, crc16(body))


def telegram(house: House, version: str, now: datetime) -> bytes:
    """What the meter of that version sends at that moment, to which the house is advanced."""
    house.advance(now)
    text = ''.join(f'{line}\r\n' for line in VERSIONS[version].lines(house, now))
    return with_checksum(text) if VERSIONS[version].checksum else f'{text}!\r\n'.encode()


def misread(data: bytes, sent_baud: int, read_baud: int) -> bytes:
    """What a receiver at another speed makes of the levels on the wire, sampled at its own moments."""
    levels = [bit for byte in data for bit in (0, *(byte >> n & 1 for n in range(8)), 1)]
    stride, at, heard = sent_baud / read_baud, 0.0, bytearray()
    while at < len(levels):
        if levels[int(at)]:  # idle: no start bit yet
            at = int(at) + 1
            continue
        samples = (int(at + (n + 1.5) * stride) for n in range(8))
        heard.append(sum((levels[s] if s < len(levels) else 1) << n for n, s in enumerate(samples)))
        at += BITS_PER_BYTE * stride
    return bytes(heard)


class SimulatedMeter:
    """A handle on a running meter: read from `.port`, `.close()` it at the end.

    Its faults are attributes, looked at before each telegram: `silent`; `corrupt_every` n: each n-th has a
    wrong digit; `cut`: only so many bytes of it are sent; `noise`: bytes sent before it.
    `last` is the newest telegram put on the line, `sent` how many went out whole; not `sending`: the line is at
    rest, and what is next looks at the faults.
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
        self.silent, self.corrupt_every, self.noise = False, 0, b''
        self.cut: int | None = None
        self.sending = False
        self.sent, self.last, self.port = 0, b'', ''
        self._interval = VERSIONS[version].interval if interval is None else interval
        self._baud = baud or VERSIONS[version].baud
        self._link = link
        house = House()
        self._source = source or (lambda: telegram(house, version, datetime.now(timezone.utc)))
        self._lock = threading.Lock()  # guards _master: none writes to a descriptor that is being closed
        self._master: int | None = None
        self._plugged = ExitStack()
        self._stopped = threading.Event()
        self.plug_in()
        self._thread = threading.Thread(target=self._run, name='simulated-meter', daemon=True)
        self._thread.start()

    def __enter__(self) -> SimulatedMeter:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self.unplug()

    def plug_in(self) -> None:
        """Make the port, under a new name unless there is a link; nothing if it is there."""
        with self._lock, ExitStack() as undo:
            if self._master is not None:
                return
            master, slave = os.openpty()  # held open here, the slave outlives its readers
            undo.callback(os.close, slave)
            undo.callback(os.close, master)
            tty.setraw(slave)
            os.set_blocking(master, False)
            if self._link:
                Path(self._link).symlink_to(os.ttyname(slave))
                undo.callback(Path(self._link).unlink, missing_ok=True)
            self.port = self._link or os.ttyname(slave)
            self._master, self._plugged = master, undo.pop_all()

    def unplug(self) -> None:
        """Take the port away, also from under a reader."""
        with self._lock:
            self._master = None
            self._plugged.close()

    def _run(self) -> None:
        due, count = time.monotonic(), 0
        while not self._stopped.wait(due - time.monotonic()):
            due, count = due + self._interval, count + 1
            self.sending = True  # said before `silent` is looked at: who sets that can wait for this
            rest = RETRY if self.silent or not self._send(count) else 0
            self.sending = False
            due = max(due, time.monotonic() + rest)

    def _send(self, count: int) -> bool:
        """Send the next telegram with its faults; whether the line took anything."""
        whole, cut = self._source(), self.cut
        if self.corrupt_every and not count % self.corrupt_every:
            whole = re.sub(rb'\d(?=\*)', lambda digit: b'%d' % (9 - int(digit[0])), whole, count=1)
        self.last, data = whole, self.noise + whole[:cut]
        begin = time.monotonic()
        for start in range(0, len(data), CHUNK):
            chunk = data[start : start + CHUNK]
            arrival = begin + (start + len(chunk)) * BITS_PER_BYTE / self._baud
            if (self._interval and self._stopped.wait(arrival - time.monotonic())) or not self._put(chunk):
                return False
        self.sent += cut is None or cut >= len(whole)
        return bool(data)

    def _put(self, chunk: bytes) -> bool:
        """Put bytes on the line; False when it is unplugged or the meter stops. Unpaced, nothing is lost."""
        heard = self._as_heard(chunk)
        while heard:
            with self._lock:
                if self._master is None:
                    return False
                with suppress(BlockingIOError):
                    heard = heard[os.write(self._master, heard) :]
            if self._interval:
                return True
            if heard and self._stopped.wait(RETRY):
                return False
        return self._master is not None

    def _as_heard(self, chunk: bytes) -> bytes:
        with self._lock:
            if self._master is None:
                return b''
            # Both ends of a pty share one termios. What it starts with, B38400, is not in SPEEDS on purpose.
            baud = SPEEDS.get(termios.tcgetattr(self._master)[4], self._baud)
        return chunk if baud == self._baud else misread(chunk, self._baud, baud)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser('python -m dsmr_rest.simulated_meter', description=HELP)
    parser.add_argument('--version', choices=VERSIONS, default='5.0', help='default: 5.0')
    parser.add_argument('--interval', type=float, metavar='SECONDS', help='0: without a pause')
    options = parser.parse_args(arguments)
    if options.interval is not None and not 0 <= options.interval <= DAY.total_seconds():
        parser.error('argument --interval: must be from 0 to a day')
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
