"""The whole process, as it runs for years in a meter cupboard: the faults it survives, seen with the system's tools."""

import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from itertools import cycle, product
from pathlib import Path

import pytest
import serial

from dsmr_rest.api.routes import ROUTES
from tests.conftest import (
    ROOT,
    SERVER_COMMAND,
    THREADS_AT_REST,
    ClientResponse,
    Server,
    StartServer,
    accepts_connections,
    free_port,
    new_meter,
    processes_files,
    reset,
    running,
    sockets,
    threads,
    wait_for,
    wait_together,
    write_config,
)
from tests.faulty_meter import PATIENCE, FaultyMeter
from tests.moved_clock import moved_clock
from tests.system_packages import program
from tests.telegrams import from_lines

YEAR = 365 * 24 * 3600
TIMEOUT = 3
WRITING_CALLS = (
    'creat,mkdir,mkdirat,mknod,mknodat,unlink,unlinkat,rmdir,rename,renameat,renameat2,link,linkat,symlink,symlinkat,'
    'truncate,ftruncate,fallocate,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,utimensat,setxattr,fsetxattr'
)


def outcome(response: ClientResponse) -> tuple[int, str | None]:
    """The status of a response, and the code of its problem detail, if it is one."""
    return response.status, response.json.get('code')


def outcomes(waiting: list[Future[ClientResponse]]) -> set[tuple[int, str | None]]:
    """The outcomes of requests. One that waited until its timeout for nothing would be meter_silent."""
    return {outcome(future.result(PATIENCE)) for future in waiting}


def result(server: Server) -> tuple[int, str | None]:
    """The outcome of a request for a reading."""
    return outcome(server.get())


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as executor:
        yield executor


# The cable, the line and the port


def test_a_cable_pulled_ten_times(start_server: StartServer, pool: ThreadPoolExecutor) -> None:
    """Ten times: the cable's loss is reported to all waiters at once, after its return there is a reading, and no file,
    socket or thread is left over."""
    with new_meter(interval=0.2) as meter:
        server = start_server(meter.port)
        process = server.process.pid
        assert server.get().status == 200
        at_rest = wait_for(lambda: threads(process) == THREADS_AT_REST and processes_files(process))
        for _ in range(10):
            meter.hush()
            waiting = wait_together(server, pool, 4)
            meter.unplug()
            assert outcomes(waiting) == {(503, 'port_lost')}
            assert result(server) == (503, 'port_missing')
            meter.silent = False
            meter.plug_in()
            assert result(server) == (200, None)
        wait_for(lambda: threads(process) == THREADS_AT_REST and sockets(process) == 1)
        assert processes_files(process) == at_rest
    wait_for(lambda: len(server.log.splitlines()) == 20)  # lost and back, ten times


def test_two_servers_never_split_a_telegram(
    start_server: StartServer, pool: ThreadPoolExecutor
) -> None:
    """Two servers polled on one port return whole telegrams or 503 port_busy, and both get their turns."""
    telegrams = [from_lines(f'1-0:1.7.0({number:06.3f}*kW)') for number in range(50)]
    with new_meter(interval=0.01, source=cycle(telegrams).__next__) as meter:
        servers = [start_server(meter.port), start_server(meter.port)]

        def poll(server: Server) -> list[ClientResponse]:
            responses = [server.get('/telegram') for _ in range(60)]
            deadline = time.monotonic() + PATIENCE
            # All of these may have found the port busy, which takes less time than the other server's 60 telegrams.
            while responses[-1].status != 200 and time.monotonic() < deadline:
                responses.append(server.get('/telegram'))
            return responses

        for responses in pool.map(poll, servers):
            successes = [response for response in responses if response.status == 200]
            failures = [response for response in responses if response.status != 200]
            assert successes
            assert all(response.body in telegrams for response in successes)
            assert {response.json['code'] for response in failures} <= {'port_busy'}


def test_a_port_that_another_program_has(start_server: StartServer, meter: FaultyMeter) -> None:
    """A port that another program has locked is 503 port_busy, and is read when that program closes it."""
    server = start_server(meter.port)
    with serial.Serial(meter.port, exclusive=True):
        assert [result(server), result(server)] == [(503, 'port_busy')] * 2
    assert result(server) == (200, None)


def test_a_line_at_the_wrong_baud_rate(start_server: StartServer) -> None:
    """A meter at 9600 baud on a port set to 115200 is 504 line_garbled at the timeout, with one line of log."""
    with new_meter('2.2', interval=0.2) as meter:
        server = start_server(meter.port, meter={'line': '115200 8N1', 'timeout': TIMEOUT})
        assert [result(server), result(server)] == [(504, 'line_garbled')] * 2
        wait_for(lambda: server.log)
        assert server.stop() == 0
        assert [line.split()[4] for line in server.log.splitlines()] == ['line_garbled:']
        assert result(start_server(meter.port)) == (200, None)


# A port on another machine


class Ser2net:
    """A real ser2net for a port, always at the same address, that can be stopped and started again."""

    def __init__(self, folder: Path, port: str) -> None:
        self.port = free_port()
        self.url = f'socket://127.0.0.1:{self.port}'
        lines = [
            'connection: &meter',
            f'  accepter: tcp,127.0.0.1,{self.port}',
            f'  connector: serialdev,{port},115200n81,local',
            '  options:',
            '    max-connections: 4',
        ]
        self._config = folder / 'ser2net.yaml'
        self._config.write_text('\n'.join(lines) + '\n')
        self._program = program('ser2net', 'ser2net')
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self._program, '-n', '-u', '-c', self._config], stderr=subprocess.DEVNULL
        )
        wait_for(lambda: accepts_connections(self.port))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture
def ser2net(meter: FaultyMeter, tmp_path: Path) -> Iterator[Ser2net]:
    """A ser2net for the meter's port."""
    started = Ser2net(tmp_path, meter.port)
    yield started
    started.stop()


def test_ser2net_stops_and_starts(
    start_server: StartServer, meter: FaultyMeter, ser2net: Ser2net, pool: ThreadPoolExecutor
) -> None:
    """The end of a ser2net is reported to all waiters at once, and there are readings again when it is back."""
    server = start_server(ser2net.url)
    for _ in range(2):
        assert wait_for(lambda: result(server) == (200, None))
        meter.hush()
        waiting = wait_together(server, pool, 3)
        ser2net.stop()
        assert outcomes(waiting) == {(503, 'port_lost')}
        assert result(server) == (503, 'port_missing')
        meter.silent = False
        ser2net.start()
    assert wait_for(lambda: result(server) == (200, None))


def test_ser2net_hangs_without_closing(start_server: StartServer, ser2net: Ser2net) -> None:
    """A ser2net that is connected but sends nothing is 504 meter_silent at the timeout, until it sends again."""
    server = start_server(ser2net.url, meter={'timeout': 1})
    wait_for(lambda: result(server) == (200, None))
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)  # its connection is closed
    ser2net.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert result(server) == (504, 'meter_silent')
    assert 1 <= time.monotonic() - began < PATIENCE
    ser2net.process.send_signal(signal.SIGCONT)
    assert wait_for(lambda: result(server) == (200, None))


def test_a_peer_that_resets_leaves_no_socket_over(
    start_server: StartServer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reset of the connection to the meter's port is reported at once, and its socket is closed."""
    # Pyserial leaves it to Python to close such a socket.
    monkeypatch.setenv('PYTHONWARNINGS', 'ignore')
    with socket.create_server(('127.0.0.1', 0)) as listener:

        def reset_all() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    reset(client)

        resetting = pool.submit(reset_all)
        server = start_server('socket://{}:{}'.format(*listener.getsockname()))
        codes = {result(server) for _ in range(8)}
        wait_for(lambda: sockets(server.process.pid) == 1)  # the one that listens
        assert codes <= {(503, 'port_lost'), (503, 'port_missing')}
        listener.shutdown(socket.SHUT_RDWR)
        resetting.result()


def test_a_peer_that_disappears_silently(
    start_server: StartServer, pool: ThreadPoolExecutor
) -> None:
    """A request that waits on a connection that fell silent gets its reading over a new one, within its own time."""
    sent = from_lines('1-0:1.7.0(00.355*kW)')
    with socket.create_server(('127.0.0.1', 0)) as listener:
        server = start_server(f'socket://127.0.0.1:{listener.getsockname()[1]}')
        waiting = pool.submit(server.get, '/telegram')
        listener.settimeout(PATIENCE)
        silent, _ = listener.accept()
        speaking, _ = listener.accept()
        with silent, speaking:
            while not wait(
                [waiting], 0.05
            ).done:  # what comes before the reader is ready is discarded
                with suppress(OSError):
                    speaking.sendall(sent)
            assert waiting.result().body == sent


# The machine


def test_killed_at_any_moment(
    start_server: StartServer, meter: FaultyMeter, tmp_path: Path
) -> None:
    """After SIGKILL at any moment the next start, on the same address, serves; no file was left over or changed."""
    folder = tmp_path / 'killed'
    folder.mkdir()
    port = free_port()
    config = write_config(folder, {'port': meter.port}, {'port': port})
    written = Path(config).read_text()
    for tenths in range(1, 10, 2):  # from before it listens to the middle of a telegram
        with (
            closing(socket.socket()) as client,
            running(
                *SERVER_COMMAND,
                '--config',
                config,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            ) as process,
        ):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(tenths / 10)
            with suppress(ConnectionRefusedError):
                client.connect(('127.0.0.1', port))
                client.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
            process.kill()
            _, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (-signal.SIGKILL, '')
    server = start_server(meter.port, server={'port': port})
    assert result(server) == (200, None)
    assert [file.name for file in folder.iterdir()] == ['config.ini']
    assert Path(config).read_text() == written


def test_no_file_can_grow(start_server: StartServer) -> None:
    """When no write to a file succeeds, not even to the log, it serves nevertheless, and recovers from losses too."""
    with new_meter(interval=0.2) as meter:
        server = start_server(meter.port)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        for _ in range(3):
            assert result(server) == (200, None)
            wait_for(lambda: not meter.has_reader)  # otherwise it would be lost, not missing
            meter.unplug()
            assert result(server) == (503, 'port_missing')
            meter.plug_in()
        assert result(server) == (200, None)
        assert server.log == ''  # otherwise it would have six lines


@pytest.fixture
def jumping_clock(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose system clock is ahead by the number of seconds in the file MOVED_CLOCK."""
    return moved_clock(tmp_path, 'CLOCK_REALTIME')


@pytest.mark.parametrize('jump', [YEAR, -YEAR])
def test_the_system_clock_jumps(
    start_server: StartServer,
    meter: FaultyMeter,
    pool: ThreadPoolExecutor,
    jumping_clock: dict[str, str],
    jump: int,
) -> None:
    """A year forward or back while requests wait changes neither their timeout nor a reading's age."""
    settings = {'timeout': TIMEOUT, 'keep_open': 1}
    server = start_server(meter.port, meter=settings, environment=jumping_clock)
    server.get()
    wait_for(lambda: server.health['counters']['telegrams'] > 2)  # so the meter's interval is known
    meter.hush()
    began = time.monotonic()
    waiting = wait_together(server, pool, 3)
    before = server.get(headers={'Cache-Control': 'max-age=3600'})  # no telegram is under way now
    Path(jumping_clock['MOVED_CLOCK']).write_text(str(jump))
    assert outcomes(waiting) == {(504, 'meter_silent')}
    assert TIMEOUT <= time.monotonic() - began < TIMEOUT + PATIENCE
    kept = server.get(headers={'Cache-Control': 'max-age=3600'})
    assert kept.body == before.body
    assert TIMEOUT <= int(kept.headers['Age']) < TIMEOUT + PATIENCE
    meter.silent = False
    began = time.monotonic()
    after = server.get()
    assert after.status == 200
    assert int(after.headers['Age']) <= time.monotonic() - began
    years = [int(response.headers['Last-Modified'].split()[3]) for response in (before, after)]
    assert years[0] != years[1]  # the clock did jump
    back = wait_for(lambda: re.search(r'back after (\d+) s', server.log))
    assert 0 < int(back[1]) < TIMEOUT + PATIENCE


def request_everything(server: Server, meter: FaultyMeter) -> int:
    """Requests readings, pages and streams, with a meter and without; returns the number of requests."""
    paths = [
        *ROUTES,
        '/currentElectricityUsage/value',
        '/nothing',
        '/../etc/passwd',
        '/%2e%2e/%00',
        '/mbusDevices/99',
        '/favicon.ico',
    ]
    methods = ['GET', 'HEAD', 'OPTIONS', 'PUT']
    requests = list(product(methods, paths))
    for _ in range(10):
        meter.plug_in()
        for method, path in requests:
            request_once(server, method, path, events=3)
        meter.unplug()
        for method, path in requests:
            request_once(server, method, path, events=1)
    return 20 * len(requests)


def request_once(server: Server, method: str, path: str, events: int) -> None:
    """Sends one request; of a stream it takes so many events."""
    if (method, path) == ('GET', '/stream'):
        follow(server, events)
        return
    response = server.get(path, {'Cache-Control': 'max-age=1'}, method=method)
    assert response.status in range(200, 505)


def follow(server: Server, events: int) -> None:
    """Receives a stream until it has had so many events."""
    with server.connect() as client:
        client.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
        received = b''
        while received.count(b'data: ') < events:
            chunk = client.recv(65536)
            assert chunk, received
            received += chunk


def test_serving_writes_to_no_file(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a thousand requests of all kinds no system call opens anything for writing but the serial port."""
    # Measuring the coverage writes to a file.
    monkeypatch.delenv('COVERAGE_PROCESS_CONFIG', raising=False)
    trace = tmp_path / 'trace'
    strace = [
        program('strace', 'strace'),
        '-f',
        '-o',
        str(trace),
        '-e',
        f'trace=openat,open,openat2,{WRITING_CALLS}',
    ]
    # As a grandchild, so that signals reach the server, and stopping it only at these calls.
    strace += ['-D', '--seccomp-bpf']
    with new_meter(interval=0.05) as meter:
        server = start_server(
            meter.port,
            meter={'timeout': TIMEOUT},
            prefix=tuple(strace),
            environment={'PYTHONDONTWRITEBYTECODE': '1'},
        )
        assert request_everything(server, meter) >= 1000
        assert server.stop() == 0
        wait_for(lambda: trace.read_text().rstrip().endswith('+++'))
    writing = []
    for line in trace.read_text().splitlines():
        is_call = '(' in line and ' = -1 ' not in line
        only_reads = re.search(r' open\w*\(', line) and not re.search(
            'O_WRONLY|O_RDWR|O_CREAT|O_TRUNC', line
        )
        if is_call and not only_reads:
            writing.append(line)
    assert any(meter.port in line for line in writing)
    is_no_file = (meter.port, '"/dev/null"')
    assert [line for line in writing if not any(name in line for name in is_no_file)] == []


# The log, and misbehaving clients


def test_an_hour_of_a_dead_meter_is_a_few_lines(
    start_server: StartServer, pool: ThreadPoolExecutor
) -> None:
    """A meter that is polled 3,600 times while it is silent, or without its cable, has at most three lines of log."""
    with new_meter(interval=0.2) as meter:
        meter.hush()
        server = start_server(meter.port, meter={'timeout': 0.1})
        codes = set(pool.map(lambda _: server.get().json['code'], range(600)))
        meter.unplug()
        codes |= set(pool.map(lambda _: server.get().json['code'], range(3000)))
        assert (
            {'meter_silent', 'port_missing'}
            <= codes
            <= {'meter_silent', 'port_missing', 'port_lost'}
        )
        wait_for(lambda: server.log)
        assert server.stop() == 0
        assert len(server.log.splitlines()) <= 3, server.log


def disconnect(server: Server, request: bytes, until: Callable[[socket.socket], object]) -> None:
    """Sends a request, waits for something, and resets the connection."""
    client = server.connect()
    client.sendall(request)
    until(client)
    reset(client)


def request_for(path: str) -> bytes:
    return f'GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode()


def assert_nothing_left_over(server: Server) -> None:
    """No thread, no socket and no line of log of earlier connections remains, and there are readings."""
    wait_for(lambda: sockets(server.process.pid) == 1)  # the one that listens
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST)
    assert result(server) == (200, None)
    assert server.stop() == 0
    assert server.log == ''


def test_a_client_may_disconnect_at_any_moment(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """A client that disconnects before, in or after a request, or while it receives, is not logged."""
    server = start_server(meter.port)
    for request, until in (
        (b'', lambda _: None),
        (request_for('/')[:9], lambda _: None),
        (request_for('/'), lambda client: client.recv(1)),
        (request_for('/stream'), lambda client: client.recv(1)),
        (request_for('/dashboard') * 50, lambda client: client.recv(1)),
    ):
        for _ in range(5):
            disconnect(server, request, until)
    assert_nothing_left_over(server)


def test_clients_may_disconnect_while_they_wait(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """Clients that disconnect while they wait for a telegram are not logged, and do not disturb the others."""
    meter.hush()
    server = start_server(meter.port)
    clients = [server.connect() for _ in range(5)]
    for client in clients:
        client.sendall(request_for('/'))
    wait_for(lambda: server.waiters == len(clients))
    for client in clients:
        reset(client)
    wait_for(lambda: server.waiters == 0)
    meter.silent = False
    assert_nothing_left_over(server)


def test_slow_clients_deny_nobody() -> None:
    """While slowhttptest holds several times max_connections with slow headers, other clients are served."""
    program('slowhttptest', 'slowhttptest')
    assert_passes('benchmarks.rude_clients', '--mode', 'headers', '--seconds', '5')


def test_a_short_soak() -> None:
    """Over thousands of telegrams, requests and clients, memory, threads and files do not grow."""
    assert_passes('benchmarks.soak', '--telegrams', '4000', '--requests', '1000', '--load', '1')


def test_a_short_rough_life() -> None:
    """While the cable is pulled and plugged in again every client gets telegrams that were sent, and none is old."""
    cycles = ('--cycles', '2', '--plugged', '3', '--unplugged', '1')
    assert_passes('benchmarks.rough_life', *cycles)


def assert_passes(module: str, *options: str) -> None:
    """Runs a benchmark with a verdict."""
    run = subprocess.run(
        [sys.executable, '-m', module, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
