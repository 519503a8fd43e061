"""What the tests share: real meters on pseudo-terminals, real servers in their own processes, and leftover checks."""

import compileall
import http.client
import itertools
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from dsmr_rest.simulated.meter import PseudoTerminal
from dsmr_rest.simulated.telegrams import telegram
from tests import quick_start
from tests.distribution import LONGEST, ByWhatTheyShare
from tests.faulty_meter import PATIENCE, FaultyMeter, is_locked

ROOT = Path(__file__).parent.parent
SERVER_COMMAND = [sys.executable, str(ROOT / 'dsmr_rest_server.py')]
MISSING_PORT = '/dev/serial/none'
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.1
"""Seconds between two looks at what a test waits for."""
FIRST_PORT = 10_000
"""Of those that tests choose: many of the ports below have a use."""
THREADS_AT_REST = 4
"""Threads of a server without requests: one waits for a signal, one accepts clients, one watches those that wait, and
one writes the log."""


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Returns the result of `condition` as soon as it is true. Fewer `seconds` are a claim about the time it takes.

    The longer it takes, the less often it is looked at: a look can cost a request, and other tests need the processor.
    """
    begin = time.monotonic()
    while True:
        result = condition()
        if result:
            return result
        passed = time.monotonic() - begin
        assert passed < seconds, f'{condition} did not become true within {seconds} s'
        pause = min(max(SHORTEST_PAUSE, passed / 10), LONGEST_PAUSE)
        time.sleep(pause)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keeps what is compiled: the server now, and the tests for the next run.

    With PYTHONDONTWRITEBYTECODE each of hundreds of servers would compile itself anew, and each worker all tests.
    Where the folders cannot be written to, the tests merely take longer.
    """
    sys.dont_write_bytecode = False
    if not hasattr(session.config, 'workerinput'):  # which pytest-xdist gives to its workers
        compileall.compile_dir(ROOT / 'dsmr_rest', quiet=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.relative_to(ROOT).as_posix() not in LONGEST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return ByWhatTheyShare(config, log)


@pytest.fixture(scope='session', autouse=True)
def template() -> Iterator[None]:
    """What the tests' servers are forked from is being loaded while the first tests run."""
    with quick_start.from_template():
        yield


# Meters


_numbers = itertools.count()


def new_meter(version: str = '5.0', **options: Any) -> FaultyMeter:
    """A simulated meter with a port whose name is never used again.

    The system reuses the names of pseudo-terminals: a reader that still tries to open the port of a meter that has
    ended would open the port of another test's meter.
    """
    link = Path(tempfile.gettempdir(), f'dsmr-test-{os.getpid()}-{next(_numbers)}')
    return FaultyMeter(version, link=str(link), **options)


@pytest.fixture
def meter() -> Iterator[FaultyMeter]:
    """A DSMR 5.0 meter that sends five telegrams per second."""
    with new_meter(interval=0.2) as simulated:
        yield simulated


@pytest.fixture
def terminal() -> Iterator[PseudoTerminal]:
    """A line without a meter."""
    with closing(PseudoTerminal()) as line:
        yield line


def hush(meter: FaultyMeter) -> None:
    """Silences a meter; returns when it sends nothing more, not even the end of a telegram."""
    meter.hush()


def is_free(port: str) -> bool:
    """Whether no reader has the serial port locked."""
    return not is_locked(port)


# What a process holds


def open_files() -> set[str]:
    """The open files of this process, as /proc shows them."""
    files = set()
    for descriptor in Path('/proc/self/fd').iterdir():
        try:
            files.add(f'{descriptor.name} {descriptor.readlink()}')
        except FileNotFoundError:  # the descriptor of this listing itself
            continue
    return files


@pytest.fixture(autouse=True)
def nothing_left_over() -> Iterator[None]:
    """No thread and no open file outlives a test."""
    threads_before = set(threading.enumerate())
    files_before = open_files()
    yield
    wait_for(lambda: set(threading.enumerate()) <= threads_before and open_files() <= files_before)


def _targets_of_descriptors(process: int) -> list[str]:
    targets = []
    for descriptor in Path(f'/proc/{process}/fd').iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            targets.append(str(descriptor.readlink()))
    return targets


def processes_files(process: int) -> list[str]:
    """The open files of a process, without its sockets."""
    return sorted(
        target for target in _targets_of_descriptors(process) if not target.startswith('socket:')
    )


def sockets(process: int) -> int:
    """The number of sockets of a process, including the one that listens."""
    return sum(target.startswith('socket:') for target in _targets_of_descriptors(process))


def threads(process: int) -> int:
    """The number of threads of a process."""
    return len(list(Path(f'/proc/{process}/task').iterdir()))


@contextmanager
def running(*command: str, **options: Any) -> Iterator['subprocess.Popen[str]']:
    """A process that is killed at the end of the block, if it is still running."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


# Sockets and responses


def free_port() -> int:
    """A loopback port on which no program listens, and which the kernel gives to no connection (ip(7)).

    One of the others could be given to a client of another test before a program listens there.
    """
    range_of_kernel = Path('/proc/sys/net/ipv4/ip_local_port_range').read_text().split()
    while True:
        port = random.randrange(FIRST_PORT, int(range_of_kernel[0]))
        with suppress(OSError), socket.create_server(('127.0.0.1', port)):
            return port


def accepts_connections(port: int) -> bool:
    """Whether a program listens on this loopback port."""
    with suppress(OSError), socket.create_connection(('127.0.0.1', port), timeout=5):
        return True
    return False


def receive_all(connection: socket.socket) -> bytes:
    """Everything that the peer sends until it closes the connection."""
    received = b''
    while chunk := connection.recv(65536):
        received += chunk
    return received


def receive_refusal(connection: socket.socket) -> bytes:
    """Everything that is sent to a client that is refused at once.

    The server does not wait for the request of such a client: one that arrives later ends the connection with a reset.
    """
    received = b''
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def reset(connection: socket.socket) -> None:
    """Disconnects without the usual end: the peer gets a reset (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.close()


@dataclass(frozen=True)
class ClientResponse:
    """A response as a client received it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def split_responses(data: bytes, methods: str = '') -> list[ClientResponse]:
    """The responses that a connection received; `methods` are those of the requests, GET by default.

    Header names are in title case.
    """
    requested = methods.split()
    responses: list[ClientResponse] = []
    while data:
        header_section, end, data = data.partition(b'\r\n\r\n')
        assert end, 'the header section does not end'
        status_line, *lines = header_section.decode('latin-1').split('\r\n')
        headers = {}
        for line in lines:
            name, value = line.split(': ', 1)
            headers[name.title()] = value
        length = int(headers.get('Content-Length', 0))
        number = len(responses)
        if number < len(requested) and requested[number] == 'HEAD':
            length = 0
        assert len(data) >= length, 'the body is incomplete'
        status = int(status_line.split()[1])
        responses.append(ClientResponse(status, headers, data[:length]))
        data = data[length:]
    return responses


# Servers


def write_config(folder: Path, meter: Mapping[str, object], server: Mapping[str, object]) -> str:
    """Writes config.ini; returns its path. The default of the server's address is any free port of loopback."""
    sections = {'meter': meter, 'server': {'host': '127.0.0.1', 'port': 0, **server}}
    lines = []
    for section, settings in sections.items():
        lines.append(f'[{section}]')
        lines += [f'{key} = {value}' for key, value in settings.items()]
    file = folder / 'config.ini'
    file.write_text('\n'.join(lines) + '\n')
    return str(file)


class Server:
    """dsmr_rest_server.py in its own process. `prefix` is a command that starts it, such as strace."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        meter: Mapping[str, object],
        server: Mapping[str, object],
        prefix: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log_file = folder / 'log'
        command = [
            *prefix,
            *SERVER_COMMAND,
            '--config',
            write_config(folder, meter, server),
            *options,
        ]
        surroundings = {**quick_start.strict_environment(), **(environment or {})}
        self.process: quick_start.Process
        with self.log_file.open('w') as log:
            if prefix or environment:
                self.process = subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=log, text=True, env=surroundings
                )
            else:
                self.process = quick_start.start(
                    command, surroundings, subprocess.PIPE, log.fileno()
                )
        assert self.process.stdout
        first_line = self.process.stdout.readline()
        if 'http' not in first_line:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
        assert 'http' in first_line, self.log
        self.url = first_line.split()[-1]
        self.port = int(self.url.rstrip('/').rpartition(':')[2])
        self.telegram_port = int(str(server.get('telegram_port', 0)))

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def health(self) -> Any:
        """The document of /health now: the request accepts any last reading and does not wait for one."""
        return self.get('/health', {'Cache-Control': 'max-age=3600', 'Prefer': 'wait=0'}).json

    @property
    def openings(self) -> int:
        """How often the server has opened the meter's port."""
        return int(self.health['counters']['portOpenings'])

    @property
    def waiters(self) -> int:
        """How many requests are waiting for a telegram."""
        return int(self.health['waitingRequests'])

    def get(
        self,
        path: str = '/',
        headers: Mapping[str, str] | None = None,
        *,
        method: str = 'GET',
        timeout: float = 2 * PATIENCE,
    ) -> ClientResponse:
        """Sends one request on a new connection."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            response = connection.getresponse()
            return ClientResponse(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        """A new connection to the server."""
        return socket.create_connection(('127.0.0.1', self.port), timeout)

    def raw(self, data: bytes, timeout: float = 2 * PATIENCE) -> bytes:
        """Sends these bytes on a new connection; returns everything that the server sends until it closes."""
        with self.connect(timeout) as connection:
            connection.sendall(data)
            return receive_all(connection)

    def only_response(self, request: str) -> ClientResponse:
        """Sends this text (latin-1); returns the one response after which the server closes the connection."""
        (response,) = split_responses(self.raw(request.encode('latin-1')))
        return response

    def stop(self, seconds: float = PATIENCE) -> int:
        """Sends SIGTERM; returns the exit status, which must be there within this time."""
        self.process.terminate()
        assert self.process.stdout
        self.process.stdout.close()
        return self.process.wait(seconds)


def wait_together(
    server: Server, pool: ThreadPoolExecutor, count: int, path: str = '/'
) -> list[Future[ClientResponse]]:
    """Starts requests; returns when all of them wait for a telegram from a port that was opened for them."""
    # The port may still be open for a reading that somebody has had.
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)
    openings_before = server.openings

    def are_waiting() -> bool:
        # A telegram that was still on its way when they were sent is a response to some.
        for number, response in enumerate(responses):
            if response.done():
                responses[number] = pool.submit(server.get, path)
        health = server.health
        # 503: the connection of the last look still has its place.
        if 'waitingRequests' not in health:
            return False
        openings: int = health['counters']['portOpenings']
        waiters: int = health['waitingRequests']
        return waiters == count and openings > openings_before

    responses = [pool.submit(server.get, path) for _ in range(count)]
    wait_for(are_waiting)
    return responses


# A server that many tests of a module share


TELEGRAM = telegram('5.0', datetime(2024, 6, 21, 12, tzinfo=timezone.utc))
FROM_MEMORY = {'Cache-Control': 'max-age=3600'}
HOST = 'Host: localhost\r\n'
UNKNOWN = '/nothing'
"""A path that needs no reading."""
LAST_REQUEST = f'GET {UNKNOWN} HTTP/1.0\r\n\r\n'
"""A request after whose response the server closes the connection."""


@contextmanager
def serving(folder: Path, meter: FaultyMeter) -> Iterator[Server]:
    """A server of this meter, which must stop with status 0 and without a log line."""
    server = Server(folder, meter={'port': meter.port}, server={})
    try:
        yield server
    finally:
        status = server.stop()
    assert (status, server.log) == (0, '')


@pytest.fixture(scope='module')
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for many tests: its meter sends TELEGRAM ten times per second."""
    with (
        new_meter(interval=0.1, source=lambda: TELEGRAM) as meter,
        serving(tmp_path_factory.mktemp('served'), meter) as server,
    ):
        yield server


def is_problem(response: ClientResponse, status: int, code: str) -> bool:
    """Whether a response is that problem detail, with all of its members (RFC 9457)."""
    assert response.headers['Content-Type'] == 'application/problem+json'
    assert {'title', 'status', 'detail', 'code'} <= response.json.keys()
    assert response.json['status'] == response.status
    return (response.status, response.json['code']) == (status, code)


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with settings for [meter] and [server]; after the test each must stop with status 0."""
    servers: list[Server] = []

    def start(
        port: str,
        *options: str,
        meter: Mapping[str, object] | None = None,
        server: Mapping[str, object] | None = None,
        prefix: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Server:
        folder = tmp_path / f'server{len(servers)}'
        folder.mkdir()
        meter_settings = {'port': port, **(meter or {})}
        started = Server(
            folder,
            *options,
            meter=meter_settings,
            server=server or {},
            prefix=prefix,
            environment=environment,
        )
        servers.append(started)
        return started

    yield start
    # The stack stops the others also when one of them has not ended as it must.
    with ExitStack() as stack:
        for started in servers:
            stack.callback(_stop_without_complaint, started)


def _stop_without_complaint(server: Server) -> None:
    if server.process.poll() is None:
        assert server.stop() == 0, server.log
    assert 'Traceback' not in server.log, server.log


@pytest.fixture(scope='session')
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A self-signed certificate for loopback and its key, as settings."""
    folder = tmp_path_factory.mktemp('certificate')
    files = {'certificate': folder / 'certificate.pem', 'private_key': folder / 'key.pem'}
    command = [
        'openssl',
        'req',
        '-x509',
        '-nodes',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
    ]
    command += ['-days', '2', '-subj', '/CN=meter', '-addext', 'subjectAltName=IP:127.0.0.1']
    command += ['-out', str(files['certificate']), '-keyout', str(files['private_key'])]
    subprocess.run(command, check=True, capture_output=True)
    return files
