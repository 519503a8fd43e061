"""The clock of ages: it goes on while the machine is suspended, which time.monotonic() on Linux does not.

When a telegram arrived, and so how old a reading is, is a time of this clock: otherwise a reading from before a suspend
of hours would seem to be seconds old. Deadlines, and the pauses between two attempts, stay on time.monotonic(), which
is the clock that the system's own timeouts go by: a machine that resumes must not find all of them over.
"""

import time

_CLOCK = getattr(time, 'CLOCK_BOOTTIME', time.CLOCK_MONOTONIC)  # Linux has the former


def now() -> float:
    """Seconds since some moment in the past, also those during which the machine was suspended."""
    return time.clock_gettime(_CLOCK)
