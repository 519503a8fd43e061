"""What the server does when threads, descriptors, the terminal or time run out: real processes with real limits."""

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.conftest import (
    MISSING_PORT,
    ROOT,
    SERVER_COMMAND,
    THREADS_AT_REST,
    Server,
    StartServer,
    accepts_connections,
    free_port,
    receive_all,
    receive_refusal,
    running,
    threads,
    wait_for,
    write_config,
)
from tests.faulty_meter import FaultyMeter
from tests.system_packages import program

PATIENCE = 60.0
"""Seconds that a test waits for what needs far less, also on a busy machine."""
TIME_TO_END = 2.0
"""Seconds from a signal to the end, whatever hangs."""
SLACK = 3.0
"""Seconds more that a busy machine may need for it."""
HOST = 'Host: localhost\r\n'
UNKNOWN = '/nothing'
SMALLEST_PIPE = 4096
F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ came with Python 3.10.1


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe into which nothing more fits, until somebody reads it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, SMALLEST_PIPE)
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b'.')
    except BlockingIOError:
        os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def ended(process: 'subprocess.Popen[str]') -> int:
    """The exit status of a process to which a signal was sent; it must end in time."""
    return process.wait(TIME_TO_END + SLACK)


WAITS = 'waits\n'
SAY_WHEN_IT_WAITS = """
from dsmr_rest.process.ending import EndSignal
wait = EndSignal.wait
def say_and_wait(end_signal):
    print('waits', flush=True)
    wait(end_signal)
EndSignal.wait = say_and_wait
"""
"""The second line on stdout says that signals begin the orderly end now; until then they end the process at once."""


def patched_main(patch: str, config: str) -> list[str]:
    """A command that runs the server with a change: `patch` is Python that is run before main()."""
    script = f'import sys\nsys.path.insert(0, {str(ROOT)!r})\nimport dsmr_rest_server\n'
    script += f'{SAY_WHEN_IT_WAITS}\n{patch}\nsys.exit(dsmr_rest_server.main())\n'
    return [sys.executable, '-c', script, '--config', config]


# A log that nobody reads


def test_a_log_that_nobody_reads_delays_nobody(meter: FaultyMeter, tmp_path: Path) -> None:
    """With a log whose reader has stopped, requests are served and SIGTERM ends the server with status 0."""
    port = free_port()
    config = write_config(tmp_path, {'port': meter.port}, {'port': port})
    with (
        full_pipe() as (_, writing),
        running(*SERVER_COMMAND, '--verbose', '--config', config, stderr=writing) as process,
    ):
        wait_for(lambda: accepts_connections(port), PATIENCE)
        for _ in range(3):
            assert get(port, UNKNOWN).startswith(b'HTTP/1.1 404 ')
        process.terminate()
        assert ended(process) == 0


def test_the_last_lines_of_the_log_are_written(tmp_path: Path) -> None:
    """What is logged right before the end is in the log."""
    config = write_config(tmp_path, {'port': MISSING_PORT}, {})
    patch = """
import logging
from dsmr_rest.meter.meter import Meter
Meter.stop = lambda meter: logging.getLogger('test').warning('the last line')
"""
    command = patched_main(patch, config)
    with running(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        assert process.stdout.readline() == WAITS
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
    assert log.endswith(' the last line\n')


# The end


def test_a_terminal_that_takes_nothing_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    """While the line that says where it serves waits for the terminal, it serves, and SIGTERM ends it with status 0."""
    port = free_port()
    config = write_config(tmp_path, {'port': MISSING_PORT}, {'port': port})
    with (
        full_pipe() as (_, writing),
        running(*SERVER_COMMAND, '--config', config, stdout=writing) as process,
    ):
        wait_for(lambda: accepts_connections(port), PATIENCE)
        assert get(port, UNKNOWN).startswith(b'HTTP/1.1 404 ')
        process.terminate()
        assert ended(process) == 0


@pytest.mark.parametrize('module', ['dsmr_rest.config', 'dsmr_parser', 'dsmr_rest.meter.meter'])
def test_a_signal_ends_it_while_it_loads(module: str, tmp_path: Path) -> None:
    """A SIGTERM while its modules are being loaded ends it with status 0."""
    config = write_config(tmp_path, {'port': MISSING_PORT}, {})
    command = [sys.executable, '-X', 'importtime', SERVER_COMMAND[1], '--config', config]
    with running(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        loaded = iter(process.stderr.readline, '')
        assert any(line.split('|')[-1].strip() == module for line in loaded)
        process.terminate()
        _, rest = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert 'Traceback' not in rest


def test_sighup_ends_it_as_sigterm_does(tmp_path: Path) -> None:
    """The end of its terminal ends the server with status 0, unless nohup ignores that signal."""
    config = write_config(tmp_path, {'port': MISSING_PORT}, {})

    def default_action() -> None:  # these tests may themselves run under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with running(
        *SERVER_COMMAND,
        '--config',
        config,
        stdout=subprocess.PIPE,
        preexec_fn=default_action,
    ) as process:
        assert process.stdout
        assert process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        assert ended(process) == 0


HANG_FOR_EVER = 'lambda *_: threading.Event().wait()'
HANG_AFTER_A_THREAD = 'start_a_thread_and_hang'
HOLD_THE_INTERPRETER = 'lambda *_: hold()'


@pytest.mark.parametrize(
    ('part', 'hangs', 'status'),
    [
        ('meter.meter.Meter.stop', HANG_FOR_EVER, 0),
        ('http.listener.Listener.stop_accepting', HANG_FOR_EVER, 0),
        ('discovery.Announcement.close', HANG_FOR_EVER, 0),
        ('meter.meter.Meter.stop', HANG_AFTER_A_THREAD, 0),
        ('meter.meter.Meter.stop', HOLD_THE_INTERPRETER, 1),
    ],
)
def test_it_ends_whatever_hangs(part: str, hangs: str, status: int, tmp_path: Path) -> None:
    """When a part of the orderly end hangs, even with the interpreter, the process ends within 2 s of SIGTERM."""
    # A server that only this machine can reach has no announcement.
    config = write_config(tmp_path, {'port': MISSING_PORT}, {'host': ''})
    module, name, method = part.rsplit('.', 2)
    patch = f"""
import ctypes, signal, threading
def hold():  # in a thread in which signals are blocked
    thread = threading.Thread(target=ctypes.PyDLL(None).sleep, args=(3600,))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    thread.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    thread.join()
def start_a_thread_and_hang(*_):  # as a request does that is under way
    threads.start(threading.Thread(target=str))
    threading.Event().wait()
from dsmr_rest.discovery import Announcement
from dsmr_rest.process import threads
from dsmr_rest.{module} import {name}
Announcement.start = lambda *_: None
{name}.{method} = {hangs}
"""
    with running(*patched_main(patch, config), stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert 'http' in process.stdout.readline()
        assert process.stdout.readline() == WAITS
        process.terminate()
        assert ended(process) == status


def test_no_output_can_be_flushed_at_the_end(tmp_path: Path) -> None:
    """When stdout and stderr cannot be written, the exit status after SIGTERM is 0 all the same."""
    port = free_port()
    config = write_config(tmp_path, {'port': MISSING_PORT}, {'port': port})
    with (
        Path('/dev/full').open('w') as full,
        running(
            *SERVER_COMMAND, '--verbose', '--config', config, stdout=full, stderr=full
        ) as process,
    ):
        wait_for(lambda: accepts_connections(port), PATIENCE)
        process.terminate()
        assert ended(process) == 0


# Threads


def command_of_ordinary_user() -> tuple[str, ...]:
    """What to put before a command for which the limit of processes must hold: root has none."""
    if os.geteuid() != 0:
        return ()
    setpriv = program('setpriv', 'util-linux')
    rights = '+dac_override'  # to read what only root may read: these sources, for example
    return (setpriv, '--reuid=65534', f'--inh-caps={rights}', f'--ambient-caps={rights}')


@contextmanager
def without_new_threads(server: Server) -> Iterator[None]:
    """A block in which the server can start no thread."""
    command = [*command_of_ordinary_user(), program('prlimit', 'util-linux')]
    command += ['--pid', str(server.process.pid)]
    before = str(resource.getrlimit(resource.RLIMIT_NPROC)[0]).replace('-1', 'unlimited')
    subprocess.run([*command, '--nproc=1:'], check=True)
    try:
        yield
    finally:
        subprocess.run([*command, f'--nproc={before}:'], check=True)


@contextmanager
def limited_files(server: Server, count: int) -> Iterator[None]:
    """A block in which the server may have so many file descriptors."""
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)


def test_no_thread_for_a_client(start_server: StartServer) -> None:
    """Clients for whom no thread can be started get 503 and a reason, which is one log line; later ones are served."""
    server = start_server(MISSING_PORT, prefix=command_of_ordinary_user())
    with without_new_threads(server):
        for _ in range(5):
            response = server.get(UNKNOWN)
            assert (response.status, response.json['code']) == (503, 'server_exhausted')
            assert int(response.headers['Retry-After']) > 0
    assert server.get(UNKNOWN).status == 404
    (line,) = server.log.splitlines()
    assert 'no thread can be started' in line


def test_no_thread_to_read_the_meter(start_server: StartServer, meter: FaultyMeter) -> None:
    """A request for which the meter cannot be read gets 503 with the reason; the log has when that begins and ends."""
    server = start_server(meter.port, prefix=command_of_ordinary_user())
    with server.connect(PATIENCE) as client:
        request = f'GET / HTTP/1.1\r\n{HOST}\r\n'.encode()
        client.sendall(f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}\r\n'.encode())
        assert client.recv(65536).startswith(b'HTTP/1.1 404 ')  # so it has its thread
        with without_new_threads(server):
            for _ in range(3):
                client.sendall(request)
                assert b'server_exhausted' in client.recv(65536)
        client.sendall(f'GET / HTTP/1.0\r\n{HOST}\r\n'.encode())
        assert receive_all(client).startswith(b'HTTP/1.1 200 ')
    wait_for(lambda: 'meter back' in server.log)
    lost, back = server.log.splitlines()
    assert 'meter lost: server_exhausted: ' in lost
    assert 'meter back' in back


NEVER_STARTS = """
import threading
from dsmr_rest.process import threads
threads.START_TIME = {start_time}
start = threading.Thread.start
def start_most(thread):
    is_of_a_client = thread.name.startswith('Thread-') and not isinstance(thread, threading.Timer)
    if not is_of_a_client:
        start(thread)
    else:
        threading.Event().wait()
threading.Thread.start = start_most
"""
"""To start a thread for a client never returns, as when the new thread runs out of memory before its first sign."""


def test_a_thread_that_never_starts_ends_the_server(tmp_path: Path) -> None:
    """When the accepting thread hangs because a thread does not start, the server says so and ends with status 1."""
    port = free_port()
    config = write_config(tmp_path, {'port': MISSING_PORT}, {'port': port})
    command = patched_main(NEVER_STARTS.format(start_time=0.5), config)
    with running(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        with socket.create_connection(('127.0.0.1', port)):
            _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    (line,) = log.splitlines()
    assert 'a thread did not start' in line


def test_a_signal_ends_it_while_a_thread_never_starts(tmp_path: Path) -> None:
    """While the accepting thread hangs because a thread does not start, SIGTERM ends the server with status 0."""
    port = free_port()
    config = write_config(tmp_path, {'port': MISSING_PORT}, {'port': port})
    command = patched_main(NEVER_STARTS.format(start_time=3600), config)
    with running(*command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        assert process.stdout.readline() == WAITS
        with socket.create_connection(('127.0.0.1', port)):
            process.terminate()
            assert ended(process) == 0


# File descriptors


def test_silent_clients_make_room_when_descriptors_run_out(start_server: StartServer) -> None:
    """With 40 file descriptors and 100 silent connections, clients are served, or refused with the reason, at once."""
    server = start_server(MISSING_PORT, server={'max_connections': 500})
    with limited_files(server, 40), ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(server.connect(PATIENCE))
        began = time.monotonic()
        outcomes = []
        while 404 not in outcomes:
            response = server.get(UNKNOWN, timeout=PATIENCE)
            outcomes.append(response.status)
            assert response.json['code'] in ('not_found', 'server_exhausted')
        waited = time.monotonic() - began
    assert waited < IDLE_TIME / 2, 'it waited until the silent ones were disconnected anyway'
    assert server.log.count('no file descriptor is left') == 1


def test_a_shortage_of_file_descriptors_passes(start_server: StartServer) -> None:
    """A client for which no file descriptor is left gets 503 with the reason; when there are some, all is as before."""
    server = start_server(MISSING_PORT)
    assert server.get(UNKNOWN).status == 404
    with limited_files(server, 15):
        response = server.get(UNKNOWN)
        assert (response.status, response.json['code']) == (503, 'server_exhausted')
    with limited_files(server, 6), server.connect(PATIENCE) as waiting:
        waiting.sendall(f'GET {UNKNOWN} HTTP/1.0\r\n\r\n'.encode())
        time.sleep(0.3)  # not even accept() has one: that is tried again and again
    assert server.get(UNKNOWN).status == 404


def test_clients_leave_descriptors_for_the_meter(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """However many clients there are, the port of the meter can be opened."""
    server = start_server(meter.port, server={'max_connections': 500})
    with server.connect(PATIENCE) as client, ExitStack() as stack:
        client.sendall(f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}\r\n'.encode())
        assert client.recv(65536).startswith(b'HTTP/1.1 404 ')
        with limited_files(server, 40):
            for _ in range(50):
                stack.enter_context(server.connect(PATIENCE))
            client.sendall(f'GET / HTTP/1.0\r\n{HOST}\r\n'.encode())
            assert receive_all(client).startswith(b'HTTP/1.1 200 ')


IDLE_TIME = 30.0
"""Seconds after which a silent connection is closed in any case."""


def test_no_descriptor_for_the_port(start_server: StartServer, meter: FaultyMeter) -> None:
    """When no descriptor is left to open the port of the meter, the response is 503 with the reason."""
    server = start_server(meter.port)
    descriptors = Path(f'/proc/{server.process.pid}/fd')
    with server.connect(PATIENCE) as client:
        client.sendall(f'GET {UNKNOWN} HTTP/1.1\r\n{HOST}\r\n'.encode())
        assert client.recv(65536).startswith(b'HTTP/1.1 404 ')
        numbers = [int(descriptor.name) for descriptor in descriptors.iterdir()]
        with limited_files(server, max(numbers) + 1):
            client.sendall(f'GET / HTTP/1.1\r\n{HOST}\r\n'.encode())
            assert b'server_exhausted' in client.recv(65536)
        client.sendall(f'GET / HTTP/1.0\r\n{HOST}\r\n'.encode())
        assert receive_all(client).startswith(b'HTTP/1.1 200 ')


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """Everything that a server sends in response to one request."""
    fields = ''.join(f'{name}: {value}\r\n' for name, value in (headers or {}).items())
    with socket.create_connection(('127.0.0.1', port), PATIENCE) as client:
        client.sendall(f'GET {path} HTTP/1.0\r\n{fields}\r\n'.encode())
        return receive_refusal(client)


# Memory


LOADED = """
import sys
sys.path.insert(0, {root!r})
from dsmr_rest.api.dispatch import Api
from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.config import MeterSettings, ServerSettings
from dsmr_rest.http.message import parse_request
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.reading.document import make_reading

meter = Meter(P1Reader(MeterSettings(port='/dev/serial/none')))
api = Api(ServerSettings(**{settings!r}), meter, FollowerPlaces(1))
loaded = set(sys.modules)
request = parse_request(b'GET {path} HTTP/1.0\\r\\nAuthorization: Basic eDp5')
assert api.respond(request).status == {status}
print(*sorted((set(sys.modules) - loaded) & {{'hmac', 'hashlib', '_hashlib'}}))
"""


@pytest.mark.parametrize(
    ('settings', 'path', 'status'),
    [({'user': 'x', 'password': 'y'}, '/', 503), ({'homewizard_api': True}, '/api', 503)],
)
def test_requests_load_nothing_that_the_settings_need(
    settings: dict[str, object], path: str, status: int
) -> None:
    """What the settings need is loaded when the server starts, so that no request has to."""
    script = LOADED.format(root=str(ROOT), settings=settings, path=path, status=status)
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_diagnosis_is_loaded_while_clients_are_served(tmp_path: Path) -> None:
    """What says why there is no reading is loaded after the start, which does not wait for it, before any shortage."""
    config = write_config(tmp_path, {'port': MISSING_PORT}, {})
    patch = """
from dsmr_rest.commands import daemon
def report():
    print('dsmr_rest.p1.inquiry' in sys.modules, flush=True)
say_what_is_served = daemon._say_what_is_served
def report_and_say(*arguments):
    report()
    say_what_is_served(*arguments)
daemon._say_what_is_served = report_and_say
def report_and_wait(end_signal):
    report()
    wait(end_signal)
EndSignal.wait = report_and_wait
"""
    with running(*patched_main(patch, config), stdout=subprocess.PIPE) as process:
        assert process.stdout
        at_start = process.stdout.readline()
        assert 'http' in process.stdout.readline()
        assert (at_start, process.stdout.readline()) == ('False\n', 'True\n')


def test_the_hash_function_is_loaded_before_it_is_needed() -> None:
    """The hash of a HomeWizard device number has been used once when the server starts."""
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from dsmr_rest.api import homewizard
homewizard.load()
print('hashlib' in sys.modules and '_hashlib' in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    assert done.stdout == 'True\n'


# The table in docs/operations.md


def threads_run_out(start_server: StartServer, limits: ExitStack) -> int:
    server = start_server(MISSING_PORT, prefix=command_of_ordinary_user())
    limits.enter_context(without_new_threads(server))
    return server.port


def descriptors_run_out(start_server: StartServer, limits: ExitStack) -> int:
    server = start_server(MISSING_PORT)
    limits.enter_context(limited_files(server, 15))
    return server.port


STACKS = 8
"""More threads than the server has had at the same time."""


def memory_runs_out(start_server: StartServer, limits: ExitStack) -> int:
    """Less than the stack of a thread is left; stacks of threads that have ended are taken by clients before."""
    server = start_server(MISSING_PORT, meter={'keep_open': 0})
    assert server.get('/').status == 503  # all that is loaded after the start is there now
    wait_for(lambda: threads(server.process.pid) == THREADS_AT_REST, PATIENCE)
    pages = int(Path(f'/proc/{server.process.pid}/statm').read_text().split()[0])
    before = resource.prlimit(server.process.pid, resource.RLIMIT_AS)
    few = (pages + 256) * resource.getpagesize()
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (few, before[1]))
    limits.callback(resource.prlimit, server.process.pid, resource.RLIMIT_AS, before)
    for _ in range(STACKS):
        limits.enter_context(server.connect(PATIENCE))
    return server.port


def disk_space_runs_out(start_server: StartServer, limits: ExitStack) -> int:
    server = start_server(MISSING_PORT, '--verbose')
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    limits.callback(resource.prlimit, server.process.pid, resource.RLIMIT_FSIZE, before)
    return server.port


def terminal_stops(start_server: StartServer, limits: ExitStack) -> int:
    """The log is a pipe that nobody reads."""
    _, writing = limits.enter_context(full_pipe())
    shell = (program('sh', 'dash'), '-c', f'exec "$@" 2>/proc/{os.getpid()}/fd/{writing}', 'sh')
    return start_server(MISSING_PORT, '--verbose', prefix=shell).port


SHORTAGES = {
    'threads': threads_run_out,
    'file descriptors': descriptors_run_out,
    'memory': memory_runs_out,
    'disk space': disk_space_runs_out,
    'the terminal, or whoever reads the log': terminal_stops,
}


def documented_shortages() -> dict[str, str]:
    """What a client gets, by what runs out, as the table says."""
    text = (ROOT / 'docs' / 'operations.md').read_text()
    table = text.partition('| what runs out |')[2].partition('\n\n')[0]
    rows = [line.strip('|').split('|') for line in table.splitlines()[2:]]
    return {row[0].strip(): row[1].strip() for row in rows}


def test_the_table_has_every_shortage() -> None:
    """docs/operations.md says what happens in each shortage that is provoked here, and in no other."""
    assert documented_shortages().keys() == SHORTAGES.keys()


@pytest.mark.parametrize('what', SHORTAGES)
def test_the_table_of_shortages_is_true(what: str, start_server: StartServer) -> None:
    """In a shortage a client gets what docs/operations.md says, and afterwards what it asks for."""
    expected = b'HTTP/1.1 404 '
    if documented_shortages()[what].startswith('503'):
        expected = b'HTTP/1.1 503 '
    with ExitStack() as limits:
        port = SHORTAGES[what](start_server, limits)
        response = get(port, UNKNOWN)
        assert response.startswith(expected)
        assert (b'"server_exhausted"' in response) == (b' 503 ' in expected)
    assert get(port, UNKNOWN).startswith(b'HTTP/1.1 404 ')
