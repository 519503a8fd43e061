"""P1Reader on real ptys and sockets: how it opens a port, baud rates, faults, and what it reports of each."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import serial
from dsmr_parser.clients.serial_ import SerialReader

from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.p1.intake import CODES_LOGGED
from dsmr_rest.p1.line import LONGEST_SILENCE, LineCounters
from dsmr_rest.p1.port import TICK, Port
from dsmr_rest.p1.reader import END_IN_SIGHT, LINE_CHUNK, P1Reader
from dsmr_rest.process import clock
from dsmr_rest.reading.document import Reading
from dsmr_rest.simulated.meter import PseudoTerminal, SimulatedMeter
from dsmr_rest.simulated.telegrams import with_checksum
from tests.conftest import hush, new_meter, wait_for
from tests.faulty_meter import FaultyMeter
from tests.reading_loop import PATIENCE, read_until
from tests.telegrams import from_lines, of_version


def reader(
    port: str,
    line: str = 'auto',
    *,
    longest_silence: float = LONGEST_SILENCE,
    specification: str = 'auto',
) -> P1Reader:
    return P1Reader(
        MeterSettings(port=port, line=line, specification=specification), longest_silence
    )


def telegrams_of(readings: list[Reading]) -> set[bytes]:
    return {reading.telegram for reading in readings}


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
    assert reading.arrived <= clock.now()


def fails_to_open(port: str, line: str = 'auto') -> MeterError:
    source = reader(port, line)
    with pytest.raises(MeterError) as caught:
        read_until(source, bool)
    assert port in caught.value.detail
    assert source.counters.port_openings == 0
    return caught.value


def test_a_port_that_is_not_there(tmp_path: Path) -> None:
    """port_missing, with what to check."""
    error = fails_to_open(str(tmp_path / 'ttyUSB0'))
    assert error.fault.code == 'port_missing'
    assert 'is not there' in error.detail


def test_a_file_that_is_not_a_serial_port(tmp_path: Path) -> None:
    """port_unusable, and what it is instead."""
    (tmp_path / 'file').write_text('text')
    kinds = {
        tmp_path / 'file': 'a file',
        tmp_path: 'a folder',
        Path(os.devnull): 'another kind of device',
    }
    for path, kind in kinds.items():
        error = fails_to_open(str(path))
        assert error.fault.code == 'port_unusable'
        assert f'{path} is {kind}, which cannot be used as a serial port' in error.detail


def test_a_port_that_another_program_reads() -> None:
    """port_busy, as soon as the other has locked it; free again when it has gone."""
    with new_meter(interval=0.1) as meter:
        with serial.Serial(meter.port, 115200, exclusive=True):
            error = fails_to_open(meter.port)
            assert error.fault.code == 'port_busy'
            assert 'in use by another program' in error.detail
        assert read_until(reader(meter.port), bool)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may open anything')
def test_a_port_that_may_not_be_opened(meter: FaultyMeter) -> None:
    """port_denied, with the command that helps."""
    Path(meter.port).chmod(0)
    error = fails_to_open(meter.port)
    assert error.fault.code == 'port_denied'
    assert 'sudo usermod -a -G' in error.detail


def test_a_network_port_without_a_server() -> None:
    """port_missing, and that no server answers there."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        number = server.getsockname()[1]
    error = fails_to_open(f'socket://127.0.0.1:{number}')
    assert error.fault.code == 'port_missing'
    assert 'does not respond' in error.detail


@pytest.mark.parametrize('line', ['auto', '9600 7E1'])
def test_a_port_of_an_unknown_kind(line: str) -> None:
    """port_missing, whether there is another baud rate to try or not."""
    assert fails_to_open('nonsense://meter', line).fault.code == 'port_missing'


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
        assert caught.value.detail.endswith(': check the cable')


def test_a_port_that_is_lost_although_it_is_there(
    terminal: PseudoTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the cable is to be checked then, but which other program takes what arrives."""

    class Robbed(Port):
        def read(self) -> bytes:
            raise OSError(errno.EIO, 'nothing came of what was announced')

    monkeypatch.setattr('dsmr_rest.p1.reader.Port', Robbed)
    with pytest.raises(MeterError, match='is there, but another program reads it too') as caught:
        read_until(reader(terminal.name), bool)
    assert caught.value.fault.code == 'port_lost'


@pytest.mark.parametrize(
    ('line', 'baud_rate'), [('115200 8N1', 115200), ('115200 7E1', 115200), ('9600 7E1', 9600)]
)
def test_a_line_that_is_set_is_kept(line: str, baud_rate: int) -> None:
    """However long the line is silent, only the baud rate of [meter] line is used."""
    with new_meter(interval=60) as meter:
        hush(meter)
        source = reader(meter.port, line, longest_silence=0.1)
        with closing(source.read()) as readings:
            assert [next(readings) for _ in range(3)] == [None] * 3
    assert (source.line, source.baud_rates_tried) == (line, [baud_rate])


def test_a_pseudo_terminal_is_read_at_7e1_too() -> None:
    """A line setting with parity, which a pseudo-terminal cannot have, does not keep it from being read."""
    with new_meter('2.2', interval=0.1, source=lambda: of_version('2.2')) as meter:
        source = reader(meter.port, '9600 7E1')
        for _ in range(2):
            assert telegrams_of(read_until(source, bool)) == {of_version('2.2')}


def test_the_library_cannot_open_the_port_a_second_time() -> None:
    """P1Reader is dsmr_parser's SerialReader, but for read_as_object(), which is refused at once."""
    with new_meter(interval=60) as meter:
        source = reader(meter.port)
        assert isinstance(source, SerialReader)
        with pytest.raises(NotImplementedError, match=r'read\(\)'):
            source.read_as_object()
    assert source.counters.port_openings == 0


def test_a_silent_port_gives_the_caller_its_turn_and_closes() -> None:
    """A moment without a reading is None, again and again; the port is nobody else's until the generator is closed."""
    with new_meter(interval=60) as meter:
        hush(meter)
        with closing(reader(meter.port).read()) as readings:
            assert [next(readings) for _ in range(3)] == [None] * 3
            with pytest.raises(serial.SerialException):
                serial.Serial(meter.port, exclusive=True)
        serial.Serial(meter.port, exclusive=True).close()


_turns = count()
WITH_OTHER_CODES = [
    from_lines('0-0:1.0.0(240115103000W)', line, checksum=False)
    for line in ('1-0:1.7.0(00.100*kW)', '1-0:2.7.0(00.100*kW)')
]


def broken(version: str = '5.0') -> bytes:
    return of_version(version).replace(b'1-0:1.8.1(0', b'1-0:1.8.1(9')


@pytest.mark.parametrize(
    ('source', 'code', 'counted'),
    [
        (lambda: b'', 'meter_silent', lambda counted: counted.port_openings),
        (lambda: b'no telegram\r\n', 'line_garbled', lambda counted: counted.received_bytes > 50),
        (
            lambda: b'\xff\x00\xaa' * 30,
            'line_garbled',
            lambda counted: counted.received_bytes > 200,
        ),
        (broken, 'checksum_failed', lambda counted: counted.checksum_failures > 1),
        (
            lambda: of_version('5.0')[:400],
            'telegram_incomplete',
            lambda counted: counted.incomplete_telegrams,
        ),
        (
            lambda: of_version('2.2')[:200],
            'telegram_incomplete',
            lambda counted: counted.incomplete_telegrams,
        ),
        (
            lambda: WITH_OTHER_CODES[next(_turns) % 2],
            'checksum_failed',
            lambda counted: counted.unconfirmed_telegrams > 1,
        ),
    ],
    ids=['silent', 'text', 'noise', 'wrong checksum', 'cut', 'cut 2.2', 'unconfirmed'],
)
def test_what_arrived_says_why_there_is_no_reading(
    source: Callable[[], bytes], code: str, counted: Callable[[LineCounters], Any]
) -> None:
    """Silence, garbage, wrong checksums and half telegrams have a code each, and a sentence with port and time."""
    with new_meter(interval=0.1, source=source) as meter:
        broken_reader = reader(meter.port, '115200 8N1')
        assert read_until(broken_reader, lambda _: counted(broken_reader.counters)) == []
        error = broken_reader.why_nothing(LineCounters(), 2.0)
    assert error.fault.code == code
    assert f'{meter.port} in 2.0 s' in error.detail


@pytest.mark.parametrize(('waited', 'is_short'), [(10.0, True), (LONGEST_SILENCE, False)])
def test_a_short_wait_does_not_prove_that_the_meter_is_silent(
    waited: float, *, is_short: bool
) -> None:
    """Meters may be silent for that long; the advice after a shorter wait begins with a longer one."""
    detail = reader('/dev/none').why_nothing(LineCounters(), waited).detail
    assert ('wait longer' in detail) == is_short
    assert 'that the P1 port is switched on' in detail


def test_what_arrived_before_does_not_count() -> None:
    """The code depends on what arrived since the caller began to wait."""
    with new_meter(interval=0.1, source=broken) as meter:
        source = reader(meter.port)
        read_until(source, lambda _: source.counters.checksum_failures)
    assert source.why_nothing(source.counters, 1.0).fault.code == 'meter_silent'


def test_faults_between_good_telegrams_cost_themselves() -> None:
    """Wrong, cut and noisy telegrams are counted, and each good one between them is served as it was sent."""
    good = of_version('5.0')
    bad = [
        broken(),
        good[:300],
        b'\xff' * 10,
        good.replace(b'!', b'!0'),
        b'/',
        of_version('2.2')[:100],
    ]
    stream = (telegram for turn in count() for telegram in (bad[turn % len(bad)], good))
    with new_meter(interval=0.05, source=lambda: next(stream)) as meter:
        source = reader(meter.port, '115200 8N1')
        found = read_until(source, lambda found: len(found) > len(bad))
    assert telegrams_of(found) == {good}
    assert source.counters.checksum_failures
    assert source.counters.incomplete_telegrams
    assert source.counters.telegrams == len(found)


@pytest.mark.parametrize(
    'odd', [b'0-0:96.13.0(' + b'\xff' * 1024 + b')\r\n', b''], ids=['text', 'noise']
)
def test_bytes_that_are_not_text_do_not_change_a_baud_rate_that_works(odd: bytes) -> None:
    """Neither odd texts nor noise before a telegram delay a reading, however long the port was closed before."""
    data = with_checksum(of_version('5.0').rpartition(b'!')[0] + odd)
    readers: list[P1Reader] = []

    def from_the_header_on() -> bytes:
        """Nothing before the port is open: the middle of an odd text alone may well change the baud rate."""
        if readers and readers[0].counters.port_openings:
            return data
        return b''

    with new_meter(interval=0.2, source=from_the_header_on) as meter:
        source = reader(meter.port, longest_silence=1.2)
        readers.append(source)
        tried: set[int] = set()

        def first(found: list[Reading]) -> bool:
            tried.update(source.baud_rates_tried)
            return bool(found)

        for _ in range(3):
            assert len(read_until(source, first)) == 1
            assert tried == {115200}
            if not odd:
                meter.noise = b'\xff' * 90
            sent_before = meter.sent
            wait_for(lambda sent=sent_before: meter.sent > sent + 6)  # type: ignore[misc]


def test_a_kind_of_problem_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many telegrams have the odd line, the log has one line that names it."""
    odd = from_lines('1-3:0.2.8(50)', '1-0:1.8.1(1', '1-0:1.8.2(000001.000*kWh)', '9-9:99.99.99')
    with new_meter(interval=0.05, source=lambda: odd) as meter:
        read_until(reader(meter.port), lambda found: len(found) > 4)
    (record,) = caplog.records
    assert '1-0:1.8.1' in record.getMessage() and '9-9:99.99.99' in record.getMessage()


def test_few_codes_are_named_in_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Of many lines that are not understood the log names ten, and says how many more there are."""
    unknown = [f'9-9:99.99.{number}' for number in range(CODES_LOGGED + 5)]
    data = from_lines('1-3:0.2.8(50)', '1-0:1.8.1(000001.000*kWh)', *unknown)
    with new_meter(interval=0.05, source=lambda: data) as meter:
        read_until(reader(meter.port), bool)
    (record,) = caplog.records
    assert record.getMessage().count('9-9:99.99.') == 10
    assert record.getMessage().endswith(' and 5 more')


def test_an_unforeseen_error_costs_its_telegram_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Reading goes on in the same opening, and each wait ends with a fault that has a code."""
    telegram = of_version('5.0')

    def is_between_telegrams(_: list[Reading]) -> bool:
        telegrams, rest = divmod(source.counters.received_bytes, len(telegram))
        return telegrams >= 3 and rest == 0

    with new_meter(interval=0.3, source=lambda: telegram) as meter:  # a pause after each telegram
        source = reader(meter.port, specification='a name that configuration would have refused')
        assert read_until(source, is_between_telegrams) == []
        error = source.why_nothing(LineCounters(), 1.0)
    assert error.fault.code == 'internal_error'
    assert 'the cable is right' in error.detail
    assert (source.counters.port_openings, source.counters.port_losses) == (1, 0)
    (record,) = caplog.records
    assert record.exc_info


def test_a_9600_baud_meter_is_found_within_one_of_its_telegrams() -> None:
    """One telegram is lost at the wrong baud rate, the next whole one is read."""
    begun = count(1)
    numbered = (of_version('2.2').replace(b'DEMO0022', b'DEMO%04d' % number) for number in begun)
    with new_meter('2.2', interval=1.5, source=lambda: next(numbered)) as meter:
        source = reader(meter.port)
        first = read_until(source, bool)[0]
    # 1 may have begun before the port was open, 2 showed the baud rate.
    assert first.identification <= 'SIM5 DEMO0003'
    assert source.baud_rates_tried == [9600]


@contextmanager
def changing(
    before: tuple[str, int], after: tuple[str, int], interval: float
) -> Iterator[tuple[SimulatedMeter, Any]]:
    """A meter that is replaced by another, with its version and baud rate, when the function given is called."""
    versions = [before[0]]
    with new_meter(
        interval=interval, baud=before[1], source=lambda: of_version(versions[-1])
    ) as meter:

        def change() -> None:
            versions.append(after[0])
            meter.baud_rate = after[1]

        yield meter, change


OLD, NEW = ('2.2', 9600), ('5.0', 115200)
SPECIFICATIONS = {OLD: 'V2_2', NEW: 'V5'}


@pytest.mark.parametrize(('before', 'after'), [(NEW, OLD), (OLD, NEW)])
def test_a_meter_whose_baud_rate_changes_is_found_again(
    before: tuple[str, int], after: tuple[str, int]
) -> None:
    """The reader that had found one meter finds the next, at the other baud rate, in the same opening."""
    with changing(before, after, interval=0.8) as (meter, change):
        source = reader(meter.port, longest_silence=1.2)
        changed = threading.Event()

        def both_found(found: list[Reading]) -> bool:
            if found and not changed.is_set():
                changed.set()
                change()
            return len({reading.specification for reading in found}) == 2

        found = read_until(source, both_found)
    assert found[0].specification == SPECIFICATIONS[before]
    assert found[-1].specification == SPECIFICATIONS[after]
    assert source.baud_rates_tried == [after[1]]
    assert source.counters.port_openings == 1


def test_what_arrived_at_one_baud_rate_says_nothing_about_the_other(
    terminal: PseudoTerminal,
) -> None:
    """After a change the line may be silent for as long as a meter may, before the first baud rate is tried again."""
    source = reader(terminal.name)
    with closing(source.read()) as looks:
        next(looks)
        terminal.write(b'\xff\x00\xaa' * 6)  # a few more would be enough for a second change
        while source.line != '9600 7E1':
            next(looks)
        for _ in range(3):
            assert next(looks) is None
            assert source.line == '9600 7E1'


def test_noise_before_each_telegram_does_not_change_a_baud_rate_that_works() -> None:
    """Where telegrams are found, noise between them changes nothing."""
    with new_meter(interval=0.6) as meter:
        source = reader(meter.port)

        def many(found: list[Reading]) -> bool:
            if found:
                meter.noise = b'\xff\x00\xfe' * 30
            return len(found) > 4

        found = read_until(source, many)
    assert source.baud_rates_tried == [115200]
    assert all(earlier.received < later.received for earlier, later in pairwise(found))
    assert source.counters.telegrams == len(found)


def test_noise_before_each_telegram_from_the_start_does_not_hide_the_baud_rate() -> None:
    """Noise that looks like another baud rate delays, and does not prevent, the first reading."""
    with new_meter(interval=0.6) as meter:
        meter.noise = b'\xff\x00\xfe' * 30
        source = reader(meter.port)
        assert len(read_until(source, lambda found: len(found) > 2)) == 3
        assert source.baud_rates_tried == [115200]


@contextmanager
def served(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server on loopback that calls `talk` for one client after another; its URL as [meter] port."""
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
    assert telegrams_of(found) == {of_version(version)}


def disconnects(client: socket.socket) -> None:
    """Sends one telegram and closes the connection."""
    client.sendall(of_version('5.0'))
    client.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def test_a_network_port_that_disconnects() -> None:
    """port_lost, as with a cable that is pulled."""
    with served(disconnects) as port:
        source = reader(port)
        with pytest.raises(MeterError) as caught:
            read_until(source, lambda _: False)
    assert (caught.value.fault.code, source.counters.port_losses) == ('port_lost', 1)
    assert 'check the network' in caught.value.detail


def test_a_telegram_right_before_the_peer_disconnects_is_read() -> None:
    """A peer that sends one telegram per connection gives readings too."""
    with served(disconnects) as port:
        source = reader(port)
        with pytest.raises(MeterError):
            read_until(source, lambda _: False)
    assert source.counters.telegrams == 1


def test_a_network_port_that_falls_silent_is_connected_to_again() -> None:
    """A peer that went away without a word is left after a silence, and the next connection is read."""

    def only_the_second_client(client: socket.socket) -> None:
        if source.counters.port_openings > 1:
            client.sendall(of_version('5.0'))
        elif client.recv(1) == b'':
            raise ConnectionAbortedError

    with served(only_the_second_client) as port:
        source = reader(port, longest_silence=0.5)
        assert read_until(source, bool)
    assert source.counters.port_openings == 2


def test_a_local_port_that_is_silent_stays_open(terminal: PseudoTerminal) -> None:
    """It cannot lose a peer as the network does, so nothing would be gained by opening it again."""
    source = reader(terminal.name, '115200 8N1', longest_silence=2 * TICK)
    with closing(source.read()) as looks:
        assert [next(looks) for _ in range(6)] == [None] * 6
    assert source.counters.port_openings == 1


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of the reader in seconds, for which nobody waits."""
    made: list[float] = []

    class Clock:
        monotonic = staticmethod(time.monotonic)
        sleep = staticmethod(made.append)

    monkeypatch.setattr('dsmr_rest.p1.reader.time', Clock)
    return made


def test_bytes_gather_while_the_greater_part_of_a_telegram_arrives(pauses: list[float]) -> None:
    """For as long as a line takes for them, but never so long that a caller cannot stop; and only within a telegram."""
    telegram = of_version('5.0')
    with socket.create_server(('127.0.0.1', 0)) as server:
        source = reader(f'socket://127.0.0.1:{server.getsockname()[1]}', '9600 7E1')
        with closing(source.read()) as looks:
            next(looks)
            peer, _ = server.accept()

            def pauses_after(data: bytes) -> list[float]:
                pauses.clear()
                expected = source.counters.received_bytes + len(data)
                peer.sendall(data)
                while source.counters.received_bytes < expected:
                    next(looks)
                next(looks)
                return list(pauses)

            with peer:
                assert pauses_after(telegram) == []
                assert pauses_after(telegram[:100]) == [TICK]
                assert pauses_after(telegram[100:-10]) == []
                assert pauses_after(telegram[-10:]) == []
                assert pauses_after(telegram[:LINE_CHUNK]) == [], 'too fast for a line'
                near_end = len(telegram) - END_IN_SIGHT - 48
                assert pauses_after(telegram[LINE_CHUNK:near_end]) == [pytest.approx(0.05)]
                assert pauses_after(telegram[near_end:-10]) == []
                assert pauses_after(telegram[-10:]) == []
    assert source.counters.telegrams == 3


THIEF = """import os, sys
port = os.open(sys.argv[1], os.O_RDONLY)
while True:
    os.read(port, 64)
"""


def test_another_program_that_reads_the_port_is_named(tmp_path: Path) -> None:
    """A program that reads without a lock takes parts of telegrams away, and the detail names it."""
    script = tmp_path / 'thief.py'
    script.write_text(THIEF)
    with (
        new_meter(interval=0) as meter,
        subprocess.Popen([sys.executable, str(script), meter.port]) as other,
    ):
        source = reader(meter.port, '115200 8N1')

        def misses_something(_: list[Reading]) -> bool:
            return source.counters.damaged + source.counters.incomplete_telegrams > 0

        try:
            read_until(source, misses_something)
            error = source.why_nothing(LineCounters(), 2.0)
        except MeterError as lost:  # the other program took what had been announced
            error = lost
        finally:
            other.kill()
    assert 'another program' in error.detail
    assert f'{script} (pid {other.pid})' in error.detail
