"""Connections over TCP and TLS: deadlines, and how they end."""

import resource
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsmr_rest.http.connection import (
    Connection,
    ConnectionWithoutKernelTimeouts,
    connection_of,
    disconnect,
    kernel_keeps_timeouts,
    send_without_tls,
    set_kernel_timeout,
)
from tests.conftest import receive_all, reset, wait_for

LONG = 10.0
"""Seconds: more than anything that ends in time takes here."""
ENDLESS = 4 * LONG
SHORT = 0.2
MUCH = bytes(8_000_000)
"""More than the buffers of both sides hold."""


@dataclass
class Pair:
    """A connection of the server and the socket of its client, to be closed."""

    connection: Connection
    server_side: socket.socket
    client: socket.socket

    def close(self) -> None:
        """Closes both, and ends what still waits for one of them."""
        for each in self.client, self.server_side:
            disconnect(each)
            each.close()


def tcp_pair() -> Pair:
    with socket.create_server(('127.0.0.1', 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server_side, _ = listener.accept()
    return Pair(connection_of(server_side), server_side, client)


def before_handshake(certificate: Mapping[str, Path]) -> Pair:
    """A TLS connection of the server whose client has not said anything yet."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate['certificate'], certificate['private_key'])
    plain = tcp_pair()
    server_side = context.wrap_socket(
        plain.server_side, server_side=True, do_handshake_on_connect=False
    )
    return Pair(connection_of(server_side), server_side, plain.client)


def tls_pair(certificate: Mapping[str, Path]) -> Pair:
    context = ssl.create_default_context(cafile=certificate['certificate'])
    pair = before_handshake(certificate)
    with ThreadPoolExecutor(1) as pool:
        handshake = pool.submit(pair.connection.shake_hands, ENDLESS)
        # An end without an alert raises an error.
        pair.client = context.wrap_socket(
            pair.client, server_hostname='127.0.0.1', suppress_ragged_eofs=False
        )
        handshake.result()
    return pair


@pytest.fixture(params=['tcp', 'tcp without kernel timeouts', 'tls'])
def pair(request: pytest.FixtureRequest, certificate: Mapping[str, Path]) -> Iterator[Pair]:
    made = tcp_pair()
    if 'without' in request.param:
        made.connection = ConnectionWithoutKernelTimeouts(made.server_side)
    if request.param == 'tls':
        made.close()
        made = tls_pair(certificate)
    with closing(made):
        yield made


def in_time(work: Callable[..., object], *arguments: object) -> None:
    """Does something that must end by itself; raises what it raises."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work, *arguments)
    pool.shutdown(wait=False)
    wait([future], LONG)
    assert future.done(), 'it goes on'
    future.result()


def in_background(stack: ExitStack, work: Callable[[], object]) -> None:
    """Does something in a thread, which must have ended by itself at the end of the stack."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    stack.callback(thread.join, LONG)


def test_what_the_client_sends_is_received(pair: Pair) -> None:
    """Bytes are received as soon as there are any; after the last of them there are none."""
    pair.client.sendall(b'GET')
    assert pair.connection.receive(LONG) == b'GET'
    # Not close(), which resets a TLS connection whose client has not read everything.
    socket.socket.shutdown(pair.client, socket.SHUT_WR)
    assert pair.connection.receive(LONG) == b''


def test_a_silent_client_is_not_waited_for_longer(pair: Pair) -> None:
    """Receiving ends when its time is over, and a later receive has its own time, be it more or less."""
    with pytest.raises(TimeoutError):
        in_time(pair.connection.receive, SHORT)

    def send_late() -> None:
        time.sleep(2 * SHORT)  # longer than the wait before
        pair.client.sendall(b'late')

    with ExitStack() as stack:
        in_background(stack, send_late)
        assert pair.connection.receive(LONG) == b'late'
    with pytest.raises(TimeoutError):
        in_time(pair.connection.receive, SHORT)


def test_a_client_that_does_not_shake_hands_is_not_waited_for(
    certificate: Mapping[str, Path],
) -> None:
    """The handshake of TLS ends when its time is over."""
    with closing(before_handshake(certificate)) as pair, pytest.raises(TimeoutError):
        in_time(pair.connection.shake_hands, SHORT)


class NarrowSocket(socket.socket):
    """A socket of a system whose struct timeval has two integers of 4 bytes, and the last one that was set."""

    timeval = bytes(8)

    def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]
        return self.timeval

    def setsockopt(self, *arguments: Any) -> None:
        _, _, self.timeval = arguments


def test_a_kernel_of_32_bits_gets_its_own_form_of_a_timeout() -> None:
    """The seconds and microseconds are in the integers that the kernel itself uses."""
    with NarrowSocket() as narrow:
        set_kernel_timeout(narrow, 2.5)
        assert struct.unpack('=ll', narrow.timeval) == (2, 500_000)


def test_too_little_time_for_the_kernel_is_not_endless_time(pair: Pair) -> None:
    """A silent client is not waited for when the time rounds to none in the kernel's unit."""
    with pytest.raises(TimeoutError):
        in_time(pair.connection.receive, 1e-9)


@pytest.mark.parametrize('seconds', [0, -1])
def test_nothing_is_received_after_the_deadline(seconds: float, pair: Pair) -> None:
    """When no time is left, a client that never stops sending cannot go on."""
    pair.client.sendall(b'more')
    with pytest.raises(TimeoutError):
        pair.connection.receive(seconds)


def test_all_data_is_sent(pair: Pair) -> None:
    """A client gets all that is sent, unchanged, although it does not fit into the buffers at once."""
    data = bytes(range(256)) * 20_000
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(receive_all, pair.client)
        pair.connection.send(data, LONG)
        with suppress(TimeoutError):  # the client does not close
            pair.connection.linger(SHORT)
        assert received.result() == data


def test_a_client_that_takes_nothing_is_not_waited_for(pair: Pair) -> None:
    """Sending ends when its time is over."""
    with pytest.raises(TimeoutError):
        in_time(pair.connection.send, MUCH, SHORT)


def test_a_client_that_takes_little_at_a_time_gains_nothing(pair: Pair) -> None:
    """The time is for all of the data: it does not begin anew with each part that the client takes."""
    over = threading.Event()

    def take_little_at_a_time() -> None:
        with suppress(OSError):
            while not over.wait(SHORT / 10):
                pair.client.recv(200_000)

    with ExitStack() as stack:
        in_background(stack, take_little_at_a_time)
        stack.callback(over.set)
        with pytest.raises(TimeoutError):
            in_time(pair.connection.send, MUCH * 10, 3 * SHORT)


def test_what_is_sent_at_once_is_not_waited_for(pair: Pair) -> None:
    """When no more fits, send_at_once() says so without waiting, also after a receive() that did wait."""
    with pytest.raises(TimeoutError):
        pair.connection.receive(SHORT)
    while pair.connection.send_at_once(MUCH):
        pass


def test_a_client_that_has_disconnected_is_an_error(pair: Pair) -> None:
    """Sending to a client that has reset its connection is an error at once."""
    reset(pair.client)
    wait_for(lambda: not pair.connection.is_connected())
    with pytest.raises((ConnectionError, ssl.SSLError)):
        pair.connection.send(b'response', LONG)


def test_a_client_that_only_stops_sending_is_connected() -> None:
    """A client that has closed its sending side is still there; one that has reset the connection is not."""
    with closing(tcp_pair()) as pair:
        assert pair.connection.is_connected()
        pair.client.shutdown(socket.SHUT_WR)
        assert pair.connection.receive(LONG) == b''
        assert pair.connection.is_connected()
        reset(pair.client)
        wait_for(lambda: not pair.connection.is_connected())


def test_lingering_ends_with_the_client(pair: Pair) -> None:
    """The client gets what was sent and the end, may go on sending, and is waited for until it closes."""
    with ThreadPoolExecutor(1) as pool:
        pair.connection.send(b'response', LONG)
        lingering = pool.submit(pair.connection.linger, ENDLESS)
        assert receive_all(pair.client) == b'response'
        socket.socket.sendall(pair.client, b'more')
        assert not lingering.done()
        pair.client.close()
        lingering.result(LONG)


def test_lingering_ends_with_its_time(pair: Pair) -> None:
    """A client that neither closes nor is silent is waited for no longer than said."""
    over = threading.Event()

    def go_on_sending() -> None:
        with suppress(OSError):
            while not over.wait(SHORT / 10):
                socket.socket.send(pair.client, b'more')

    with ExitStack() as stack:
        in_background(stack, go_on_sending)
        stack.callback(over.set)
        with suppress(TimeoutError):
            in_time(pair.connection.linger, 2 * SHORT)


def test_plain_text_to_tls_is_waited_for_no_longer_than_said(
    certificate: Mapping[str, Path],
) -> None:
    """A client that goes on sending after what it was told without TLS gains nothing."""
    over = threading.Event()
    began = time.monotonic()
    with closing(before_handshake(certificate)) as pair, ExitStack() as stack:

        def go_on_sending() -> None:
            with suppress(OSError):
                while not over.wait(SHORT / 10) and time.monotonic() < began + 2 * LONG:
                    pair.client.send(b'more')

        in_background(stack, go_on_sending)
        stack.callback(over.set)
        with pytest.raises(TimeoutError):
            in_time(send_without_tls, pair.server_side, b'use TLS', 2 * SHORT)
        assert pair.client.recv(7) == b'use TLS'


@pytest.mark.parametrize('kind', [Connection, ConnectionWithoutKernelTimeouts])
def test_discarding_does_not_wait(kind: type[Connection]) -> None:
    """What has arrived is gone, and nothing is waited for, also after a receive() that did wait."""
    with closing(tcp_pair()) as pair:
        connection = kind(pair.server_side)
        pair.client.sendall(b'first')
        assert connection.receive(ENDLESS) == b'first'
        in_time(connection.discard_received)
        pair.client.sendall(b'second')
        wait_for(lambda: select.select([pair.server_side], [], [], 0)[0])
        in_time(connection.discard_received)
        pair.client.sendall(b'third')
        assert connection.receive(LONG) == b'third'


def test_another_thread_can_disconnect(pair: Pair) -> None:
    """Whoever waits for a client wakes up when another thread disconnects it, to nothing or to an error."""
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(pair.connection.receive, LONG)
        disconnect(pair.server_side)
        try:
            assert receiving.result(LONG / 2) == b''
        except BrokenPipeError:  # OpenSSL 3.5 tries to send an alert to the client first
            assert isinstance(pair.server_side, ssl.SSLSocket)


def test_timeouts_that_cannot_be_tried_are_not_relied_on() -> None:
    """Without the file descriptors to try the kernel's timeouts with, they do not count as kept."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
    try:
        are_kept = kernel_keeps_timeouts.__wrapped__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    assert not are_kept
