"""What the tests share: real meters on ptys, real servers in processes of their own, and nothing left behind."""

import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faulty_meter import FaultyMeter

ROOT = Path(__file__).parent.parent


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What `condition` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f'{condition} did not come true in {seconds} s'
        time.sleep(0.01)
    return result


_numbers = itertools.count()


def new_meter(version: str = '5.0', **options: Any) -> FaultyMeter:
    """A simulated meter with a port whose name is never used again.

    The names of pseudo-terminals are used again: a reader that still tries a meter that has gone would open another
    test's.
    """
    link = Path(tempfile.gettempdir(), f'dsmr-test-{os.getpid()}-{next(_numbers)}')
    return FaultyMeter(version, link=str(link), **options)


def free_port() -> int:
    """A port of loopback at which nobody listens."""
    with socket.create_server(('127.0.0.1', 0)) as listening:
        return int(listening.getsockname()[1])


def hush(meter: FaultyMeter) -> None:
    """Silence a meter; returns when it sends nothing more, not even the end of a telegram."""
    meter.hush()


def open_files() -> set[str]:
    """This process's open files, as /proc shows them."""
    files = set()
    for each in Path('/proc/self/fd').iterdir():
        try:
            files.add(f'{each.name} {each.readlink()}')
        except FileNotFoundError:  # the listing's own
            continue
    return files


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No thread and no open file outlives a test."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    wait_for(lambda: set(threading.enumerate()) <= threads and open_files() <= files)


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """dsmr_rest_server.py in a process of its own, on a free port of loopback."""

    def __init__(self, folder: Path, *options: str, meter: Mapping[str, object], server: Mapping[str, object]) -> None:
        sections = {'meter': meter, 'server': {'host': '127.0.0.1', 'port': 0} | dict(server)}
        text = '\n'.join(
            f'[{name}]\n' + ''.join(f'{key} = {value}\n' for key, value in section.items())
            for name, section in sections.items()
        )
        (folder / 'config.ini').write_text(text)
        self.log_file = folder / 'log'
        with self.log_file.open('w') as log:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / 'dsmr_rest_server.py', '--config', folder / 'config.ini', *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={'PYTHONWARNINGS': 'error'} | os.environ,
            )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if 'http' not in line:
            self.process.kill()
            self.process.communicate()
        assert 'http' in line, self.log
        self.url = line.split()[-1]
        self.port = int(self.url.rstrip('/').rpartition(':')[2])

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def health(self) -> Any:
        """What /health says now: it accepts any last reading and does not wait for one."""
        return self.get('/health', {'Cache-Control': 'max-age=3600', 'Prefer': 'wait=0'}).json

    @property
    def openings(self) -> int:
        """How often it has opened its port."""
        return int(self.health['counters']['portOpenings'])

    def get(
        self, path: str = '/', headers: Mapping[str, str] | None = None, *, method: str = 'GET', timeout: float = 40
    ) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        try:
            connection.request(method, path, headers=dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def raw(self, data: bytes, timeout: float = 40) -> bytes:
        """All that comes back for some bytes, until the server closes."""
        with socket.create_connection(('127.0.0.1', self.port), timeout) as connection:
            connection.sendall(data)
            received = b''
            while chunk := connection.recv(65536):
                received += chunk
            return received

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        assert self.process.stdout
        self.process.stdout.close()
        return self.process.wait(10)


def processes_files(process: int) -> list[str]:
    """What the file descriptors of a process point at, connections aside."""
    files = []
    for each in Path(f'/proc/{process}/fd').iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            files.append(str(each.readlink()))
    return sorted(file for file in files if not file.startswith('socket:'))


def sockets(process: int) -> int:
    """How many sockets a process has, the one that listens among them."""
    count = 0
    for each in Path(f'/proc/{process}/fd').iterdir():
        with suppress(FileNotFoundError):
            count += str(each.readlink()).startswith('socket:')
    return count


def threads(process: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f'/proc/{process}/task').iterdir()))


THREADS_AT_REST = 2
"""Threads of a server that nobody asks: the main thread, which waits for a signal, and the one that accepts clients."""


def wait_together(server: Server, pool: ThreadPoolExecutor, count: int, path: str = '/') -> list[Future[Reply]]:
    """Requests that all wait for a telegram, from a port that is open."""
    opened = server.openings
    replies = [pool.submit(server.get, path) for _ in range(count)]
    wait_for(lambda: server.health['waitingRequests'] == count and server.openings > opened)
    return replies


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers, each with settings for [meter] and [server], and stops them behind the test with status 0."""
    servers: list[Server] = []

    def start(
        port: str, *options: str, meter: Mapping[str, object] | None = None, server: Mapping[str, object] | None = None
    ) -> Server:
        folder = tmp_path / f'server{len(servers)}'
        folder.mkdir()
        servers.append(Server(folder, *options, meter={'port': port} | dict(meter or {}), server=server or {}))
        return servers[-1]

    yield start
    for each in servers:
        if each.process.poll() is None:
            assert each.stop() == 0, each.log
        assert 'Traceback' not in each.log, each.log


@pytest.fixture
def meter() -> Iterator[FaultyMeter]:
    """A DSMR 5.0 meter that sends five telegrams a second."""
    with new_meter(interval=0.2) as simulated:
        yield simulated
