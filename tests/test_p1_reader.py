"""P1Reader on real ptys and sockets: opening, speeds, faults, and what it says of each."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import serial
from conftest import hush, new_meter, wait_for
from faulty_meter import misread
from serial.rfc2217 import PortManager
from telegrams import from_lines, of_version

from dsmr_rest import p1_reader
from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.p1_reader import LONGEST_SILENCE, TICK, P1Reader, SpeedSearch, cannot_open
from dsmr_rest.reading import Reading
from dsmr_rest.serial_line import LineCounters
from dsmr_rest.simulated_meter import SimulatedMeter, with_checksum
from dsmr_rest.telegram import Framer

PATIENCE = 20.0


def reader(port: str, line: str = 'auto', **settings: Any) -> P1Reader:
    return P1Reader(MeterSettings(port=port, line=line, **settings))


def read_until(source: P1Reader, enough: Callable[[list[Reading]], Any]) -> list[Reading]:
    """The readings of one opening, up to the moment that is enough."""
    found: list[Reading] = []
    deadline = time.monotonic() + PATIENCE
    with closing(source.read()) as stream:
        for reading in stream:
            found += [reading] if reading else []
            if enough(found):
                return found
            assert time.monotonic() < deadline, (len(found), source.counters, source.speeds.tried)
    raise AssertionError


@pytest.mark.parametrize(
    ('version', 'specification', 'line'),
    [
        ('5.0', 'V5', '115200 8N1'),
        ('4.2', 'V4', '115200 8N1'),
        ('2.2', 'V2_2', '9600 7E1'),
        ('belgium', 'BELGIUM_FLUVIUS', '115200 8N1'),
    ],
)
def test_each_simulated_meter_is_read(version: str, specification: str, line: str) -> None:
    """With everything on auto, the meter's own bytes come out, with the specification and the line it has."""
    expected = of_version(version)
    with new_meter(version, interval=1.2, source=lambda: expected) as meter:
        source = reader(meter.port)
        reading = read_until(source, bool)[-1]
    assert (reading.telegram, reading.specification, source.line) == (expected, specification, line)
    assert time.time() - reading.received < PATIENCE
    assert reading.arrived <= time.monotonic()


@pytest.mark.parametrize('line', ['115200 8N1', '115200 7E1', '9600 7E1'])
def test_a_line_that_is_set_is_what_the_port_is_opened_with(line: str) -> None:
    """pyserial gets the speed, the bits and the parity of the setting; nothing else is tried."""
    speed, bits = line.split()
    with new_meter(interval=60) as meter:
        source = reader(meter.port, line)
        with closing(source._open()) as port:
            assert port.baudrate == int(speed)
            assert (port.bytesize, port.parity, port.stopbits) == (int(bits[0]), bits[1], 1)
            assert port.timeout == TICK
            assert port.exclusive
    assert source.line == line
    assert not source.speeds.silence(LONGEST_SILENCE * 10, 0)


def test_auto_opens_at_the_speed_of_most_meters() -> None:
    """115200 8N1 first."""
    with new_meter(interval=60) as meter, closing(reader(meter.port)._open()) as port:
        assert (port.baudrate, port.bytesize, port.parity) == (115200, 8, 'N')


def fails_to_open(port: str) -> MeterError:
    source = reader(port)
    with pytest.raises(MeterError) as caught:
        read_until(source, bool)
    assert port in caught.value.detail
    assert source.counters.port_openings == 0
    return caught.value


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    """port_missing, with what to check."""
    error = fails_to_open(str(tmp_path / 'ttyUSB0'))
    assert (error.fault.code, 'is not there' in error.detail) == ('port_missing', True)


def test_a_file_that_is_no_serial_port(tmp_path: Path) -> None:
    """port_missing, and that it cannot be used as one."""
    (tmp_path / 'file').write_text('text')
    for path in (tmp_path / 'file', tmp_path, Path(os.devnull)):
        error = fails_to_open(str(path))
        assert (error.fault.code, 'cannot be used as a serial port' in error.detail) == ('port_missing', True)


def test_a_port_that_another_program_reads() -> None:
    """port_busy, as soon as the other has locked it; free again when it has gone."""
    with new_meter(interval=0.1) as meter:
        with serial.Serial(meter.port, 115200, exclusive=True):
            error = fails_to_open(meter.port)
            assert (error.fault.code, 'in use by another program' in error.detail) == ('port_busy', True)
        assert read_until(reader(meter.port), bool)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may open anything')
def test_a_port_that_may_not_be_opened(tmp_path: Path) -> None:
    """port_denied, with the command that helps."""
    (tmp_path / 'tty').touch(0)
    error = fails_to_open(str(tmp_path / 'tty'))
    assert (error.fault.code, 'sudo usermod -a -G' in error.detail) == ('port_denied', True)


@pytest.mark.parametrize(
    ('number', 'code'),
    [
        (errno.EACCES, 'port_denied'),
        (errno.EPERM, 'port_denied'),
        (errno.EBUSY, 'port_busy'),
        (errno.EAGAIN, 'port_busy'),
        (errno.ENOENT, 'port_missing'),
        (errno.EIO, 'port_missing'),
    ],
)
def test_each_error_of_opening_has_its_code(number: int, code: str, tmp_path: Path) -> None:
    """By the errno of the system."""
    assert cannot_open(str(tmp_path), OSError(number, os.strerror(number))).fault.code == code


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give a file away')
def test_a_forbidden_port_of_a_group_without_name(tmp_path: Path) -> None:
    """A device that belongs to a group number alone, as in a container, is port_denied too."""
    (tmp_path / 'tty').touch()
    os.chown(tmp_path / 'tty', 54321, 54321)
    assert (
        cannot_open(str(tmp_path / 'tty'), PermissionError(errno.EACCES, 'Permission denied')).fault.code
        == 'port_denied'
    )


def test_a_forbidden_port_that_has_gone_since(tmp_path: Path) -> None:
    """The advice on a device that was unplugged right after it was refused raises nothing of its own."""
    assert cannot_open(str(tmp_path / 'tty'), PermissionError(errno.EACCES, 'Permission denied')).fault.code


def test_a_network_port_that_nobody_serves() -> None:
    """port_missing, and that no server answers there."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        number = server.getsockname()[1]
    error = fails_to_open(f'socket://127.0.0.1:{number}')
    assert (error.fault.code, 'does not answer' in error.detail) == ('port_missing', True)


def test_a_port_that_is_unplugged() -> None:
    """port_lost, and counted."""
    with new_meter(interval=0.1) as meter:
        source = reader(meter.port)

        def unplugged(found: list[Reading]) -> bool:
            if found:
                meter.unplug()
            return False

        with pytest.raises(MeterError) as caught:
            read_until(source, unplugged)
        assert (caught.value.fault.code, source.counters.port_losses) == ('port_lost', 1)
        assert caught.value.detail.startswith(meter.port)


class OneSpeed(serial.Serial):
    """A port that stays at the speed it was opened with, whoever asks."""

    cts = dsr = ri = cd = rts = dtr = False  # a pseudo-terminal has none of them

    @property
    def baudrate(self) -> int:
        return int(super().baudrate)

    @baudrate.setter
    def baudrate(self, baudrate: int) -> None:
        if not self.is_open:
            serial.Serial.baudrate.fset(self, baudrate)  # type: ignore[attr-defined]


@contextmanager
def at_one_speed(port: serial.Serial) -> Iterator[str]:
    """The URL at which pyserial's own rfc2217 server passes a port on, to one client after another."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with suppress(OSError), listening.accept()[0] as client, client.makefile('wb', buffering=0) as out:
                manager: Any = PortManager(port, out)  # type: ignore[arg-type] # its types do not say what it takes
                client.settimeout(0.01)
                while not over.is_set():
                    with suppress(TimeoutError):
                        if not (asked := client.recv(1024)):
                            break
                        list(manager.filter(asked))
                    sent = port.read(port.in_waiting)
                    out.write(b''.join(manager.escape(sent)))

    with socket.create_server(('127.0.0.1', 0)) as listening:
        listening.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        yield f'rfc2217://127.0.0.1:{listening.getsockname()[1]}'
        over.set()
        thread.join()


@pytest.mark.filterwarnings('ignore:set:DeprecationWarning')  # setDaemon(), setName() in pyserial
@pytest.mark.parametrize(('version', 'baud'), [('5.0', 115200), ('2.2', 9600)])
def test_a_remote_port_with_one_speed_is_read_at_that(version: str, baud: int) -> None:
    """Where the other end of rfc2217 refuses a speed the other one is taken, at the opening and behind a silence."""
    with new_meter(version, interval=0.5) as meter, OneSpeed(meter.port, baud) as port, at_one_speed(port) as url:
        source = reader(url)
        source.speeds.speed = 115200 + 9600 - baud  # the wrong one of the two
        stream = source.read()
        assert next(filter(None, stream)).document
        assert source.speeds.speed == baud
        hush(meter)
        source.speeds._silent = LONGEST_SILENCE  # as if it were over
        wait_for(lambda: next(stream) is None and source.speeds._silent < LONGEST_SILENCE)
        meter.silent = False
        assert next(filter(None, stream)).document
        assert source.speeds.speed == baud
        stream.close()


def test_a_silent_port_gives_the_caller_its_turn_and_closes() -> None:
    """Nothing for a moment is None, again and again; who closes the generator closes the port."""
    with new_meter(interval=60) as meter:
        hush(meter)
        stream = reader(meter.port).read()
        assert [next(stream) for _ in range(3)] == [None] * 3
        stream.close()
        serial.Serial(meter.port, exclusive=True).close()


def broken(version: str = '5.0') -> bytes:
    return of_version(version).replace(b'1-0:1.8.1(0', b'1-0:1.8.1(9')


@pytest.mark.parametrize(
    ('source', 'code', 'counted'),
    [
        (lambda: b'', 'meter_silent', lambda seen: seen.port_openings),
        (lambda: b'no telegram\r\n', 'line_garbled', lambda seen: seen.received_bytes > 50),
        (lambda: b'\xff\x00\xaa' * 30, 'line_garbled', lambda seen: seen.received_bytes > 200),
        (broken, 'checksum_failed', lambda seen: seen.checksum_failures > 1),
        (lambda: of_version('5.0')[:400], 'telegram_incomplete', lambda seen: seen.incomplete_telegrams),
        (lambda: of_version('2.2')[:200], 'telegram_incomplete', lambda seen: seen.incomplete_telegrams),
        (
            lambda: of_version('5.0').rpartition(b'!')[0] + b'!\r\n',
            'checksum_failed',
            lambda seen: seen.checksum_failures > 1,
        ),
    ],
    ids=['silent', 'text', 'noise', 'wrong checksum', 'cut', 'cut 2.2', 'checksum missing'],
)
def test_what_was_seen_says_why_there_is_no_reading(
    source: Callable[[], bytes], code: str, counted: Callable[[LineCounters], Any]
) -> None:
    """Silence, garbage, wrong checksums and half telegrams have a code each, and a sentence with port and time."""
    with new_meter(interval=0.1, source=source) as meter:
        broken_reader = reader(meter.port, '115200 8N1')
        assert read_until(broken_reader, lambda _: counted(broken_reader.counters)) == []
        error = broken_reader.nothing_usable(LineCounters(), 2.0)
    assert error.fault.code == code
    assert f'{meter.port} in 2.0 s' in error.detail


def test_what_was_seen_before_does_not_count() -> None:
    """The code is by what came since the caller began to wait."""
    with new_meter(interval=0.1, source=broken) as meter:
        source = reader(meter.port)
        read_until(source, lambda _: source.counters.checksum_failures)
    assert source.nothing_usable(source.counters, 1.0).fault.code == 'meter_silent'


def test_faults_between_good_telegrams_cost_themselves() -> None:
    """Wrong, cut and noisy telegrams are counted, and each good one between them is served as it was sent."""
    good = of_version('5.0')
    bad = [broken(), good[:300], b'\xff' * 10, good.replace(b'!', b'!0'), b'/', of_version('2.2')[:100]]
    stream = (each for turn in count() for each in (bad[turn % len(bad)], good))
    with new_meter(interval=0.05, source=lambda: next(stream)) as meter:
        source = reader(meter.port, '115200 8N1')
        found = read_until(source, lambda found: len(found) > len(bad))
    assert {each.telegram for each in found} == {good}
    assert source.counters.checksum_failures
    assert source.counters.incomplete_telegrams
    assert source.counters.telegrams == len(found)


@pytest.mark.parametrize('odd', [b'0-0:96.13.0(' + b'\xff' * 1024 + b')\r\n', b''], ids=['text', 'noise'])
def test_bytes_that_are_no_text_do_not_change_a_speed_that_works(odd: bytes) -> None:
    """A meter whose texts are no text, or that has noise before its telegrams, is read at once at each opening."""
    data = with_checksum(of_version('5.0').rpartition(b'!')[0] + odd)
    with new_meter(interval=0.3, source=lambda: data) as meter:
        source = reader(meter.port)
        for _ in range(3):
            meter.noise = b'' if odd else b'\xff' * 20
            assert len(read_until(source, len)) == 1
            source.speeds._listened = 0.0
            source.speeds._listens_from = -1000.0  # as if the port had been closed since
    assert source.speeds.tried == [115200]


def test_a_kind_of_problem_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many telegrams have the odd line, the log has one line that names it."""
    odd = from_lines('1-3:0.2.8(50)', '1-0:1.8.1(NaN*kWh)', '1-0:1.8.2(000001.000*kWh)', '9-9:99.99.99(1)')
    with new_meter(interval=0.05, source=lambda: odd) as meter:
        read_until(reader(meter.port), lambda found: len(found) > 4)
    (record,) = caplog.records
    assert '1-0:1.8.1' in record.getMessage() and '9-9:99.99.99' in record.getMessage()


def test_a_9600_baud_meter_is_found_within_one_of_its_telegrams() -> None:
    """One telegram is lost on the wrong speed, the next whole one is read."""
    begun = count(1)
    numbered = (of_version('2.2').replace(b'DEMO0022', b'DEMO%04d' % number) for number in begun)
    with new_meter('2.2', interval=1.5, source=lambda: next(numbered)) as meter:
        source = reader(meter.port)
        first = read_until(source, bool)[0]
    assert first.identification <= 'SIM5 DEMO0003'  # 1 may have begun before the port was open, 2 told the speed
    assert source.speeds.speed == 9600


@contextmanager
def changing(before: tuple[str, int], after: tuple[str, int], interval: float) -> Iterator[tuple[SimulatedMeter, Any]]:
    """A meter that is exchanged for another, version and speed, when the function given is called."""
    now = [before]
    with new_meter(interval=interval, baud=before[1], source=lambda: of_version(now[0][0])) as meter:

        def change() -> None:
            now[0] = after
            meter.baud_rate = after[1]

        yield meter, change


@pytest.mark.parametrize('way', [1, -1])
def test_a_meter_whose_speed_changes_is_found_again(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader that had found one meter finds the next, at the other speed, in the same opening."""
    monkeypatch.setattr(p1_reader, 'LONGEST_SILENCE', 1.0)
    before, after = [('5.0', 115200), ('2.2', 9600)][::way]
    with changing(before, after, interval=1.5) as (meter, change):
        source = reader(meter.port)
        seen: list[str] = []

        def exchanged(found: list[Reading]) -> bool:
            if len(found) == 1 and not seen:
                seen.append(found[0].specification)
                change()
            return found[-1:] != [] and found[-1].specification != found[0].specification

        found = read_until(source, exchanged)
    assert [found[0].specification, found[-1].specification] == [
        {'5.0': 'V5', '2.2': 'V2_2'}[each[0]] for each in (before, after)
    ]
    assert source.speeds.speed == after[1]
    assert source.counters.port_openings == 1


def test_noise_before_each_telegram_does_not_unsettle_a_found_speed() -> None:
    """Where telegrams are found, noise between them changes nothing."""
    with new_meter(interval=0.6) as meter:
        source = reader(meter.port)

        def many(found: list[Reading]) -> bool:
            meter.noise = b'\xff\x00\xfe' * 30 if found else b''
            return len(found) > 4

        found = read_until(source, many)
    assert source.speeds.tried == [115200]
    assert all(a.received < b.received for a, b in pairwise(found))
    assert source.counters.telegrams == len(found)


def test_noise_before_each_telegram_from_the_start_does_not_hide_the_speed() -> None:
    """Noise that looks like another speed delays, and does not prevent, the first reading."""
    with new_meter(interval=0.6) as meter:
        meter.noise = b'\xff\x00\xfe' * 30
        source = reader(meter.port)
        assert len(read_until(source, lambda found: len(found) > 2)) == 3
        assert source.speeds.speed == 115200


def heard(data: bytes) -> Framer:
    framer = Framer()
    framer.feed(data)
    return framer


NOTHING, NOISE, TEXT = heard(b''), heard(b'\xff\x00' * 50), heard(b'no telegram at all, for a while')
WRONG_SPEED = heard(misread(of_version('2.2'), 9600, 115200))
TELEGRAM = heard(of_version('5.0'))
LONG, SHORT = LONGEST_SILENCE + 1, LONGEST_SILENCE - 1

# Each step: what happens, at which second; and the speed behind it.
SEARCHES: dict[str, list[tuple[Any, float, int]]] = {
    'noise at first': [(NOISE, 0, 9600)],
    'the other speed at first': [(WRONG_SPEED, 0, 9600)],
    'a telegram': [(TELEGRAM, 0, 115200)],
    'text while it comes': [(TEXT, 0, 115200)],
    'text that was all': [((TEXT, 'over'), 0, 9600)],
    'a few bytes': [(heard(b'\xff' * 15), 0, 115200), ((heard(b'\xff' * 15), 'over'), 0, 115200)],
    'noise behind a change': [(NOISE, 0, 9600), (NOISE, 1, 9600), ((NOISE, 'over'), 2, 115200)],
    'noise for long behind a change': [(NOISE, 0, 9600), (NOISE, SHORT, 9600), (NOISE, LONG, 115200)],
    'noise soon behind a telegram': [('found', 0, 115200), (NOISE, SHORT, 115200), ((NOISE, 'over'), SHORT, 115200)],
    'noise long behind a telegram': [('found', 0, 115200), (NOISE, LONG, 9600)],
    'a burst long behind a telegram': [('found', 0, 115200), ((TEXT, 'over'), LONG, 9600)],
    'short silence': [(SHORT, 0, 115200)],
    'long silence': [(LONG, 0, 9600)],
    'silence in parts': [(SHORT, 0, 115200), (2.5, SHORT, 9600)],
    'silence with something between': [(SHORT, 0, 115200), (TELEGRAM, SHORT, 115200), (SHORT, 20, 115200)],
    'silence forth and back': [(LONG, 12, 9600), (LONG, 24, 115200), (LONG, 36, 9600)],
    'haste again behind silence': [(LONG, 12, 9600), (NOISE, 12.5, 115200)],
    'long silence behind a telegram': [('found', 0, 115200), (LONG, LONG, 9600)],
}


def step(search: SpeedSearch, what: Any, now: float) -> None:
    if what == 'found':
        search.found(now)
    elif isinstance(what, float):
        search.silence(what, now)
    elif isinstance(what, tuple):
        search.bytes_came(what[0], now, burst_over=True)
    else:
        search.bytes_came(what, now)


@pytest.mark.parametrize('case', SEARCHES)
def test_the_search_for_the_speed(case: str) -> None:
    """Noise at a speed that never worked means the other one, long silence does too, and what works is kept."""
    search = SpeedSearch(115200, 9600)
    for what, now, expected in SEARCHES[case]:
        step(search, what, now)
        assert search.speed == expected
    assert set(search.tried) <= {115200, 9600}


@pytest.mark.parametrize('case', SEARCHES)
def test_a_speed_that_is_set_is_never_left(case: str) -> None:
    """With one speed there is nothing to search."""
    search = SpeedSearch(115200)
    for what, now, _ in SEARCHES[case]:
        step(search, what, now)
    assert (search.speed, search.tried) == (115200, [115200])


@contextmanager
def served(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server on loopback that talks so to each of its clients, one after another; its port for [meter]."""
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            try:
                client, _ = server.accept()
            except TimeoutError:
                continue
            with client:
                try:
                    while not stopped.wait(0.05):
                        talk(client)
                except OSError:  # the reader has gone
                    continue

    with socket.create_server(('127.0.0.1', 0)) as server:
        server.settimeout(0.05)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f'socket://127.0.0.1:{server.getsockname()[1]}'
        finally:
            stopped.set()
            thread.join()


@pytest.mark.parametrize('version', ['5.0', '2.2', 'belgium'])
def test_a_meter_behind_a_network_port_is_read(version: str) -> None:
    """socket:// gives the same telegrams as a cable."""
    with served(lambda client: client.sendall(of_version(version))) as port:
        found = read_until(reader(port), lambda found: len(found) > 2)
    assert {each.telegram for each in found} == {of_version(version)}


def hangs_up(client: socket.socket) -> None:
    """One telegram, and the connection is over."""
    client.sendall(of_version('5.0'))
    client.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def test_a_network_port_that_hangs_up() -> None:
    """port_lost, as with a cable that is pulled."""
    with served(hangs_up) as port:
        source = reader(port)
        with pytest.raises(MeterError) as caught:
            read_until(source, lambda _: False)
    assert (caught.value.fault.code, source.counters.port_losses) == ('port_lost', 1)


def test_a_telegram_right_before_the_peer_hangs_up_is_read() -> None:
    """A peer that sends one telegram per connection gives readings too."""
    with served(hangs_up) as port:
        source = reader(port)
        with pytest.raises(MeterError):
            read_until(source, lambda _: False)
    assert source.counters.telegrams == 1


def test_a_network_port_that_falls_silent_is_connected_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that went away without a word is left, and the next connection is read."""
    monkeypatch.setattr(p1_reader, 'LONGEST_SILENCE', 0.5)
    clients: list[int] = []

    def from_the_second_on(client: socket.socket) -> None:
        clients.extend([client.fileno()] if not clients else [])
        if reading_port.counters.port_openings > 1:
            client.sendall(of_version('5.0'))
        elif client.recv(1) == b'':
            raise ConnectionAbortedError

    with served(from_the_second_on) as port:
        reading_port = reader(port)
        assert read_until(reading_port, bool)
    assert reading_port.counters.port_openings == 2
