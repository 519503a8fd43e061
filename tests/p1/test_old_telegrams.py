"""Old telegrams are never handed out as new ones: after a delay of the network, and after a stop of this program.

The reader runs in the thread of the test, so what arrives before its next look at the port is decided here.
"""

import os
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import closing

import pytest

from dsmr_rest.config import MeterSettings
from dsmr_rest.p1.backlog import LEAST_DELAY
from dsmr_rest.p1.port import READ_LIMIT, Port, serial_settings
from dsmr_rest.p1.reader import LONGEST_ROUND, STALL_TIME, P1Reader
from dsmr_rest.reading.document import Reading
from dsmr_rest.simulated.meter import PseudoTerminal
from tests.reading_loop import PATIENCE
from tests.telegrams import from_lines

STOP = STALL_TIME + LONGEST_ROUND + 0.5
"""Seconds without a look at the port that are a stall."""
ROUNDS = 40
"""Looks at the port in which a telegram that was sent must have been found: one waits for at most a TICK."""

Readings = Generator[Reading | None, None, None]


def numbered(number: int) -> bytes:
    """A telegram whose energy is this number."""
    return from_lines('0-0:1.0.0(240115103000W)', f'1-0:1.8.1({number:06}.000*kWh)')


def next_number(readings: Readings) -> int:
    """The number of the next telegram that is handed out."""
    for _, reading in zip(range(ROUNDS), readings, strict=False):
        if reading:
            return int(reading.document['electricityUsedTariff1']['value'])
    raise AssertionError('no telegram is handed out')


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """What stands for the program that serves a meter's port over TCP."""
    with socket.create_server(('127.0.0.1', 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


def reader_of(server: socket.socket) -> P1Reader:
    return P1Reader(MeterSettings(port=f'socket://127.0.0.1:{server.getsockname()[1]}'))


def test_of_what_a_network_held_back_only_the_last_is_handed_out(server: socket.socket) -> None:
    """After a delay telegrams that arrive in one piece or one after the other count once the line pauses."""
    source = reader_of(server)
    with closing(source.read()) as readings:
        assert next(readings) is None
        with server.accept()[0] as peer:
            for number in (1, 2):
                peer.sendall(numbered(number))
                assert next_number(readings) == number
            assert source.state.interval is not None
            late = time.monotonic() + LEAST_DELAY
            while time.monotonic() <= late:
                assert next(readings) is None
            # The first segments after an interruption arrive one by one.
            for number in (3, 4):
                peer.sendall(numbered(number))
                assert next(readings) is None, 'it is not known yet whether it is the last'
            peer.sendall(b''.join(map(numbered, range(5, 12))))
            assert next_number(readings) == 11
            peer.sendall(numbered(12))
            assert next_number(readings) == 12
    assert source.counters.telegrams == 12
    assert source.counters.port_openings == 1


def test_a_remote_port_is_connected_to_again_after_a_stall(
    server: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """The peer may have kept more than has arrived: nothing of the connection from before the stall is handed out."""
    source = reader_of(server)
    with closing(source.read()) as readings:
        assert next(readings) is None
        with server.accept()[0] as peer:
            peer.sendall(numbered(1))
            assert next_number(readings) == 1
            peer.sendall(numbered(2))
            time.sleep(STOP)
            assert next(readings) is None
            assert source.counters.port_openings == 2
            peer.sendall(numbered(3))
        with server.accept()[0] as peer:
            peer.sendall(numbered(4))
            assert next_number(readings) == 4
    assert source.counters.port_openings == 2
    (message,) = caplog.messages
    assert 'this server did not run for' in message
    assert source.state.stall > STALL_TIME


@pytest.mark.parametrize('size', [48, 8000])
def test_what_waits_at_a_local_port_during_a_stall_is_discarded(
    terminal: PseudoTerminal, size: int
) -> None:
    """However much the kernel holds, the next telegram that is handed out is one that is sent afterwards."""
    source = P1Reader(MeterSettings(port=terminal.name, line='115200 8N1'))
    with closing(source.read()) as readings:
        assert next(readings) is None
        assert terminal.write(numbered(1)) == len(numbered(1))
        assert next_number(readings) == 1
        held = b''.join(map(numbered, range(2, 400)))[:size]
        written = terminal.write(held)
        assert written == size or written > 4096, 'more than one read takes'
        time.sleep(STOP)
        assert next(readings) is None
        terminal.write(b'\r\n' + numbered(500))
        assert next_number(readings) == 500
    assert source.counters.port_openings == 1
    assert source.counters.telegrams == 2, 'what was held is not even counted'


def test_a_short_pause_is_no_stall(terminal: PseudoTerminal) -> None:
    """What arrives during one is handed out: only the last of it, because it arrived in one piece."""
    source = P1Reader(MeterSettings(port=terminal.name, line='115200 8N1'))
    with closing(source.read()) as readings:
        assert next(readings) is None
        terminal.write(numbered(1) + numbered(2))
        time.sleep(STALL_TIME / 2)
        assert next_number(readings) == 2
    assert source.state.stall_end is None


def test_a_local_port_that_was_silent_holds_nothing_back(
    terminal: PseudoTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a network delivers old telegrams after a delay: of a cable the first one after a silence is new."""
    monkeypatch.setattr('dsmr_rest.p1.backlog.LEAST_DELAY', 0.0)
    source = P1Reader(MeterSettings(port=terminal.name, line='115200 8N1'))
    with closing(source.read()) as readings:
        assert next(readings) is None
        for number in (1, 2):
            terminal.write(numbered(number))
            assert next_number(readings) == number
        for _ in range(3):
            assert next(readings) is None
        terminal.write(numbered(3))
        reading = None
        for _ in range(ROUNDS):
            if source.counters.telegrams == 3:
                break
            reading = next(readings)
        assert reading is not None, 'it is held back'


def test_a_peer_that_sends_without_end_fills_no_memory(server: socket.socket) -> None:
    """One look takes at most a bounded number of bytes, and the rest is there for the next."""
    sent = os.urandom(READ_LIMIT) + os.urandom(READ_LIMIT // 2)
    url = f'socket://127.0.0.1:{server.getsockname()[1]}'
    with closing(Port(serial_settings() | {'url': url})) as port, server.accept()[0] as peer:
        peer.sendall(sent)
        received = b''
        while len(received) < len(sent):
            piece = port.read()
            assert len(piece) <= READ_LIMIT
            received += piece
    assert received == sent


def test_a_peer_that_sends_is_not_left(server: socket.socket) -> None:
    """A remote port is connected to again after a long silence, and not when it has been open for as long."""
    longest = 1.0
    port = f'socket://127.0.0.1:{server.getsockname()[1]}'
    source = P1Reader(MeterSettings(port=port), longest)
    with closing(source.read()) as readings:
        assert next(readings) is None
        with server.accept()[0] as peer:
            began = time.monotonic()
            number = 0
            while time.monotonic() - began < 2 * longest:
                number += 1
                peer.sendall(numbered(number))
                assert next_number(readings) == number
    assert source.counters.port_openings == 1


def test_a_flooded_reader_hands_out_whole_telegrams(server: socket.socket) -> None:
    """A peer that is always ahead gets read nevertheless, a bounded piece at a time."""
    flood = b''.join(map(numbered, range(2000)))
    source = reader_of(server)
    with closing(source.read()) as readings:
        assert next(readings) is None
        with server.accept()[0] as peer:
            peer.setblocking(False)
            sent = peer.send(flood)
            whole = sent // len(numbered(1))
            last = -1
            while source.counters.telegrams < whole - 1:
                before = last
                last = next_number(readings)
                assert last > before
    assert source.counters.incomplete_telegrams == 0


@pytest.mark.parametrize('line', ['auto', '115200 8N1', '115200 7E1', '9600 7E1'])
def test_a_port_is_opened_at_eight_bits_without_parity(
    terminal: PseudoTerminal, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the line, so that its parity bits are kept; the port is locked, and a read does not wait for ever."""
    opened: list[dict[str, object]] = []

    class Noted(Port):
        def __init__(self, settings: dict[str, object]) -> None:
            opened.append(settings)
            super().__init__(settings)

    monkeypatch.setattr('dsmr_rest.p1.reader.Port', Noted)
    with closing(P1Reader(MeterSettings(port=terminal.name, line=line)).read()) as readings:
        next(readings)
    (settings,) = opened
    baud_rate = 9600 if line == '9600 7E1' else 115200
    assert settings == {
        'url': terminal.name,
        'baudrate': baud_rate,
        'bytesize': 8,
        'parity': 'N',
        'stopbits': 1,
        'timeout': 0.25,
        'exclusive': True,
    }
