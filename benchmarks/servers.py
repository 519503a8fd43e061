"""Starts the processes that the benchmarks measure, on loopback, and ends each with its block."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
START_TIME = 20.0
"""Seconds that a process may take until it listens."""


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
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        if port is not None:
            _wait_until_listening(process, port)
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIME
    while not is_listening(port):
        assert process.poll() is None, f'{process.args!r} ended'
        assert time.monotonic() < deadline, f'{process.args!r} does not listen on port {port}'
        time.sleep(0.01)


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
