"""Ages after the machine was suspended: the clock that goes on meanwhile is moved, and nothing else."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.faulty_meter import FaultyMeter
from tests.system_packages import program

TWO_HOURS = 7200
CLOCK = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    FILE *file = clock == CLOCK_BOOTTIME ? fopen(getenv("SUSPENDED"), "r") : NULL;
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
def suspended(tmp_path: Path) -> dict[str, str]:
    """The environment of a process on a machine that was suspended for the seconds in the file SUSPENDED."""
    library = tmp_path / 'clock.so'
    compiler = [program('cc', 'gcc'), '-shared', '-fPIC', '-x', 'c', '-', '-o', str(library)]
    subprocess.run(compiler, input=CLOCK, text=True, check=True)
    return {'LD_PRELOAD': str(library), 'SUSPENDED': str(tmp_path / 'suspended')}


def test_ages_count_the_time_in_which_the_machine_was_suspended(
    start_server: StartServer, meter: FaultyMeter, suspended: dict[str, str]
) -> None:
    """A reading from before a suspend of two hours is two hours old, in every response that states an age."""
    server = start_server(meter.port, environment=suspended)
    before = server.get()
    Path(suspended['SUSPENDED']).write_text(str(TWO_HOURS))
    kept = server.get(headers={'Cache-Control': f'max-age={2 * TWO_HOURS}'})
    assert kept.body == before.body
    assert int(kept.headers['Age']) >= TWO_HOURS
    assert server.health['ageOfLastReading'] >= TWO_HOURS
    fresh = server.get(headers={'Cache-Control': f'max-age={TWO_HOURS // 2}'})
    assert fresh.status == 200
    assert int(fresh.headers['Age']) < TWO_HOURS
