"""The clients of the benchmarks: single requests, requests at once, a load of requests, and open streams."""

import http.client
import json
import re
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus

from benchmarks.line import Line
from benchmarks.usage import threads

DRAIN_PAUSE = 0.05
"""Seconds between two reads of all open streams."""
FLOOR_THREADS = 2
"""Threads of the bare floor without clients: one reads stdin, one accepts."""
SERVER_THREADS = 5
"""Those of the server without clients: for signals, to accept, to watch clients, to read the meter, and for the log."""
RELEASE_PAUSE = 0.1
"""Seconds in which a thread begins to wait."""


def get(port: int, path: str = '/') -> bytes:
    """The body of one response, which must be 200."""
    with closing(http.client.HTTPConnection('127.0.0.1', port, timeout=30)) as connection:
        connection.request('GET', path)
        response = connection.getresponse()
        body = response.read()
    assert response.status == HTTPStatus.OK, body
    return body


def responses_per_second(port: int, *, keep_alive: bool, seconds: int = 3) -> float:
    """What wrk measures with 16 clients, each on one connection or on one per request, when a reading from memory
    will do."""
    options = ['-t1', '-c16', f'-d{seconds}s', '-H', 'Cache-Control: max-age=3600']
    if not keep_alive:
        options += ['-H', 'Connection: close']
    command = ['wrk', *options, f'http://127.0.0.1:{port}/']
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # A connection that the server closes without announcing it, as the bare floor does, is a read error to wrk.
    has_timed_out = re.search('timeout [1-9]', report) is not None
    has_failed = 'Non-2xx' in report
    assert not has_timed_out, report
    assert not has_failed, report
    _, _, after_label = report.rpartition('Requests/sec:')
    return float(after_label.split()[0])


class PendingRequest:
    """A request for a new reading, sent on its own connection; `ended` is the time of the response's last byte."""

    def __init__(self, port: int, path: str = '/') -> None:
        self.connection = socket.create_connection(('127.0.0.1', port))
        fields = 'Host: localhost\r\nConnection: close\r\n'
        self.connection.sendall(f'GET {path} HTTP/1.1\r\n{fields}\r\n'.encode())
        self.ended: float | None = None
        self._received = b''

    @property
    def body(self) -> bytes:
        """What has been received of it."""
        _, _, body = self._received.partition(b'\r\n\r\n')
        return body

    def receive(self) -> None:
        """Take what has arrived."""
        chunk = self.connection.recv(65536)
        if not self._received:
            status_line, _, _ = chunk.partition(b'\r\n')
            assert status_line == b'HTTP/1.1 200 OK', chunk
        self._received += chunk
        body = self.body
        if body and len(body) == self._content_length():
            self.ended = time.monotonic()
        assert chunk or self.ended is not None, f'incomplete response: {self._received!r}'

    def counter(self) -> float:
        """The number of the telegram in the response: the server's JSON and dsmr_parser's name it differently."""
        document = json.loads(self.body)
        item = document.get('electricityUsedTariff1') or document['ELECTRICITY_USED_TARIFF_1']
        value: float = item['value']
        return value

    def _content_length(self) -> int:
        header_section, _, _ = self._received.lower().partition(b'\r\n\r\n')
        _, _, after_name = header_section.partition(b'content-length: ')
        return int(after_name.split(b'\r\n')[0])


def delays(line: Line, port: int, clients: int) -> list[float]:
    """Seconds from a telegram's last byte on the line to the last byte of each response, for requests sent at once."""
    requests = [PendingRequest(port) for _ in range(clients)]
    ended = receive_all(requests)
    return [
        moment - line.ended[request.counter()]
        for request, moment in zip(requests, ended, strict=True)
    ]


def delays_of_many(
    line: Line, server: subprocess.Popen[bytes], port: int, clients: int
) -> list[float]:
    """The same, when all of them wait before the telegram comes: a slow machine takes long to admit them."""
    line.hold()
    requests = [PendingRequest(port) for _ in range(clients)]
    wait_for_threads(server, SERVER_THREADS + clients)
    line.release()
    ended = receive_all(requests)
    return [
        moment - line.ended[request.counter()]
        for request, moment in zip(requests, ended, strict=True)
    ]


def delays_of_bare_floor(floor: subprocess.Popen[bytes], port: int, clients: int) -> list[float]:
    """The same for the bare floor, from the moment at which it is told to send the responses."""
    requests = [PendingRequest(port, '/next') for _ in range(clients)]
    wait_for_threads(floor, FLOOR_THREADS + clients)
    released = time.monotonic()
    assert floor.stdin is not None
    floor.stdin.write(b'\n')
    floor.stdin.flush()
    return [moment - released for moment in receive_all(requests)]


def wait_for_threads(process: subprocess.Popen[bytes], count: int) -> None:
    """Returns when a process has at least so many threads and the last has had time to wait."""
    while threads(process.pid) < count:
        time.sleep(RELEASE_PAUSE)
    time.sleep(RELEASE_PAUSE)


def receive_all(requests: list[PendingRequest]) -> list[float]:
    """Waits for all responses; the time of the last byte of each."""
    with selectors.DefaultSelector() as selector:
        for request in requests:
            selector.register(request.connection, selectors.EVENT_READ, request)
        while selector.get_map():
            for key, _ in selector.select():
                request = key.data
                request.receive()
                if request.ended is not None:
                    selector.unregister(request.connection)
    ended = []
    for request in requests:
        request.connection.close()
        assert request.ended is not None
        ended.append(request.ended)
    return ended


@contextmanager
def streams(port: int, count: int) -> Iterator[None]:
    """So many open streams, whose events are read and dropped."""
    connections = []
    for _ in range(count):
        connection = socket.create_connection(('127.0.0.1', port))
        connection.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
        connections.append(connection)
    stop = threading.Event()

    def drain_until_stop() -> None:
        while not stop.wait(DRAIN_PAUSE):
            for connection in connections:
                drain(connection)

    thread = threading.Thread(target=drain_until_stop, name='drain')
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for connection in connections:
            connection.close()


def telegrams_of_stream(port: int, count: int) -> list[float]:
    """The numbers of so many telegrams in a row, as one stream has them."""
    numbers: list[float] = []
    with closing(http.client.HTTPConnection('127.0.0.1', port, timeout=30)) as connection:
        connection.request('GET', '/stream')
        response = connection.getresponse()
        while len(numbers) < count:
            field, _, value = response.readline().partition(b': ')
            if field == b'data':
                numbers.append(json.loads(value)['electricityUsedTariff1']['value'])
    return numbers


def drain(connection: socket.socket) -> None:
    """Read and drop what has arrived."""
    with suppress(BlockingIOError):
        while connection.recv(65536, socket.MSG_DONTWAIT):
            pass
