"""Limits and deadlines: more clients than places, slow clients, silent ones, and those that misbehave."""

import http.client
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

from tests.conftest import (
    HOST,
    LAST_REQUEST,
    THREADS_AT_REST,
    UNKNOWN,
    Server,
    StartServer,
    is_problem,
    split_responses,
    threads,
    wait_for,
)
from tests.faulty_meter import FaultyMeter


def test_a_client_over_the_limit_is_refused_at_once(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """Above max_connections: 503 too_many_connections while the others wait, and all of those get their response."""
    meter.hush()
    server = start_server(meter.port, server={'max_connections': 4})
    with ExitStack() as stack:
        # Accepted in this order, before any other.
        waiting = [stack.enter_context(server.connect()) for _ in range(4)]
        for client in waiting:
            client.sendall(b'GET / HTTP/1.0\r\n\r\n')
        for _ in range(3):
            response = server.only_response(f'GET / HTTP/1.1\r\n{HOST}\r\n')
            assert is_problem(response, 503, 'too_many_connections')
            assert int(response.headers['Retry-After']) > 0
        meter.silent = False
        assert [client.recv(12) for client in waiting] == [b'HTTP/1.1 200'] * 4
    wait_for(lambda: server.get('/').status == 200)
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)


def test_silent_connections_make_room(start_server: StartServer, meter: FaultyMeter) -> None:
    """When silent clients have all connections, the one that has been silent for longest makes room for a new one."""
    server = start_server(meter.port, server={'max_connections': 3})
    with ExitStack() as stack:
        silent = [stack.enter_context(server.connect()) for _ in range(3)]
        wait_for(lambda: server.get('/').status == 200)
        assert silent[0].recv(1) == b''
        silent[2].sendall(LAST_REQUEST.encode())
        assert silent[2].recv(12) == b'HTTP/1.1 404'


def test_a_thousand_silent_connections_lock_nobody_out(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """While 1,000 clients that connect at once stay silent another client is served, and no thread is left over."""
    server = start_server(meter.port)
    with ExitStack() as stack:
        for _ in range(1000):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(('127.0.0.1', server.port))

        def is_served() -> bool:
            with suppress(OSError, http.client.HTTPException):
                return server.get('/', timeout=10).status == 200
            return False

        wait_for(is_served, 30)
        assert threads(server.process.pid) <= 140, (
            'one per max_connections, as many for refusals, and a few'
        )
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST, 15)
    assert server.get('/').status == 200


def send_byte_by_byte(server: Server, beginning: str) -> bytes:
    """Sends the rest of a header section slowly and without an end; returns what the server sends in at most 20 s."""
    deadline = time.monotonic() + 20
    received = b''
    with server.connect() as connection:
        connection.sendall(beginning.encode())
        connection.settimeout(0.2)
        while b' 408 ' not in received and time.monotonic() < deadline:
            connection.sendall(b'x')
            with suppress(TimeoutError):
                received += connection.recv(65536)
    return received


def send_without_receiving(server: Server, over: threading.Event) -> float:
    """Sends requests and never receives a response; returns after how many seconds that ends."""
    requests = f'GET /telegram HTTP/1.1\r\n{HOST}Cache-Control: max-age=60\r\n\r\n'.encode() * 99
    with server.connect() as connection:
        began = time.monotonic()
        with suppress(ConnectionError):
            while not over.is_set():
                connection.sendall(requests)
        return time.monotonic() - began


def test_slow_clients_delay_nobody_and_are_disconnected(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """A header section byte by byte is 408 after ten seconds, a client that receives nothing is disconnected, and the
    others are served."""
    server = start_server(meter.port)
    over = threading.Event()
    beginning = f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}'
    with ThreadPoolExecutor(3) as pool:
        sending = pool.submit(send_byte_by_byte, server, beginning)
        pipelining = pool.submit(send_byte_by_byte, server, f'{beginning}\r\n{beginning}')
        not_receiving = pool.submit(send_without_receiving, server, over)
        while not (sending.done() and pipelining.done() and not_receiving.done()):
            assert server.get('/', timeout=5).status == 200
        over.set()
        (refusal,) = split_responses(sending.result())
        assert is_problem(refusal, 408, 'request_timeout')
        first_response, refusal = split_responses(pipelining.result())
        assert first_response.status == 404
        assert is_problem(refusal, 408, 'request_timeout')
        assert not_receiving.result() < 20
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)
