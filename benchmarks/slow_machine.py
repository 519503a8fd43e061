"""A slow machine: lets a process run for a share of the time only, as on a smaller computer.

python -m benchmarks.slow_machine SHARE     then a line with a process ID on stdin

Every PERIOD the process is stopped and continued by signals, so that it runs for SHARE of the time, such as 0.1. This
program ends with the process. It is a process of its own, so that it keeps time whatever the benchmark does.
"""

import os
import signal
import sys
import time

PERIOD = 0.01
"""Seconds."""


def main() -> None:
    share = float(sys.argv[1])
    print('ready', flush=True)
    process_id = int(sys.stdin.readline())
    period_ends = time.monotonic()
    while True:
        period_ends += PERIOD
        try:
            os.kill(process_id, signal.SIGCONT)
            time.sleep(PERIOD * share)
            os.kill(process_id, signal.SIGSTOP)
        except ProcessLookupError:
            return
        time.sleep(max(0.0, period_ends - time.monotonic()))


if __name__ == '__main__':
    main()
