"""A process that is forked from the template does what a process that people start does."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests import quick_start
from tests.conftest import (
    MISSING_PORT,
    ROOT,
    SERVER_COMMAND,
    Server,
    StartServer,
    processes_files,
    sockets,
    wait_for,
)
from tests.faulty_meter import PATIENCE

TAKE_ONE_READING = [sys.executable, str(ROOT / 'take_one_reading.py')]


def has_one_socket(server: Server) -> bool:
    """Whether the server has only the one that listens: at the start it tries the kernel's timeouts with others."""
    return sockets(server.process.pid) == 1


@pytest.mark.parametrize(
    'command',
    [
        [*SERVER_COMMAND, '--version'],
        [*SERVER_COMMAND, '--check', '--config', 'settings.ini'],
        [*SERVER_COMMAND, '--no-such-option'],
        [*TAKE_ONE_READING, '--help'],
        [*TAKE_ONE_READING, '--config', 'settings.ini'],
    ],
)
def test_it_ends_as_any_other(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit status, its stdout and its stderr are those of the same command that Python was started for."""
    (tmp_path / 'settings.ini').write_text('[meter]\nport = ./nothing\n')
    monkeypatch.chdir(tmp_path)
    environment = quick_start.strict_environment()
    expected = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    ended = quick_start.finished(command, environment, PATIENCE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )


def test_it_is_a_process_of_its_own(start_server: StartServer) -> None:
    """It has the files and sockets that any other has, and a signal ends it alone: its number is the status."""
    first, second = start_server(MISSING_PORT), start_server(MISSING_PORT)
    of_python = start_server(MISSING_PORT, environment={'REALLY': 'started'})
    for server in (first, second, of_python):
        wait_for(partial(has_one_socket, server))
    expected = len(processes_files(of_python.process.pid))
    assert len(processes_files(first.process.pid)) == expected
    assert len(processes_files(second.process.pid)) == expected
    first.process.send_signal(signal.SIGKILL)
    assert first.process.wait(PATIENCE) == -signal.SIGKILL
    assert first.process.poll() == -signal.SIGKILL
    assert second.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        second.process.wait(0)
    assert first.process.stdout
    first.process.stdout.close()
