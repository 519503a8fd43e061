"""The end of a process, without the rest of the server: signals, and the timers for what hangs."""

import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT, running
from tests.faulty_meter import PATIENCE

BEGIN = f"""
import signal, sys, threading
sys.path.insert(0, {str(ROOT)!r})
from dsmr_rest.process.ending import *
"""
AT_ONCE = """
end_at_once_on_signals()
print('ready', flush=True)
threading.Event().wait()
"""
WAITS = """
end_signal = EndSignal()
print('ready', end_signal.wait_for(0), flush=True)
end_signal.wait()
print(end_signal.wait_for(3600), end_signal.is_hung, flush=True)
end_now(3)
"""
HANGS = """
last_resort = LastResort()
end_signal = EndSignal()
print('ready', flush=True)
end_signal.wait()
last_resort.arm(3)
threading.Event().wait()
"""


def python(script: str, ignored: str = '') -> list[str]:
    """A command that runs a script; `ignored` is the name of a signal that it is started with as ignored."""
    command = [sys.executable, '-c', BEGIN + script]
    if ignored:
        return ['sh', '-c', f'trap "" {ignored}; exec "$@"', 'sh', *command]
    return command


def default_action() -> None:
    """These tests may themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def end_of(command: list[str], number: signal.Signals) -> tuple[int, list[str]]:
    """The exit status and the lines of a process that got a signal after its first line."""
    with running(*command, stdout=subprocess.PIPE, preexec_fn=default_action) as process:
        assert process.stdout
        ready = process.stdout.readline()
        process.send_signal(number)
        rest, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, [*ready.splitlines(), *rest.splitlines()]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_before_it_serves_a_signal_ends_it_at_once(number: signal.Signals) -> None:
    """Nothing has to be put in order yet, so the process ends with status 0."""
    assert end_of(python(AT_ONCE), number) == (0, ['ready'])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_signal_that_ends_it_is_waited_for(number: signal.Signals) -> None:
    """The wait ends with the signal, of which every later wait knows at once; the status is the caller's."""
    assert end_of(python(WAITS), number) == (3, ['ready False', 'True False'])


def test_the_signal_of_a_thread_that_never_started_is_told_apart() -> None:
    """SIGALRM means that a thread hangs in being started."""
    assert end_of(python(WAITS), signal.SIGALRM) == (3, ['ready False', 'True True'])


@pytest.mark.parametrize(('ignored', 'ends_it'), [('', True), ('HUP', False)])
def test_under_nohup_the_end_of_the_terminal_is_no_end(ignored: str, ends_it: bool) -> None:
    """SIGHUP is one of the signals that end the process, unless it was started with that signal ignored."""
    command = python('print(signal.SIGHUP in END_SIGNALS)', ignored)
    with running(*command, stdout=subprocess.PIPE, preexec_fn=default_action) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert output == f'{ends_it}\n'


def test_an_end_that_hangs_is_ended() -> None:
    """When the orderly end does not come to its end, the process ends with the status that was meant."""
    assert end_of(python(HANGS), signal.SIGTERM) == (3, ['ready'])
