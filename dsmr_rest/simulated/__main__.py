"""The simulated meter as a command: python -m dsmr_rest.simulated."""

import argparse
import signal
import sys
from collections.abc import Sequence

from dsmr_rest.simulated.house import DAY
from dsmr_rest.simulated.meter import SimulatedMeter
from dsmr_rest.simulated.telegrams import VERSIONS


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit status 0 after SIGINT or SIGTERM, 2 when an option is wrong."""
    description = 'A smart meter on a pseudo-terminal, to try things with.'
    parser = argparse.ArgumentParser('python -m dsmr_rest.simulated', description=description)
    parser.add_argument(
        '--version',
        choices=VERSIONS,
        default='5.0',
        help='what it sends: a version of DSMR, or a Belgian meter (default: 5.0)',
    )
    parser.add_argument(
        '--interval',
        type=float,
        metavar='SECONDS',
        help='the time between two telegrams; 0 means no pause (default: as real meters do)',
    )
    options = parser.parse_args(arguments)
    if options.interval is not None and not 0 <= options.interval <= DAY.total_seconds():
        parser.error('argument --interval: must be from 0 to a day')
    # Blocked before the meter's thread starts, so that the thread does not receive them instead of sigwait.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with SimulatedMeter(options.version, interval=options.interval) as meter:
        sys.stdout.write(f'port = {meter.port}\n')
        sys.stdout.flush()
        sys.stderr.write('The meter talks there until Ctrl-C or SIGTERM stops it.\n')
        signal.sigwait(ends)
    return 0


if __name__ == '__main__':
    sys.exit(main())
