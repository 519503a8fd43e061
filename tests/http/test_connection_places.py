"""The places of connections: who gets one, whose is taken over, and that none is lost."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from dsmr_rest.http import server
from dsmr_rest.http.server import ConnectionPlaces

PATIENCE = 60.0


@contextmanager
def connections(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """So many accepted connections, each with its client."""
    with ExitStack() as stack:
        pairs = []
        for _ in range(count):
            accepted, client = socket.socketpair()
            stack.enter_context(accepted)
            stack.enter_context(client).settimeout(PATIENCE)
            pairs.append((accepted, client))
        yield pairs


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is silent can be spared at once."""
    monkeypatch.setattr(server, 'SPARE_TIME', 0.0)


def test_a_client_that_was_silent_for_a_moment_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a long silence shows that a client can be spared."""
    monkeypatch.setattr(server, 'SPARE_TIME', 3600.0)
    places = ConnectionPlaces(1)
    with connections(2) as ((first, _), (second, _)):
        assert places.take(first)
        assert not places.take(second)
        assert not places.spare_one()
        assert places.connections() == [first]


@pytest.mark.usefixtures('at_once')
def test_the_longest_silence_is_ended_for_another_client() -> None:
    """Its client is disconnected, and its place is the other's: it is given back once."""
    places = ConnectionPlaces(2)
    with connections(4) as ((first, _), (second, client), (third, _), (fourth, _)):
        assert places.take(first)
        assert places.take(second)
        places.mark_silent(first)
        assert places.take(third)
        assert client.recv(1) == b''
        assert places.connections() == [first, third]
        places.leave(second)
        for busy in first, third:
            places.mark_busy(busy)
        assert not places.take(fourth)
        places.leave(third)
        assert places.take(fourth)


@pytest.mark.usefixtures('at_once')
def test_the_place_of_a_spared_client_is_free() -> None:
    """Who is disconnected to make room has no place any more, and nobody else has it."""
    places = ConnectionPlaces(1)
    assert not places.spare_one()
    with connections(2) as ((first, client), (second, _)):
        assert places.take(first)
        assert places.spare_one()
        assert client.recv(1) == b''
        places.leave(first)
        assert places.take(second)
        places.mark_busy(second)
        assert not places.spare_one()


@pytest.mark.usefixtures('at_once')
def test_who_has_lost_its_place_does_not_get_it_back() -> None:
    """A thread that notices late that its connection was taken over changes nothing by what it marks."""
    places = ConnectionPlaces(1)
    with connections(2) as ((first, _), (second, _)):
        assert places.take(first)
        assert places.take(second)
        places.mark_silent(first)
        places.mark_busy(first)
        assert places.connections() == [second]


def test_a_client_that_is_being_served_for_long_is_not_waited_for() -> None:
    """Waiting for the last responses ends with its time."""
    places = ConnectionPlaces(1)
    with connections(1) as ((accepted, _),):
        assert places.take(accepted)
        places.mark_busy(accepted)
        waiting = threading.Thread(target=places.wait_until_silent, args=(0.1,))
        waiting.start()
        waiting.join(PATIENCE / 3)
        is_waiting = waiting.is_alive()
        places.leave(accepted)
        waiting.join()
    assert not is_waiting
