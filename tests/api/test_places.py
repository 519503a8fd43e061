"""The places of the clients that follow the meter."""

import threading
from concurrent.futures import ThreadPoolExecutor

from dsmr_rest.api.places import STREAMS, TELEGRAM_CLIENTS, FollowerPlaces


def test_kinds_of_clients_share_the_places() -> None:
    """A place that one kind of client has is not there for the other, until it is given back."""
    places = FollowerPlaces(2)
    assert places.take(STREAMS)
    assert places.take(TELEGRAM_CLIENTS)
    assert not places.take(STREAMS)
    assert not places.take(TELEGRAM_CLIENTS)
    places.leave(STREAMS)
    assert places.take(TELEGRAM_CLIENTS)
    assert not places.take(STREAMS)


def test_the_clients_of_each_kind_are_counted() -> None:
    """Who was refused is not counted, and who has left is not counted any more."""
    places = FollowerPlaces(2)
    assert (places.taken(STREAMS), places.taken(TELEGRAM_CLIENTS)) == (0, 0)
    for _ in range(3):
        places.take(STREAMS)
    assert (places.taken(STREAMS), places.taken(TELEGRAM_CLIENTS)) == (2, 0)
    places.leave(STREAMS)
    assert places.taken(STREAMS) == 1


def test_without_places_nobody_gets_one() -> None:
    """With no place at all every client is refused."""
    assert not FollowerPlaces(0).take(STREAMS)


def test_never_more_clients_than_places() -> None:
    """Of many threads that take and leave at once, never more than the number of places have one."""
    places = FollowerPlaces(3)
    most = 0
    lock = threading.Lock()

    def come_and_go() -> None:
        nonlocal most
        for _ in range(500):
            if places.take(STREAMS):
                with lock:
                    most = max(most, places.taken(STREAMS))
                places.leave(STREAMS)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(come_and_go) for _ in range(8)]:
            done.result()
    assert 1 <= most <= 3
    assert places.taken(STREAMS) == 0
