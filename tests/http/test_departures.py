"""Clients that leave are reported once, to whoever watches them, and no others are."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from dsmr_rest.http.departures import Departures
from tests.conftest import reset, wait_for
from tests.faulty_meter import PATIENCE


@pytest.fixture
def departures() -> Iterator[Departures]:
    with closing(Departures()) as made:
        made.start()
        yield made


class Watched:
    """A client on loopback, which `reports` counts the reports of, to be closed."""

    def __init__(self) -> None:
        self.reports = 0
        self.was_reported = threading.Event()
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.server_side, _ = listener.accept()

    def watch(self, departures: Departures, *, has_stopped_sending: bool = False) -> None:
        departures.watch(self.server_side, self.report, has_stopped_sending=has_stopped_sending)

    def report(self) -> None:
        self.reports += 1
        self.was_reported.set()

    def close(self) -> None:
        self.client.close()
        self.server_side.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    with closing(Watched()) as made:
        yield made


def wait_for_others(departures: Departures) -> None:
    """Returns when what happened to clients until now has been reported."""
    with closing(Watched()) as other:
        other.watch(departures)
        other.client.close()
        assert other.was_reported.wait(PATIENCE)


def test_a_client_that_leaves_is_reported_once(departures: Departures, watched: Watched) -> None:
    """Not before it leaves, whatever it sends; and not again unless it is watched again, when it is gone already."""
    watched.watch(departures)
    watched.client.sendall(b'still here')
    wait_for_others(departures)
    assert watched.reports == 0
    watched.client.close()
    assert watched.was_reported.wait(PATIENCE)
    wait_for_others(departures)
    assert watched.reports == 1
    watched.watch(departures)
    wait_for(lambda: watched.reports == 2)


def test_a_client_that_has_stopped_sending_is_reported_when_it_is_gone(
    departures: Departures, watched: Watched
) -> None:
    """To stop sending is reported to whoever does not know of it; then only a reset is."""
    watched.watch(departures)
    watched.client.shutdown(socket.SHUT_WR)
    assert watched.was_reported.wait(PATIENCE)
    watched.watch(departures, has_stopped_sending=True)
    wait_for_others(departures)
    assert watched.reports == 1
    reset(watched.client)
    wait_for(lambda: watched.reports == 2)


def test_the_last_who_watches_a_client_gets_the_report(
    departures: Departures, watched: Watched
) -> None:
    """One wait follows another on the same connection, without a report between them."""
    departures.watch(watched.server_side, pytest.fail, has_stopped_sending=False)
    watched.watch(departures)
    watched.client.close()
    assert watched.was_reported.wait(PATIENCE)


def test_a_client_that_is_forgotten_is_not_reported(
    departures: Departures, watched: Watched
) -> None:
    """Nor is the next one that gets its file descriptor, before it leaves; that one is watched as any other."""
    watched.watch(departures)
    departures.forget(watched.server_side)
    watched.client.close()
    wait_for_others(departures)
    assert watched.reports == 0
    number = watched.server_side.fileno()
    watched.server_side.close()
    with closing(Watched()) as following:
        assert number in (following.server_side.fileno(), following.client.fileno())
        if following.client.fileno() == number:
            following.client, following.server_side = following.server_side, following.client
        following.watch(departures)
        following.client.close()
        assert following.was_reported.wait(PATIENCE)
    assert watched.reports == 0


def test_a_failing_report_costs_no_other(
    departures: Departures, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread goes on whatever happens."""
    monkeypatch.setattr('dsmr_rest.process.threads.FAILURE_PAUSE', 0.01)
    fails = threading.Event()

    def fail() -> None:
        fails.set()
        raise MemoryError

    departures.watch(watched.server_side, fail, has_stopped_sending=False)
    watched.client.close()
    assert fails.wait(PATIENCE)
    wait_for_others(departures)


def test_after_the_end_nothing_is_reported(watched: Watched) -> None:
    """Connections may outlive the listener: to watch or to forget one is no error then."""
    departures = Departures()
    departures.start()
    departures.close()
    watched.watch(departures)
    departures.forget(watched.server_side)
    watched.client.close()
    with suppress(OSError):
        watched.server_side.recv(1)
    assert watched.reports == 0
    assert 'departures' not in {thread.name for thread in threading.enumerate()}


def test_what_was_not_started_can_be_closed() -> None:
    """As by a listener whose address is in use; and a second time, without closing what has its descriptors by then."""
    departures = Departures()
    departures.close()
    with closing(Watched()) as following:
        departures.close()
        following.client.sendall(b'open')
        assert following.server_side.recv(4) == b'open'
