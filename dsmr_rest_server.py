#!/usr/bin/env python3
"""Serves the readings of a Dutch (DSMR / P1) smart meter over HTTP, until SIGTERM, SIGINT or SIGHUP.

What it does is in dsmr_rest/commands/daemon.py. To load that takes a while, in which a signal must end it as well.
"""

import sys

from dsmr_rest.commands.requirements import report_missing_package
from dsmr_rest.process.ending import end_at_once_on_signals


def main() -> int:
    """The command. Exit status 0 after a signal or --check, 2 with one line on stderr when it cannot start.

    The status is 1 when the server ends by itself, because it could not go on: systemd starts it again.
    """
    end_at_once_on_signals()
    try:
        from dsmr_rest.commands.daemon import serve  # noqa: PLC0415 see above
    except ModuleNotFoundError as error:
        return report_missing_package('dsmr_rest_server', error)
    return serve()


if __name__ == '__main__':
    sys.exit(main())
