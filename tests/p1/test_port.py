"""A serial port on real pseudo-terminals and sockets: what is read, what is discarded, and which errors it raises."""

import errno
import os
import socket
import termios
import tty
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from dsmr_rest.p1.port import Port, is_remote, serial_settings
from tests.conftest import MISSING_PORT, new_meter, wait_for


@contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """The descriptor of the meter's end of a pseudo-terminal, and the name of the other end."""
    master, slave = os.openpty()
    tty.setraw(master)
    try:
        yield master, os.ttyname(slave)
    finally:
        os.close(master)
        os.close(slave)


def opened(name: str, baud_rate: int = 115200) -> 'closing[Port]':
    return closing(Port(serial_settings() | {'url': name, 'baudrate': baud_rate}))


def error_of_opening(name: str) -> int | None:
    """The number of the error with which the port cannot be opened."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 its number is what is tested
        opened(name)
    return caught.value.errno


def test_what_has_arrived_is_read_in_one_piece() -> None:
    """A read returns all bytes that are waiting, with bit 7 as it was sent, and nothing when there are none."""
    sent = bytes(range(256))
    with terminal() as (master, name), opened(name) as port:
        assert port.read() == b''
        os.write(master, sent)
        received = b''
        while received != sent:
            assert sent.startswith(received)
            received += port.read()


def test_what_has_arrived_can_be_discarded() -> None:
    """After discard() only what arrives later is read."""
    with terminal() as (master, name), opened(name) as port:
        os.write(master, b'old')
        port.discard()
        os.write(master, b'new')
        assert wait_for(port.read) == b'new'


def test_a_lost_port_is_an_error_of_the_system() -> None:
    """Whatever is done with a port that has been hung up, the caller gets an OSError."""
    with terminal() as (_, name):
        port = Port(serial_settings() | {'url': name, 'baudrate': 9600})
    with closing(port):
        for use in (port.read, port.discard, lambda: port.set_baud_rate(115200)):
            with pytest.raises(OSError):  # noqa: PT011 its type is what is tested
                use()


def test_a_port_that_is_lost_while_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that fails after it was opened has the error of the system, as one that cannot be opened has."""

    def fail(*_: object) -> None:
        raise termios.error(errno.EIO, os.strerror(errno.EIO))

    with terminal() as (_, name), monkeypatch.context() as failing:
        failing.setattr(termios, 'tcflush', fail)
        assert error_of_opening(name) == errno.EIO


def test_the_baud_rate_is_that_of_the_terminal() -> None:
    """The port is opened at its baud rate, and changed to another without being opened again."""
    with terminal() as (master, name), opened(name, 9600) as port:
        assert termios.tcgetattr(master)[5] == termios.B9600
        port.set_baud_rate(115200)
        assert termios.tcgetattr(master)[5] == termios.B115200


def test_a_port_has_one_reader() -> None:
    """A second opening fails with the error of a lock that another has."""
    with terminal() as (_, name), opened(name):
        assert error_of_opening(name) == errno.EAGAIN


def test_a_port_that_cannot_be_opened_has_the_error_of_the_system(tmp_path: Path) -> None:
    """Whatever pyserial raises, the caller gets an OSError whose number says why."""
    file = tmp_path / 'file'
    file.touch()
    assert error_of_opening(MISSING_PORT) == errno.ENOENT
    assert error_of_opening(str(file)) == errno.ENOTTY
    assert error_of_opening('nonsense://meter') == errno.EINVAL


def test_a_socket_is_read_like_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a peer has sent is read, at most so many bytes at a time; its end is an OSError."""
    limit = 1000  # fewer than the system keeps
    monkeypatch.setattr('dsmr_rest.p1.port.READ_LIMIT', limit)
    with socket.create_server(('127.0.0.1', 0)) as listener:
        name = f'socket://127.0.0.1:{listener.getsockname()[1]}'
        assert is_remote(name)
        with opened(name) as port:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b'.' * 10 * limit)
                received = 0
                while received < 10 * limit:
                    data = port.read()
                    assert len(data) <= limit
                    received += len(data)
            with pytest.raises(OSError, match='disconnected'):
                wait_for(port.read)
            assert not port.is_there


def test_an_address_that_makes_no_sense_is_an_error_of_opening() -> None:
    """What pyserial finds wrong itself, without an error of the system, is an OSError without a number."""
    assert error_of_opening('socket://127.0.0.1:9?nonsense=1') is None


def test_a_port_is_there_until_it_is_unplugged() -> None:
    """By that a port that another program reads is told from one that has gone."""
    with new_meter() as meter, opened(meter.port) as port:
        assert port.is_there
        meter.unplug()
        assert not port.is_there
        meter.plug_in()
        assert Path(meter.port).exists()
        assert not port.is_there, 'the open port is the one before'


def test_a_port_whose_name_has_gone_is_not_there() -> None:
    """A cable that is pulled may lose its name before its terminal hangs up."""
    with new_meter() as meter, opened(meter.port) as port:
        Path(meter.port).unlink()
        assert not port.is_there
