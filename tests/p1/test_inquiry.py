"""What is found out when there is no reading, on real ports with real programs that use them."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsmr_rest.p1.inquiry import Inquiry, PortUsers
from dsmr_rest.p1.line import LONGEST_SILENCE, NOTHING_COUNTED, LineCounters, LineState
from dsmr_rest.p1.port_facts import Users
from dsmr_rest.process import clock
from tests.conftest import MISSING_PORT, new_meter

LINE = '115200 8N1'
INCOMPLETE = LineState(LineCounters(received_bytes=500, incomplete_telegrams=1))
HOLDER = """import sys
with open(sys.argv[1], 'rb', buffering=0):
    print(flush=True)
    sys.stdin.read()
"""
"""A program that holds the port open which is its argument."""


def inquiry(port: str, *, is_remote: bool = False) -> Inquiry:
    return Inquiry(port, LONGEST_SILENCE, is_remote=is_remote)


@contextmanager
def held(port: str, folder: Path) -> Iterator[str]:
    """How a program is named that has the port open meanwhile."""
    script = folder / 'holder.py'
    script.write_text(HOLDER)
    with subprocess.Popen(
        [sys.executable, str(script), port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield f'{script} (pid {process.pid})'


def test_who_keeps_the_port_busy_is_named(tmp_path: Path) -> None:
    """Of a port that is locked, the error names the program that has it open."""
    with new_meter() as meter, held(meter.port, tmp_path) as name:
        busy = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        error = inquiry(meter.port).refused(busy)
    assert error.fault.code == 'port_busy'
    assert name in error.detail


def test_a_port_that_is_not_there_is_missing() -> None:
    """The system is asked whether the port exists, so the number of the error alone does not decide."""
    error = inquiry(MISSING_PORT).refused(OSError(errno.EIO, 'an odd reason'))
    assert error.fault.code == 'port_missing'


def test_another_program_that_reads_the_port_is_named(tmp_path: Path) -> None:
    """When bytes arrived and no whole telegram, a program that has the port open too is named."""
    with new_meter() as meter, held(meter.port, tmp_path) as name:
        error = inquiry(meter.port).nothing_arrived(INCOMPLETE, NOTHING_COUNTED, 30, LINE, 0)
    assert error.fault.code == 'telegram_incomplete'
    assert name in error.detail


def test_who_takes_what_arrives_is_named(tmp_path: Path) -> None:
    """Of a port that is still there and yet was lost, the error names the program that has it open, each time."""
    gone = OSError(errno.EIO, os.strerror(errno.EIO))
    with new_meter() as meter, held(meter.port, tmp_path) as name:
        questions = inquiry(meter.port)
        errors = [questions.lost(gone, is_there=True) for _ in range(2)]
    for error in errors:
        assert error.fault.code == 'port_lost'
        assert name in error.detail


def test_nobody_is_looked_for_who_could_explain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at every process is for a port on which something arrived, or which is there and yet was lost."""
    monkeypatch.setattr('dsmr_rest.p1.inquiry.programs_using', pytest.fail)
    questions = inquiry(MISSING_PORT)
    silent = questions.nothing_arrived(LineState(), NOTHING_COUNTED, 30, LINE, 0)
    lost = questions.lost(OSError(errno.EIO, 'gone'), is_there=False)
    assert (silent.fault.code, lost.fault.code) == ('meter_silent', 'port_lost')


def test_no_program_of_this_machine_is_blamed_for_a_port_on_another(tmp_path: Path) -> None:
    """For a port on another machine nobody is looked for here."""
    with new_meter() as meter, held(meter.port, tmp_path) as name:
        questions = inquiry(meter.port, is_remote=True)
        error = questions.nothing_arrived(INCOMPLETE, NOTHING_COUNTED, 30, LINE, 0)
    assert error.fault.code == 'telegram_incomplete'
    assert name not in error.detail


@pytest.mark.parametrize(('kept', 'seen_last'), [(3600.0, 1), (-1.0, 2)], ids=['kept', 'old'])
def test_who_uses_a_port_is_looked_for_now_and_then(
    kept: float, seen_last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look serves all who ask soon after it, and nobody who asks later."""
    looks: list[str] = []

    def look(port: str) -> Users:
        looks.append(port)
        return Users([f'program {len(looks)}'], some_are_hidden=False)

    monkeypatch.setattr('dsmr_rest.p1.inquiry.programs_using', look)
    monkeypatch.setattr('dsmr_rest.p1.inquiry.USERS_KEPT', kept)
    users = PortUsers(MISSING_PORT)
    assert users.names() == ('program 1',)
    assert users.names() == (f'program {seen_last}',)


def test_a_stall_counts_in_the_wait_in_which_it_ended() -> None:
    """A stall of this program explains a wait during which it ended, and none that began later."""
    stalled = LineState(stall_end=clock.now() - 10, stall=20.0)
    questions = inquiry(MISSING_PORT)
    during = questions.nothing_arrived(stalled, NOTHING_COUNTED, 30, LINE, 0)
    after = questions.nothing_arrived(stalled, NOTHING_COUNTED, 5, LINE, 0)
    overslept = questions.nothing_arrived(LineState(), NOTHING_COUNTED, 5, LINE, 20)
    assert during.fault.code == 'server_stalled'
    assert after.fault.code == 'meter_silent'
    assert overslept.fault.code == 'server_stalled'
