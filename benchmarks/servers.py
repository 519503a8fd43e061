"""Starts the processes that the benchmarks measure, on loopback, and ends each with its block."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.slow_machine import quota

ROOT = Path(__file__).parent.parent
START_TIME = 60.0
"""Seconds that a process may take until it listens."""
LISTENING_CHECK = 0.001
"""Seconds between two attempts to connect to a process that starts."""


class Machine:
    """What the processes run on: this machine, or a slower one, on which each has a share of one processor only."""

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
def running(
    *arguments: object, port: int | None = None, prefix: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process with these arguments. When it has a port, the block begins as soon as it listens there.

    `prefix` is a command that starts it, such as valgrind.
    """
    command = [*prefix, sys.executable, *map(str, arguments)]
    with _place_of_machine() as cgroup, _started(command, cgroup) as process:
        if port is not None:
            _wait_until_listening(process, port)
        yield process


@contextmanager
def _place_of_machine() -> Iterator[Path | None]:
    """The cgroup that a process has to be in, if the machine is slower than this one."""
    if MACHINE.share == 1.0:
        yield None
        return
    with quota(MACHINE.share) as cgroup:
        yield cgroup


@contextmanager
def _started(command: list[str], cgroup: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """A process in this cgroup from its first instruction on. It is killed with the end of the block."""
    if cgroup is not None:
        enter = 'echo $$ >"$0" && exec "$@"'
        command = ['sh', '-c', enter, str(cgroup / 'cgroup.procs'), *command]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIME
    while not is_listening(port):
        assert process.poll() is None, f'{process.args!r} ended'
        assert time.monotonic() < deadline, f'{process.args!r} does not listen on port {port}'
        time.sleep(LISTENING_CHECK)


@contextmanager
def our_server(
    meter: str, server: str, port: int, *, prefix: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """dsmr_rest_server.py on a port of loopback; `meter` and `server` are the other lines of their sections."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, 'config.ini')
        config.write_text(
            f'[meter]\n{meter}\n[server]\nhost = 127.0.0.1\nport = {port}\n{server}\n'
        )
        arguments = ('dsmr_rest_server.py', '--config', config)
        with running(*arguments, port=port, prefix=prefix) as process:
            yield process


@contextmanager
def roomy_server(device: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """dsmr_rest_server.py with the line given, and with room for more connections and streams than by default."""
    meter = f'port = {device}\nline = 115200 8N1'
    server = 'max_connections = 900\nmax_streams = 100'
    with our_server(meter, server, port) as process:
        yield process
