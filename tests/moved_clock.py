"""A clock of the system that is ahead in one process: for what happens after a jump of the time, or a suspend.

libfaketime 0.9.10 breaks the sleeps of Python 3.11 (its issue 426); this moves one clock and nothing else.
"""

import subprocess
from pathlib import Path

from tests.system_packages import program

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, clock, now);
    FILE *file = clock == MOVED_CLOCK ? fopen(getenv("MOVED_CLOCK"), "r") : NULL;
    long seconds = 0;
    if (file) {
        if (fscanf(file, "%ld", &seconds) == 1)
            now->tv_sec += seconds;
        fclose(file);
    }
    return result;
}
"""


def moved_clock(folder: Path, clock: str) -> dict[str, str]:
    """The environment of a process in which a clock, such as CLOCK_REALTIME, is ahead.

    It is so by the number of seconds in the file that MOVED_CLOCK names, while that file is there.
    """
    library = folder / 'clock.so'
    compiler = [program('cc', 'gcc'), '-shared', '-fPIC', f'-DMOVED_CLOCK={clock}', '-x', 'c', '-']
    subprocess.run([*compiler, '-o', str(library)], input=SOURCE, text=True, check=True)
    return {'LD_PRELOAD': str(library), 'MOVED_CLOCK': str(folder / 'moved')}
