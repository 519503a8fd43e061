"""The whole process as it stands in a meter cupboard: faults it survives, seen from outside with the system's tools."""

import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from itertools import cycle
from pathlib import Path

import pytest
import serial
from conftest import (
    ROOT,
    THREADS_AT_REST,
    ClientResponse,
    Server,
    StartServer,
    free_port,
    hush,
    new_meter,
    processes_files,
    sockets,
    threads,
    wait_for,
    wait_together,
)
from faulty_meter import FaultyMeter
from system_packages import program
from telegrams import from_lines

YEAR = 365 * 24 * 3600
TIMEOUT = 3
AT_ONCE = 5.0
"""Seconds, of the 30 that a request may wait."""
WRITING_CALLS = (
    'creat,mkdir,mkdirat,mknod,mknodat,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat,'
    'truncate,ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,fsetxattr'
)


def results(asked: list[Future[ClientResponse]]) -> set[tuple[int, str | None]]:
    """Status and code of answers that come at once."""
    replies = [each.result(AT_ONCE) for each in asked]
    return {(reply.status, reply.json.get('code')) for reply in replies}


def result(server: Server, path: str = '/', **headers: str) -> tuple[int, str | None]:
    reply = server.get(path, headers)
    return reply.status, reply.json.get('code')


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as executor:
        yield executor


# The cable, the line and the port


def test_a_cable_pulled_ten_times(start_server: StartServer, pool: ThreadPoolExecutor) -> None:
    """Whoever waits when the cable is pulled is told at once, the next request after its return has a reading."""
    with new_meter(interval=0.2) as meter:
        server = start_server(meter.port)
        process = server.process.pid
        assert server.get().status == 200
        at_rest = wait_for(lambda: threads(process) == THREADS_AT_REST and processes_files(process))
        for _ in range(10):
            hush(meter)
            asked = wait_together(server, pool, 4)
            meter.unplug()
            assert results(asked) == {(503, 'port_lost')}
            assert result(server) == (503, 'port_missing')
            meter.silent = False
            meter.plug_in()
            assert result(server) == (200, None)
        wait_for(lambda: threads(process) == THREADS_AT_REST and sockets(process) == 1)
        assert processes_files(process) == at_rest
    assert len(server.log.splitlines()) == 20, server.log  # lost and back, ten times


def test_two_servers_never_split_a_telegram(start_server: StartServer, pool: ThreadPoolExecutor) -> None:
    """Two servers polled on one port answer with whole telegrams or 503 port_busy, and both get their turns."""
    telegrams = [from_lines(f'1-0:1.7.0({number:06.3f}*kW)') for number in range(50)]
    with new_meter(interval=0.01, source=cycle(telegrams).__next__) as meter:
        replies = pool.map(
            lambda server: [server.get('/telegram') for _ in range(60)],
            [start_server(meter.port), start_server(meter.port)],
        )
        for of_one in replies:
            served = [reply for reply in of_one if reply.status == 200]
            assert served and all(reply.body in telegrams for reply in served)
            assert {reply.json['code'] for reply in of_one if reply.status != 200} <= {'port_busy'}


def test_another_programs_port(start_server: StartServer, meter: FaultyMeter) -> None:
    """A port that another program has locked is 503 port_busy, and is served when that program lets go."""
    server = start_server(meter.port)
    with serial.Serial(meter.port, exclusive=True):
        assert [result(server), result(server)] == [(503, 'port_busy')] * 2
    assert result(server) == (200, None)


def test_a_line_at_the_wrong_speed(start_server: StartServer) -> None:
    """A meter at 9600 baud on a port set to 115200 is 504 line_garbled at the timeout, once in the log."""
    with new_meter('2.2', interval=0.2) as meter:
        server = start_server(meter.port, meter={'line': '115200 8N1', 'timeout': 1})
        assert [result(server), result(server)] == [(504, 'line_garbled')] * 2
        assert server.stop() == 0
        assert [line.split()[4] for line in server.log.splitlines()] == ['line_garbled:']
        assert result(start_server(meter.port)) == (200, None)


# A port on another machine


class Ser2net:
    """A real ser2net in front of a port, always at the same address, that can be stopped and started again."""

    def __init__(self, folder: Path, port: str, scheme: str) -> None:
        self.address = ('127.0.0.1', free_port())
        self.url = '{}://{}:{}'.format(scheme, *self.address)
        accepter = {'socket': 'tcp', 'rfc2217': 'telnet(rfc2217),tcp'}[scheme]
        self._config = folder / 'ser2net.yaml'
        self._config.write_text(
            'connection: &meter\n  accepter: {},{},{}\n  connector: serialdev,'.format(accepter, *self.address)
            + f'{port},115200n81,local\n  options:\n    max-connections: 4\n'
        )
        self._program = program('ser2net', 'ser2net')
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([self._program, '-n', '-u', '-c', self._config], stderr=subprocess.DEVNULL)
        wait_for(self._accepts)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(10)

    def _accepts(self) -> bool:
        with suppress(OSError), socket.create_connection(self.address):
            return True
        return False


@pytest.fixture(params=['socket', 'rfc2217'])
def ser2net(
    request: pytest.FixtureRequest, meter: FaultyMeter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ser2net]:
    if (
        request.param == 'rfc2217'
    ):  # whose client in pyserial calls what is deprecated, and may leave a socket to Python
        monkeypatch.setenv('PYTHONWARNINGS', 'ignore')
    made = Ser2net(tmp_path, meter.port, request.param)
    yield made
    made.stop()


def test_ser2net_stops_and_starts(
    start_server: StartServer, meter: FaultyMeter, ser2net: Ser2net, pool: ThreadPoolExecutor
) -> None:
    """Behind a ser2net that ends, who waits is told at once, and it is served again when that is back."""
    server = start_server(ser2net.url)
    for _ in range(2):
        assert wait_for(lambda: result(server) == (200, None))
        hush(meter)
        asked = wait_together(server, pool, 3)
        ser2net.stop()
        assert results(asked) == {(503, 'port_lost')}
        assert result(server) == (503, 'port_missing')
        meter.silent = False
        ser2net.start()
    assert wait_for(lambda: result(server) == (200, None))


def test_ser2net_hangs_without_closing(start_server: StartServer, ser2net: Ser2net) -> None:
    """A ser2net that is there and says nothing is 504 meter_silent at the timeout, until it speaks again."""
    server = start_server(ser2net.url, meter={'timeout': 1})
    assert wait_for(lambda: result(server) == (200, None))
    ser2net.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert result(server) == (504, 'meter_silent')
    assert 1 <= time.monotonic() - began < AT_ONCE
    ser2net.process.send_signal(signal.SIGCONT)
    assert wait_for(lambda: result(server) == (200, None))


def test_a_peer_that_resets_leaves_nothing_behind(
    start_server: StartServer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection to the meter's port that is reset is told at once, and its socket is gone with it."""
    monkeypatch.setenv('PYTHONWARNINGS', 'ignore')  # pyserial leaves it to Python to close such a socket
    with socket.create_server(('127.0.0.1', 0)) as listener:

        def reset_all() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                    client.close()

        resetting = pool.submit(reset_all)
        server = start_server('socket://{}:{}'.format(*listener.getsockname()))
        codes = {result(server) for _ in range(8)}
        wait_for(lambda: sockets(server.process.pid) == 1)  # the one that listens
        assert codes <= {(503, 'port_lost'), (503, 'port_missing')}
        listener.shutdown(socket.SHUT_RDWR)
        resetting.result()


def test_a_peer_that_went_away_without_a_word(start_server: StartServer, pool: ThreadPoolExecutor) -> None:
    """A request that waits on a connection gone silent is answered over a new one, within its own time."""
    sent = from_lines('1-0:1.7.0(00.355*kW)')
    with socket.create_server(('127.0.0.1', 0)) as listener:
        server = start_server(f'socket://127.0.0.1:{listener.getsockname()[1]}')
        asked = pool.submit(server.get, '/telegram')
        silent, _ = listener.accept()
        listener.settimeout(20)
        speaking, _ = listener.accept()
        with silent, speaking:
            while not wait([asked], 0.05).done:  # what comes before the reader is ready is discarded
                with suppress(OSError):
                    speaking.sendall(sent)
            assert asked.result().body == sent


# The machine


class Launched(Server):
    """The server started by a command before it, or with other surroundings, at a port that is known beforehand."""

    def __init__(
        self, folder: Path, meter: str, *before: object, port: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.port, self.log_file, config = port, folder / 'log', folder / 'config.ini'
        config.write_text(f'[meter]\nport = {meter}\ntimeout = {TIMEOUT}\n[server]\nhost = 127.0.0.1\nport = {port}\n')
        command = [*map(str, before), sys.executable, str(ROOT / 'dsmr_rest_server.py'), '--config', str(config)]
        with self.log_file.open('w') as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, text=True, env=os.environ | dict(environment or {})
            )

    def serves(self) -> bool:
        with suppress(OSError), socket.create_connection(('127.0.0.1', self.port)):
            return True
        return False


@contextmanager
def launched(
    folder: Path, meter: str, *before: object, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Launched]:
    """A server that answers, and ends behind the block with status 0."""
    server = Launched(folder, meter, *before, port=port or free_port(), environment=environment)
    try:
        wait_for(server.serves)
        yield server
    finally:
        server.process.terminate()
        assert server.process.wait(10) == 0


def test_killed_at_any_moment(meter: FaultyMeter, tmp_path: Path) -> None:
    """After SIGKILL at whatever moment the next start, on the same address, serves; no file was left or changed."""
    port = free_port()
    for tenths in range(1, 10, 2):  # from before it listens to the middle of a telegram
        server = Launched(tmp_path, meter.port, port=port)
        with closing(socket.socket()) as client:
            with pytest.raises(subprocess.TimeoutExpired):
                server.process.wait(tenths / 10)
            with suppress(ConnectionRefusedError):
                client.connect(('127.0.0.1', port))
                client.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
            server.process.kill()
            assert server.process.wait(10) == -signal.SIGKILL
        assert server.log == ''
    with launched(tmp_path, meter.port, port=port) as server:
        assert result(server) == (200, None)
    assert {each.name for each in tmp_path.iterdir()} == {'config.ini', 'log'}


def test_no_file_can_grow(start_server: StartServer) -> None:
    """When no write to a file succeeds any more, not even of the log, it serves on, through a loss of the meter too."""
    with new_meter(interval=0.2) as meter:
        server = start_server(meter.port)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        for _ in range(3):
            assert result(server) == (200, None)
            meter.unplug()
            assert result(server) == (503, 'port_missing')
            meter.plug_in()
        assert result(server) == (200, None)
        assert server.log == ''  # which would have had six lines


# libfaketime 0.9.10 breaks the sleeps of Python 3.11 (its issue 426); this moves the wall clock and nothing else.
CLOCK = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    FILE *file = clock == CLOCK_REALTIME ? fopen(getenv("CLOCK_JUMP"), "r") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) == 1)
            now->tv_sec += seconds;
        fclose(file);
    }
    return result;
}
"""


@pytest.fixture
def jumping_clock(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose system clock is ahead by the seconds in the file CLOCK_JUMP."""
    library = tmp_path / 'clock.so'
    compiler = [program('cc', 'gcc'), '-shared', '-fPIC', '-x', 'c', '-', '-o', str(library)]
    subprocess.run(compiler, input=CLOCK, text=True, check=True)
    return {'LD_PRELOAD': str(library), 'CLOCK_JUMP': str(tmp_path / 'jump')}


@pytest.mark.parametrize('jump', [YEAR, -YEAR])
def test_the_system_clock_jumps(
    meter: FaultyMeter, tmp_path: Path, pool: ThreadPoolExecutor, jumping_clock: dict[str, str], jump: int
) -> None:
    """A year forward or back while requests wait moves neither their timeout nor a reading's age."""
    with launched(tmp_path, meter.port, environment=jumping_clock) as server:
        before = server.get()
        hush(meter)
        began = time.monotonic()
        asked = wait_together(server, pool, 3)
        Path(jumping_clock['CLOCK_JUMP']).write_text(str(jump))
        assert results(asked) == {(504, 'meter_silent')}
        assert TIMEOUT <= time.monotonic() - began < TIMEOUT + AT_ONCE
        kept = server.get(headers={'Cache-Control': 'max-age=3600'})
        assert kept.body == before.body and TIMEOUT <= int(kept.headers['Age']) < TIMEOUT + AT_ONCE
        meter.silent = False
        after = server.get()
        assert after.status == 200 and after.headers['Age'] == '0'
        years = [int(reply.headers['Last-Modified'].split()[3]) for reply in (before, after)]
        assert years[0] != years[1]  # it did jump
        back = wait_for(lambda: re.search(r'back after (\d+) s', server.log))
        assert 0 < int(back[1]) < TIMEOUT + AT_ONCE


def _ask_for_everything(server: Server, meter: FaultyMeter) -> int:
    """Readings, pages and streams, with a meter and without; how many requests."""
    paths = ['/', '/telegram', '/currentElectricityUsage/value', '/metrics', '/health', '/dashboard', '/openapi.json']
    paths += ['/nothing', '/../etc/passwd', '/%2e%2e/%00', '/mbusDevices/99', '/stream', '/favicon.ico']
    asked = 0
    for plugged in (True, False) * 10:
        (meter.plug_in if plugged else meter.unplug)()
        for method in ('GET', 'HEAD', 'OPTIONS', 'PUT'):
            for path in paths:
                if (method, path) == ('GET', '/stream'):
                    _listen(server, events=3 if plugged else 1)
                else:
                    assert server.get(path, {'Cache-Control': 'max-age=1'}, method=method).status in range(200, 505)
                asked += 1
    return asked


def _listen(server: Server, events: int) -> None:
    """Takes part in a stream for some events."""
    with socket.create_connection(('127.0.0.1', server.port)) as client:
        client.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
        received = b''
        while received.count(b'data: ') < events:
            chunk = client.recv(65536)
            assert chunk, received
            received += chunk


def test_serving_writes_to_no_file(tmp_path: Path) -> None:
    """Over a thousand requests of all kinds the system calls open nothing for writing but the serial port."""
    trace = tmp_path / 'trace'
    strace = [program('strace', 'strace'), '-f', '-o', trace, '-e', f'trace=openat,open,openat2,{WRITING_CALLS}']
    strace += ['-D', '--seccomp-bpf']  # as a grandchild, so that signals reach the server; stopping at these calls only
    with new_meter(interval=0.05) as meter:
        with launched(tmp_path, meter.port, *strace, environment={'PYTHONDONTWRITEBYTECODE': '1'}) as server:
            assert _ask_for_everything(server, meter) >= 1000
        calls = wait_for(lambda: (text := trace.read_text()).rstrip().endswith('+++') and text.splitlines())
    calls = [line for line in calls if ' = -1 ' not in line and '(' in line]
    writing = [
        call
        for call in calls
        if re.search('O_WRONLY|O_RDWR|O_CREAT|O_TRUNC', call) or not re.search(r' open\w*\(', call)
    ]
    assert any(meter.port in call for call in writing)
    assert [call for call in writing if meter.port not in call] == []


# Its log, and rude clients


def test_an_hour_of_a_dead_meter_is_a_few_lines(start_server: StartServer, pool: ThreadPoolExecutor) -> None:
    """A meter that is polled 3,600 times while it is silent, or its cable gone, is at most three lines of log."""
    with new_meter(interval=0.2) as meter:
        hush(meter)
        server = start_server(meter.port, meter={'timeout': 0.1})
        codes = set(pool.map(lambda _: server.get().json['code'], range(600)))
        meter.unplug()
        codes |= set(pool.map(lambda _: server.get().json['code'], range(3000)))
        assert {'meter_silent', 'port_missing'} <= codes <= {'meter_silent', 'port_missing', 'port_lost'}
        assert 1 <= len(server.log.splitlines()) <= 3, server.log


def _hang_up(server: Server, request: bytes, until: Callable[[socket.socket], object]) -> None:
    """Sends something, waits for something, and resets the connection."""
    with socket.create_connection(('127.0.0.1', server.port), 10) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        client.sendall(request)
        until(client)


def test_a_client_that_hangs_up_is_no_news(start_server: StartServer, meter: FaultyMeter) -> None:
    """A client may leave before, in and behind a request, while it waits or is being answered: no line of log."""
    server = start_server(meter.port)
    request = b'GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n'
    for sent, until in (
        (b'', lambda _: None),
        (request[:9], lambda _: None),
        (
            request % b'/',
            lambda _: wait_for(lambda: os.path.realpath(meter.port) in processes_files(server.process.pid)),
        ),
        (request % b'/', lambda client: client.recv(1)),
        (request % b'/stream', lambda client: client.recv(1)),
        (request % b'/dashboard' * 50, lambda client: client.recv(1)),
    ):
        for _ in range(5):
            _hang_up(server, sent, until)
    wait_for(lambda: sockets(server.process.pid) == 1)  # the one that listens
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)
    assert result(server) == (200, None)
    assert server.stop() == 0 and server.log == ''


def test_slow_clients_deny_nobody() -> None:
    """While slowhttptest holds several times max_connections with slow headers, others are answered."""
    program('slowhttptest', 'slowhttptest')
    assert_passes('benchmarks.rude_clients', '--mode', 'headers', '--seconds', '5')


def test_a_short_soak() -> None:
    """Over thousands of telegrams, requests and clients, memory, threads and files stay what they were."""
    assert_passes('benchmarks.soak', '--telegrams', '4000', '--requests', '1000', '--load', '1')


def assert_passes(module: str, *options: str) -> None:
    """Runs a benchmark with a verdict."""
    run = subprocess.run(
        [sys.executable, '-m', module, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
