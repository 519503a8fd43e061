#!/usr/bin/env python3
"""Serves the readings of a Dutch (DSMR / P1) smart meter over HTTP, until SIGTERM or SIGINT.

Both signals are blocked in every thread, from the first line of main() on, and the main thread does nothing but wait
for one of them: so a signal, or any number of them, can neither interrupt the start nor the end.
"""

import argparse
import logging
import os
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from dsmr_rest.api import Api
from dsmr_rest.config import Config, ConfigError, load
from dsmr_rest.discovery import Announcement
from dsmr_rest.http_server import HttpServer
from dsmr_rest.meter import Meter
from dsmr_rest.p1_reader import P1Reader
from dsmr_rest.places import Places
from dsmr_rest.printable import PrintableFormatter
from dsmr_rest.reading import Reading
from dsmr_rest.telegram_server import TelegramServer

log = logging.getLogger(__name__)

DEFAULT_CONFIG = Path(__file__).with_name('config.ini')
CANNOT_START = 2
"""Exit status."""
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LOOK_PAUSE = 1.0
"""Seconds between two looks for the first reading, which the announcement may have to wait for."""


def common_arguments(description: str) -> argparse.ArgumentParser:
    """A parser of the options that both commands have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--config',
        type=Path,
        metavar='FILE',
        help='the settings (default: config.ini beside this script)',
    )
    parser.add_argument(
        '--demo', action='store_true', help='read a simulated meter instead of [meter] port'
    )
    return parser


def configuration(options: argparse.Namespace, stack: ExitStack) -> Config:
    """The settings from the file that the options name, or from config.ini beside this script, or else the defaults.

    With --demo the meter is a simulated one, which the stack ends. Raises ConfigError, and OSError when a simulated
    meter cannot be started.
    """
    path = options.config or DEFAULT_CONFIG
    credentials: Path | None = None
    if 'CREDENTIALS_DIRECTORY' in os.environ:  # systemd.exec(5)
        credentials = Path(os.environ['CREDENTIALS_DIRECTORY'])
    config = Config()
    if options.config or path.exists():
        config = load(path, credentials)
    if not options.demo:
        return config
    from dsmr_rest.simulated_meter import SimulatedMeter  # noqa: PLC0415 only --demo needs it

    simulated_meter = stack.enter_context(SimulatedMeter())
    meter = replace(config.meter, port=simulated_meter.port, line='auto', specification='auto')
    return replace(config, meter=meter)


def main() -> int:
    """The command. Exit status 0 after SIGTERM or SIGINT, 2 with one line on stderr when it cannot start."""
    signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    parser = common_arguments('Serves the readings of a Dutch (DSMR / P1) smart meter over HTTP.')
    parser.add_argument('--verbose', action='store_true', help='log each request')
    options = parser.parse_args()
    _log_to_stderr(verbose=options.verbose)
    with ExitStack() as stack:
        try:
            config = configuration(options, stack)
            meter, server = _start(config, stack, verbose=options.verbose)
        except (ConfigError, OSError) as error:
            print(f'dsmr_rest_server: {error}', file=sys.stderr)
            return CANNOT_START
        for warning in config.warnings:
            log.warning(warning)
        with suppress(OSError):  # stdout may be nohup.out on a full disk
            print(f'serving {config.meter.port} at {" ".join(server.urls)}', flush=True)
        if config.meter.keep_open:
            meter.open(config.meter.keep_open)
        announcement = Announcement(config.server, server.port)
        stack.callback(announcement.close)
        is_announced = announcement.is_wanted and not options.demo
        if is_announced:
            _announce_until_signal(announcement, meter)
        else:
            signal.sigwait(END_SIGNALS)
    return 0


def _log_to_stderr(*, verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter('%(asctime)s %(message)s'))
    level = logging.WARNING
    if verbose:
        level = logging.INFO
    logging.basicConfig(level=level, handlers=[handler])


def _start(config: Config, stack: ExitStack, *, verbose: bool) -> tuple[Meter, HttpServer]:
    """Starts everything that serves readings. Raises ConfigError.

    The stack ends the meter first, so that all requests that wait for it get a response, and then the servers.
    """
    settings = config.server
    meter = Meter(P1Reader(config.meter))
    # One connection is left for requests.
    places = Places(min(settings.max_streams, settings.max_connections - 1))
    server = HttpServer(settings, Api(settings, meter, places), verbose=verbose)
    stack.callback(server.close)
    if settings.telegram_port is not None:
        telegram_server = TelegramServer(settings.host, settings.telegram_port, meter, places)
        stack.callback(telegram_server.stop_accepting)
        telegram_server.start()
    stack.callback(meter.stop)
    server.start()
    return meter, server


def _announce_until_signal(announcement: Announcement, meter: Meter) -> None:
    """Announces the server, and waits for a signal. Returns when there is one, also before there is a reading."""
    first_reading: Reading | None = None
    if announcement.describes_meter:
        meter.open(meter.reader.settings.timeout)
        while first_reading is None:
            if signal.sigtimedwait(END_SIGNALS, LOOK_PAUSE) is not None:
                return
            first_reading = meter.latest
    announcement.start(first_reading)
    signal.sigwait(END_SIGNALS)


if __name__ == '__main__':
    sys.exit(main())
