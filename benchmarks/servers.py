"""Starts the processes that the benchmarks measure, on loopback, and ends each with its block."""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_TIME = 60.0
"""Seconds that a process may take until it listens."""
LISTENING_CHECK = 0.001
"""Seconds between two attempts to connect to a process that starts."""


class Machine:
    """What the processes run on: this machine, or a slower one, on which they run for a share of the time only."""

    share = 1.0


MACHINE = Machine()


def free_port() -> int:
    """A port of loopback on which nothing listens."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return int(listener.getsockname()[1])


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(('127.0.0.1', port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(*arguments: object, port: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process with these arguments. When it has a port, the block begins as soon as it listens there."""
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with _slowed(process):
        try:
            if port is not None:
                _wait_until_listening(process, port)
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def _slowed(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Lets a process run for the share of the time that the machine gives it."""
    if MACHINE.share == 1.0:
        yield
        return
    command = [sys.executable, '-m', 'benchmarks.slow_machine', str(MACHINE.share)]
    # Stopped until the other process is ready to slow it.
    process.send_signal(signal.SIGSTOP)
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as slower:
        assert slower.stdin is not None
        assert slower.stdout is not None
        slower.stdout.readline()
        slower.stdin.write(b'%d\n' % process.pid)
        slower.stdin.flush()
        yield


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIME
    while not is_listening(port):
        assert process.poll() is None, f'{process.args!r} ended'
        assert time.monotonic() < deadline, f'{process.args!r} does not listen on port {port}'
        time.sleep(LISTENING_CHECK)


@contextmanager
def our_server(meter: str, server: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """dsmr_rest_server.py on a port of loopback; `meter` and `server` are the other lines of their sections."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, 'config.ini')
        config.write_text(
            f'[meter]\n{meter}\n[server]\nhost = 127.0.0.1\nport = {port}\n{server}\n'
        )
        with running('dsmr_rest_server.py', '--config', config, port=port) as process:
            yield process


@contextmanager
def roomy_server(device: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """dsmr_rest_server.py with the line given, and with room for more connections and streams than by default."""
    meter = f'port = {device}\nline = 115200 8N1'
    server = 'max_connections = 900\nmax_streams = 100'
    with our_server(meter, server, port) as process:
        yield process
