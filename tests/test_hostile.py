"""What a hostile meter, a hostile client or a stalled machine must not bring about."""

import os
import pty
import select
import signal
import socket
import time
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from dsmr_rest.api.routes import ROUTES
from dsmr_rest.simulated.telegrams import with_checksum
from tests.conftest import (
    Server,
    StartServer,
    new_meter,
    receive_all,
    reset,
    split_responses,
    wait_for,
)
from tests.faulty_meter import PATIENCE, FaultyMeter
from tests.telegrams import from_lines

HOST = b'Host: localhost\r\n'


def exchange(port: int, *parts: bytes) -> bytes:
    """What the server sends until it closes the connection, to a client that sends these parts."""
    with socket.create_connection(('127.0.0.1', port), PATIENCE) as client:
        for part in parts:
            client.sendall(part)
        return receive_all(client)


def test_a_meter_cannot_write_into_the_log(start_server: StartServer) -> None:
    """A header line with escape sequences and carriage returns is one line of the log, without control characters."""
    hostile = with_checksum(
        b'/ISK5\\2\x1b[31mRED\x9b2J%s\r2026-11-24 00:00:00,000 meter lost: FORGED\r\n\r\n1-0:1.7.0(00.355*kW)\r\n'
    )
    with new_meter(interval=0.1, source=lambda: hostile) as meter:
        server = start_server(meter.port)
        assert server.get('/').status == 200
        meter.unplug()
        assert server.get('/').status == 503
        meter.plug_in()
        wait_for(lambda: server.get('/').status == 200)
        wait_for(lambda: 'meter back' in server.log_file.read_bytes().decode('latin-1'))
    log = server.log_file.read_bytes()
    assert log.count(b'\n') == 2
    assert not [byte for byte in log.replace(b'\n', b'') if not 0x20 <= byte < 0x7F]
    assert rb'\x1b[31mRED\x9b2J%s\x0d2026' in log


def test_a_few_empty_lines_before_a_request_are_ignored(start_server: StartServer) -> None:
    """RFC 9112 2.2: an empty line or a few before the request line do not matter."""
    server = start_server('/dev/serial/none')
    reply = exchange(server.port, b'\r\n' * 3, b'\r\nGET /nothing HTTP/1.0\r\n\r\n')
    assert reply.startswith(b'HTTP/1.1 404')


@pytest.mark.parametrize('part', [b'\r\n', b'\n', b'\r\n' * 1000])
def test_endless_empty_lines_are_refused(part: bytes, start_server: StartServer) -> None:
    """A client that sends nothing but empty lines gets 400 after a few bytes, however it sends them."""
    server = start_server('/dev/serial/none')
    assert exchange(server.port, *[part] * 20).startswith(b'HTTP/1.1 400')


@pytest.mark.parametrize(
    'request_', [b'GET / HTTP/1.1\nHost: localhost\n\n', b'GET / HTTP/1.1\r\n' + HOST + b'\n']
)
def test_lines_that_end_in_a_bare_line_feed_get_an_explanation(
    request_: bytes, start_server: StartServer
) -> None:
    """A header section without CR LF is answered at once with 400 and what is wrong."""
    server = start_server('/dev/serial/none')
    reply = exchange(server.port, request_)
    assert reply.startswith(b'HTTP/1.1 400')
    assert b'CR LF' in reply


def waiting_client(server: Server, stack: ExitStack) -> socket.socket:
    """A client that has asked for a reading; the stack closes it."""
    client = stack.enter_context(server.connect())
    client.sendall(b'GET / HTTP/1.1\r\n' + HOST + b'\r\n')
    return client


def close_both_sides(client: socket.socket) -> None:
    """Disconnects as curl does when its patience ends: the server sees only that the client sends no more."""
    client.close()


@pytest.mark.parametrize('leave', [reset, close_both_sides])
def test_clients_that_leave_free_their_places(
    leave: Callable[[socket.socket], None], start_server: StartServer
) -> None:
    """Clients that ask a silent meter and leave do not keep others out for longer than a second or so."""
    with new_meter(source=lambda: b'') as meter:
        server = start_server(meter.port, meter={'timeout': 3600}, server={'max_connections': 8})
        with ExitStack() as stack:
            clients = [waiting_client(server, stack) for _ in range(8)]
            wait_for(lambda: server.get('/', {'Prefer': 'wait=0'}).status == 503)
            for client in clients:
                leave(client)
        wait_for(lambda: server.get('/', {'Prefer': 'wait=0'}).status == 504)
        wait_for(lambda: server.health['waitingRequests'] == 0)


def test_a_full_server_still_says_why(start_server: StartServer) -> None:
    """When all places are taken by clients that wait, what needs no telegram is served: /health, pages and errors."""
    with new_meter(source=lambda: b'') as meter:
        server = start_server(meter.port, meter={'timeout': 3600}, server={'max_connections': 4})
        with ExitStack() as stack:
            for _ in range(4):
                waiting_client(server, stack)
            wait_for(lambda: server.get('/health').json['waitingRequests'] == 4)
            health = server.get('/health')
            assert (health.status, health.json['code']) == (503, 'meter_silent')
            needs_meter = {path: route.needs_meter for path, route in ROUTES.items()}
            needs_meter['/currentElectricityUsage/value'] = True
            at_once = [path for path, needs in needs_meter.items() if not needs]
            statuses = {server.get(path).status for path in at_once if path != '/health'}
            assert statuses == {200}
            assert server.get('/nothing').status == 404
            for path in needs_meter.keys() - set(at_once):
                reply = server.get(path)
                assert (reply.status, reply.json['code']) == (503, 'too_many_connections')
                assert reply.headers['Connection'] == 'close'


def test_a_client_that_only_closed_its_sending_side_is_waited_for(
    start_server: StartServer,
) -> None:
    """A half-closed connection (printf … | nc -N) still gets its responses, each whole, however long that takes."""
    telegram = from_lines('1-0:1.7.0(00.355*kW)')
    with new_meter(interval=0.2, source=lambda: telegram) as meter:
        meter.hush()
        server = start_server(meter.port)
        with socket.create_connection(('127.0.0.1', server.port), PATIENCE) as client:
            request = b'GET /telegram HTTP/1.1\r\n' + HOST + b'\r\n'
            client.sendall(request * 2)
            client.shutdown(socket.SHUT_WR)
            wait_for(lambda: server.health['waitingRequests'] == 1)
            began = time.monotonic()
            # Several checks whether the client is there.
            wait_for(lambda: time.monotonic() - began > 1)
            assert server.health['waitingRequests'] == 1
            meter.silent = False
            received = receive_all(client)
    responses = split_responses(received)
    assert [response.body for response in responses] == [telegram] * 2


def test_a_stream_of_a_client_that_stopped_sending_is_unchanged(
    start_server: StartServer,
) -> None:
    """A half-closed client of /stream gets the response once, and then nothing but events."""
    with new_meter(interval=0.2) as meter:
        server = start_server(meter.port)
        with socket.create_connection(('127.0.0.1', server.port), PATIENCE) as client:
            client.sendall(b'GET /stream HTTP/1.1\r\n' + HOST + b'\r\n')
            client.shutdown(socket.SHUT_WR)
            received = b''
            while received.count(b'id: ') < 5:
                received += client.recv(65536)
    assert received.count(b'HTTP/1.1') == 1


def next_event(stream: BinaryIO) -> bytes:
    """The data of the next event of a stream."""
    for text in stream:
        if text.startswith(b'data: '):
            return text
    raise AssertionError('the stream has ended')


def has_stopped(process: int) -> bool:
    """Whether every thread of a process has stopped (proc_pid_stat(5))."""
    states = set()
    for file in Path(f'/proc/{process}/task').glob('*/stat'):
        _, _, fields = file.read_text().rpartition(') ')
        states.add(fields[0])
    return states == {'T'}


@contextmanager
def stalled(process: int, seconds: float = 2.5) -> Iterator[None]:
    """Stops a process for the block, and for longer than its reading loop may be away."""
    os.kill(process, signal.SIGSTOP)
    wait_for(lambda: has_stopped(process))
    yield
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > seconds)
    os.kill(process, signal.SIGCONT)


def test_a_telegram_from_before_a_stall_is_not_served_as_a_new_one(
    start_server: StartServer,
) -> None:
    """What waited in the kernel while the process was stopped is discarded; the next telegram is served."""
    before, meanwhile, after = (from_lines(f'1-0:1.7.0({number:06.3f}*kW)') for number in (1, 2, 3))
    master, port = pty.openpty()
    tty.setraw(port)
    name = os.ttyname(port)
    with os.fdopen(master, 'wb', buffering=0) as line, os.fdopen(port, 'rb', buffering=0):
        server = start_server(name)
        with ExitStack() as stack:
            client = stack.enter_context(
                socket.create_connection(('127.0.0.1', server.port), PATIENCE)
            )
            client.sendall(b'GET /stream HTTP/1.1\r\n' + HOST + b'\r\n')
            stream = stack.enter_context(client.makefile('rb'))
            assert stream.readline() == b'HTTP/1.1 200 OK\r\n'
            while not stream.readline().startswith(b': readings follow'):
                pass

            def send_until_received(telegram: bytes) -> None:
                """What is sent while the server does not read, or after it was stalled, is discarded."""
                while not select.select([client], [], [], 0.3)[0]:
                    line.write(telegram)

            send_until_received(before)
            assert b'"value":1.0' in next_event(stream)
            with stalled(server.process.pid):
                line.write(meanwhile)
            event = b'"value":1.0'
            while b'"value":1.0' in event:  # it may have been sent, and received, more than once
                send_until_received(after)
                event = next_event(stream)
            assert b'"value":3.0' in event
        wait_for(lambda: server.log)
        assert server.stop() == 0
    (line_of_log,) = server.log.splitlines()
    assert 'this server did not run for' in line_of_log


def test_who_waits_during_a_stop_is_told_of_it(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """A request whose time was over before the server went on is not told to check the cable, nor is the log."""
    server = start_server(meter.port, meter={'timeout': 1})
    assert server.get().status == 200
    meter.hush()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.get)
        wait_for(lambda: server.health['waitingRequests'])
        with stalled(server.process.pid, 5.0):
            pass
        response = waiting.result(PATIENCE)
    assert (response.status, response.json['code']) == (503, 'server_stalled')
    assert 'this server did not run for' in response.json['detail']
    assert 'meter lost' not in server.log
