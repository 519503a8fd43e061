"""Ages after the machine was suspended: the clock that goes on meanwhile is moved, and nothing else."""

from pathlib import Path

import pytest

from tests.conftest import StartServer, wait_for
from tests.faulty_meter import FaultyMeter
from tests.moved_clock import moved_clock

TWO_HOURS = 7200


@pytest.fixture
def suspended(tmp_path: Path) -> dict[str, str]:
    """The environment of a process on a machine that was suspended for the seconds in the file MOVED_CLOCK."""
    return moved_clock(tmp_path, 'CLOCK_BOOTTIME')


def test_ages_count_the_time_in_which_the_machine_was_suspended(
    start_server: StartServer, meter: FaultyMeter, suspended: dict[str, str]
) -> None:
    """A reading from before a suspend of two hours is two hours old, in every response that states an age."""
    server = start_server(meter.port, environment=suspended)
    server.get()
    meter.hush()
    wait_for(lambda: not meter.has_reader)  # otherwise one more telegram might arrive
    before = server.get(headers={'Cache-Control': f'max-age={TWO_HOURS}'})
    Path(suspended['MOVED_CLOCK']).write_text(str(TWO_HOURS))
    kept = server.get(headers={'Cache-Control': f'max-age={2 * TWO_HOURS}'})
    assert kept.body == before.body
    assert int(kept.headers['Age']) >= TWO_HOURS
    assert server.health['ageOfLastReading'] >= TWO_HOURS
    meter.silent = False
    fresh = server.get(headers={'Cache-Control': f'max-age={TWO_HOURS // 2}'})
    assert fresh.status == 200
    assert int(fresh.headers['Age']) < TWO_HOURS
