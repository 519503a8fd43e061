"""The simulated meter, and the faulty one of the tests, against a real pseudo-terminal and pyserial."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import serial

from dsmr_rest.simulated.__main__ import main
from dsmr_rest.simulated.meter import SimulatedMeter
from dsmr_rest.simulated.telegrams import VERSIONS, with_checksum
from tests.conftest import hush, open_files, wait_for
from tests.faulty_meter import PATIENCE, FaultyMeter, misread
from tests.library_reading import parsed

ANY_TELEGRAM = with_checksum(
    '/ANY5\\TEST\r\n\r\n1-0:1.8.1(000123.456*kWh)\r\n1-0:1.7.0(00.789*kW)\r\n'
)


@contextmanager
def reader(meter: SimulatedMeter, baud: int = 115200) -> Iterator[serial.Serial]:
    with serial.Serial(meter.port, baud, timeout=0.05, exclusive=True) as port:
        yield port


def read_until(port: serial.Serial, done: Callable[[bytes], Any]) -> bytes:
    """All that has been read when `done` accepts it."""
    data, deadline = b'', time.monotonic() + PATIENCE
    while not done(data):
        assert time.monotonic() < deadline, f'only {data[-200:]!r} came'
        data += port.read(port.in_waiting or 1)
    return data


def next_telegram(port: serial.Serial) -> bytes:
    """The first telegram that is whole, '/' to the end of its checksum line."""
    whole = re.compile(rb'/[^!/]*![0-9A-F]*\r\n')
    found = whole.search(read_until(port, whole.search))
    assert found
    return found[0]


# The line


@pytest.mark.parametrize('version', VERSIONS)
def test_a_reader_gets_telegrams(version: str) -> None:
    """Through the port, at the baud rate of its version, the newest telegram arrives unharmed."""
    with (
        SimulatedMeter(version, interval=0.01) as meter,
        reader(meter, VERSIONS[version].baud_rate) as port,
    ):
        first, second = next_telegram(port), next_telegram(port)
        parsed(first, version)
        assert second.startswith(b'/SIM5')
        assert meter.sent > 0


def test_the_first_telegram_is_immediate() -> None:
    """With an hour between telegrams the first one is there all the same, and only it."""
    with SimulatedMeter(interval=3600) as meter:
        wait_for(lambda: meter.sent == 1)
        assert meter.last.startswith(b'/SIM5')


def test_the_line_has_its_baud_rate() -> None:
    """A telegram takes the time of its bits: once the baud rate is set to 9600, 100 bytes take 0.1 s or more."""
    with SimulatedMeter(interval=0.001, source=lambda: bytes(100)) as meter:
        meter.baud_rate = 9600
        begin, sent = time.monotonic(), meter.sent
        wait_for(lambda: meter.sent > sent + 1)  # the first one may have begun before
        assert time.monotonic() - begin > 0.1


def test_unpaced_nothing_is_lost() -> None:
    """With interval 0 every telegram arrives whole and in order, although the reader lets the line fill up first."""
    numbers = iter(range(10**6))
    with SimulatedMeter(interval=0, source=lambda: b'%06d\n' % next(numbers)) as meter:

        def is_full() -> bool:
            before = meter.sent
            time.sleep(0.05)
            return 0 < before == meter.sent

        # Opening with pyserial would discard what waits.
        descriptor = os.open(meter.port, os.O_RDONLY | os.O_NOCTTY)
        try:
            wait_for(is_full)
            data = b''
            while len(data) < 100_000:
                data += os.read(descriptor, 4096)
        finally:
            os.close(descriptor)
    received = data.split(b'\n')[:-1]
    assert received == [b'%06d' % number for number in range(len(received))]


def test_paced_it_sends_to_nobody() -> None:
    """On a paced line the meter goes on without a reader, long after the port has no room left."""
    with SimulatedMeter(interval=0.001, baud=10**9, source=lambda: bytes(10_000)) as meter:
        wait_for(lambda: meter.sent > 50)


def test_a_name_in_use_is_not_taken(tmp_path: Path) -> None:
    """A file where the link should be is refused and left alone, and nothing stays open."""
    taken = tmp_path / 'meter'
    taken.write_text('mine')
    before = open_files()
    with pytest.raises(FileExistsError):
        SimulatedMeter(link=str(taken))
    assert taken.read_text() == 'mine'
    assert open_files() == before


@pytest.mark.parametrize('interval', [0, 0.01, 3600])
def test_nothing_is_left_behind(interval: float, tmp_path: Path) -> None:
    """Closed, also twice, the meter leaves neither thread nor descriptor nor link."""
    before = open_files(), threading.active_count()
    meter = SimulatedMeter(interval=interval, link=str(tmp_path / 'meter'))
    assert 'simulated-meter' in {thread.name for thread in threading.enumerate()}
    wait_for(lambda: meter.last != b'')
    meter.close()
    meter.close()
    assert (open_files(), threading.active_count()) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('interval', [0, 3600])
def test_closing_does_not_wait_for_the_line(interval: float) -> None:
    """In the middle of a telegram that is slow or finds no room, closing ends the thread at once."""
    meter = SimulatedMeter(interval=interval, source=lambda: bytes(100_000))
    wait_for(lambda: meter.last != b'')
    begin = time.monotonic()
    meter.close()
    assert time.monotonic() - begin < 3
    assert meter.sent == 0
    assert 'simulated-meter' not in {thread.name for thread in threading.enumerate()}


# The faults


def test_silence() -> None:
    """A hushed meter has ended its telegram, sends no other, and sends again when it is not silent any more."""
    with (
        FaultyMeter(interval=0.01, baud=9600, source=lambda: ANY_TELEGRAM) as meter,
        reader(meter, 9600) as port,
    ):
        received = read_until(port, lambda data: len(data) > 20)
        hush(meter)
        sent = meter.sent
        end = ANY_TELEGRAM[-20:]
        read_until(port, lambda data: (received + data).endswith(end) and not port.in_waiting)
        assert port.read(1) == b''
        assert meter.sent == sent
        meter.silent = False
        assert next_telegram(port) == ANY_TELEGRAM


def test_it_sends_when_it_is_asked() -> None:
    """A silent meter sends as many telegrams as it is asked for, each when the reader has taken the one before."""
    with FaultyMeter(interval=0.01, source=lambda: ANY_TELEGRAM) as meter:
        hush(meter)
        with reader(meter) as port, ThreadPoolExecutor(1) as pool:
            sent, taken = meter.sent, meter.taken
            sending = pool.submit(meter.send, 2)
            wait_for(lambda: meter.sent == sent + 1)
            assert not sending.done()
            data = read_until(port, lambda data: len(data) >= 2 * len(ANY_TELEGRAM))
            sending.result(PATIENCE)
            assert data == 2 * ANY_TELEGRAM
            assert (meter.sent, meter.taken) == (sent + 2, taken + 2)
            assert port.read(1) == b''


def test_what_nobody_reads_is_not_taken() -> None:
    """Telegrams count as taken only while a reader has the port open, and takes them."""
    with FaultyMeter(interval=0.01, source=lambda: ANY_TELEGRAM) as meter:
        wait_for(lambda: meter.sent > 2)
        assert not meter.has_reader
        with reader(meter) as port:
            assert meter.has_reader
            read_until(port, lambda _: meter.taken > 0)
        hush(meter)
        taken, sent = meter.taken, meter.sent
        meter.silent = False
        wait_for(lambda: meter.sent > sent + 2)
        assert meter.taken == taken


@contextmanager
def faulty(**faults: Any) -> Iterator[tuple[FaultyMeter, serial.Serial]]:
    """A meter that has these faults from its first telegram on, and a reader."""
    release = threading.Event()

    def source() -> bytes:
        assert release.wait(PATIENCE)
        return ANY_TELEGRAM

    with FaultyMeter(interval=0, source=source) as meter, reader(meter) as port:
        for name, value in faults.items():
            setattr(meter, name, value)
        release.set()
        yield meter, port


@pytest.mark.parametrize(('every', 'wrong'), [(0, 0), (1, 6), (2, 3), (3, 2)])
def test_corruption(every: int, wrong: int) -> None:
    """Each n-th telegram has one wrong digit, which its checksum shows, and is otherwise whole."""
    with faulty(corrupt_every=every) as (_, port):
        data = read_until(port, lambda data: len(data) >= 6 * len(ANY_TELEGRAM))
    size = len(ANY_TELEGRAM)
    received = [data[start : start + size] for start in range(0, 6 * size, size)]
    corrupted = ANY_TELEGRAM.replace(b'456*', b'453*')
    assert [one for one in received if one != ANY_TELEGRAM] == wrong * [corrupted]


def test_cut_short_after_noise() -> None:
    """Noise comes before the telegram, of which only the beginning is sent, and it does not count as sent."""
    expected = 2 * (b'\x00~' + ANY_TELEGRAM[:7])
    with faulty(cut=7, noise=b'\x00~') as (meter, port):
        assert read_until(port, lambda data: len(data) >= len(expected)).startswith(expected)
        assert meter.sent == 0
        assert meter.last == ANY_TELEGRAM


@pytest.mark.parametrize(('version', 'wrong'), [('5.0', 9600), ('2.2', 115200)])
def test_the_wrong_baud_rate_yields_garbage(version: str, wrong: int) -> None:
    """At the wrong baud rate no line of a telegram comes through; at the right one the next telegram does."""
    with FaultyMeter(version, interval=0.01) as meter, reader(meter, wrong) as port:
        garbage = read_until(port, lambda data: len(data) > 100)
        text = [byte for byte in garbage if chr(byte).isprintable() and byte < 0x7F]
        assert len(text) < len(garbage) / 4
        assert b'\r\n' not in garbage
        port.baudrate = VERSIONS[version].baud_rate
        parsed(next_telegram(port), version)


def test_misreading() -> None:
    """Read too fast a byte becomes several, too slowly several become one, at the right baud rate all stay."""
    data = bytes(range(256))
    assert misread(data, 9600, 9600) == data
    assert 3 * len(data) < len(misread(data, 9600, 115200)) < 12 * len(data)
    assert len(data) / 14 < len(misread(data, 115200, 9600)) < len(data) / 6
    assert set(misread(ANY_TELEGRAM, 9600, 115200)) <= {
        0x00,
        0x80,
        0xE0,
        0xF0,
        0xF8,
        0xFC,
        0xFE,
        0xFF,
    }


def test_unplugged_and_plugged_in_again(tmp_path: Path) -> None:
    """Unplugging fails the reader and removes the link; plugged in, the same name has telegrams again."""
    link = tmp_path / 'meter'
    with FaultyMeter(interval=0.01, link=str(link)) as meter:
        assert meter.port == str(link)
        with reader(meter) as port:
            next_telegram(port)
            meter.unplug()
            with pytest.raises((serial.SerialException, OSError)):
                read_until(port, lambda _: False)
        assert not os.path.lexists(link)
        meter.plug_in()
        meter.plug_in()
        with reader(meter) as port:
            parsed(next_telegram(port), '5.0')
    assert not os.path.lexists(link)


def test_nothing_counts_while_unplugged() -> None:
    """What is sent without a plug does not count; unplugging twice is as good as once, also before closing."""
    made = []

    def source() -> bytes:
        made.append(ANY_TELEGRAM)
        return ANY_TELEGRAM

    before = open_files()
    with FaultyMeter(interval=0, source=source) as meter:
        wait_for(lambda: meter.sent > 0)
        meter.unplug()
        meter.unplug()
        begin = len(made)
        wait_for(lambda: len(made) > begin + 2)
        begin, sent = len(made), meter.sent
        wait_for(lambda: len(made) > begin + 5)
        assert meter.sent == sent
        meter.plug_in()
        wait_for(lambda: meter.sent > sent)
        meter.unplug()
    assert open_files() == before


# The command


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGINT])
def test_by_hand(end: signal.Signals) -> None:
    """The command names the device on stdout, sends there, and ends well on a signal."""
    command = [
        sys.executable,
        '-m',
        'dsmr_rest.simulated',
        '--version',
        '2.2',
        '--interval',
        '0',
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            device = re.fullmatch(r'port = (/dev/pts/\d+)\n', process.stdout.readline())
            assert device
            with serial.Serial(device[1], 9600, timeout=0.05) as port:
                parsed(next_telegram(port), '2.2')
            process.send_signal(end)
            rest, complaint = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, rest, complaint.count('\n')) == (0, '', 1)


def test_a_signal_that_comes_early_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A signal that came before the meter was there is not lost: the command ends well at once."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        assert main(['--interval', '3600']) == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert capsys.readouterr().out.startswith('port = /dev/pts/')


@pytest.mark.parametrize('interval', ['-1', 'nan', 'inf', 'soon'])
def test_an_impossible_interval_is_refused(
    interval: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interval that is no time to wait ends the command with status 2 before there is a meter."""
    with pytest.raises(SystemExit) as refused:
        main([f'--interval={interval}'])
    shown = capsys.readouterr()
    assert (refused.value.code, shown.out) == (2, '')
    assert '--interval' in shown.err
