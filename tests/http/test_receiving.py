"""Requests as they arrive on a real socket: whole, in pieces, several at once, too slow, or never."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from dsmr_rest.http.connection import connection_of
from dsmr_rest.http.message import HttpError
from dsmr_rest.http.receiving import Receiver
from tests.faulty_meter import PATIENCE

FIRST = b'GET / HTTP/1.1\r\nHost: one'
SECOND = b'GET / HTTP/1.1\r\nHost: two'
END = b'\r\n\r\n'
SHORT = 0.05
"""Seconds in which nothing more arrives."""


@contextmanager
def receiving(
    idle_time: float = PATIENCE, request_time: float = PATIENCE
) -> Iterator[tuple[socket.socket, Receiver]]:
    """The client's socket, and the receiver of what is sent on it."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield client, Receiver(connection_of(server), idle_time, request_time)


def assert_refused_before_an_idle_client(receiver: Receiver) -> None:
    """The request is too slow, and that is known long before the idle time is over."""
    began = time.monotonic()
    with pytest.raises(HttpError) as caught:
        receiver.header_section()
    assert caught.value.response.status == 408
    assert time.monotonic() - began < PATIENCE / 2


def test_requests_that_arrive_together_are_received_one_by_one() -> None:
    """Pipelined requests come out in their order, and the end of the connection after them."""
    with receiving() as (client, receiver):
        client.sendall(FIRST + END + SECOND + END)
        client.shutdown(socket.SHUT_WR)
        sections = [receiver.header_section() for _ in range(3)]
    first, second, nothing = sections
    assert first is not None and first.startswith(FIRST)
    assert second is not None and second.startswith(SECOND)
    assert nothing is None


def test_half_a_request_is_no_request() -> None:
    """A client that disconnects within a request gets no response; what it sent is kept for whoever asks."""
    with receiving() as (client, receiver):
        client.sendall(FIRST)
        client.shutdown(socket.SHUT_WR)
        assert receiver.header_section() is None
        assert receiver.received == FIRST


def test_an_idle_client_is_not_told_anything() -> None:
    """Without a byte of a request, the end of the idle time is the end of the connection, not an error."""
    with receiving(idle_time=SHORT) as (_, receiver):
        assert receiver.header_section() is None


def test_a_request_that_is_too_slow_is_refused() -> None:
    """From its first byte a request has its own deadline, however long the client may be idle."""
    with receiving(request_time=SHORT) as (client, receiver):
        client.sendall(FIRST)
        assert_refused_before_an_idle_client(receiver)


def test_a_pipelined_request_has_the_deadline_of_a_request() -> None:
    """The beginning of a request that arrived with the one before it does not get the time of an idle client."""
    with receiving(request_time=SHORT) as (client, receiver):
        client.sendall(FIRST + END + SECOND)
        assert receiver.header_section() is not None
        assert_refused_before_an_idle_client(receiver)


def test_the_first_byte_does_not_make_the_time_longer() -> None:
    """An idle client that begins a request at last gets no more time for it than was left."""
    with receiving(idle_time=SHORT) as (client, receiver):
        client.sendall(FIRST)
        assert_refused_before_an_idle_client(receiver)


def test_a_request_in_small_pieces_has_no_more_time() -> None:
    """The deadline is that of the whole request, however regularly its bytes arrive."""
    with receiving(request_time=4 * SHORT) as (client, receiver):
        is_over = threading.Event()

        def send_slowly() -> None:
            with suppress(OSError):
                client.sendall(FIRST)
                while not is_over.wait(SHORT):
                    client.sendall(b'.')

        sending = threading.Thread(target=send_slowly)
        sending.start()
        # A receiver that waits for ever gets nothing more.
        rescue = threading.Timer(PATIENCE, is_over.set)
        rescue.start()
        try:
            assert_refused_before_an_idle_client(receiver)
        finally:
            rescue.cancel()
            rescue.join()
            is_over.set()
            sending.join()
