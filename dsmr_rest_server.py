#!/usr/bin/env python3
"""Serves the readings of a Dutch (DSMR / P1) smart meter over HTTP, until SIGTERM or SIGINT."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from dsmr_rest.config import Config, ConfigError, load
from dsmr_rest.discovery import Announcer
from dsmr_rest.http_server import HttpServer
from dsmr_rest.meter import Meter
from dsmr_rest.p1_reader import P1Reader
from dsmr_rest.simulated_meter import SimulatedMeter

log = logging.getLogger(__name__)

CONFIG = Path(__file__).with_name('config.ini')
CANNOT_START = 2


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that both commands have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--config', type=Path, metavar='FILE', help='the settings (default: config.ini beside this script)'
    )
    parser.add_argument('--demo', action='store_true', help='read a simulated meter instead of [meter] port')
    return parser


def configuration(options: argparse.Namespace, stack: ExitStack) -> Config:
    """The settings in the file that the options name, or in config.ini beside this script, or else the defaults.

    With --demo the meter is a simulated one, which the stack ends.
    """
    file, credentials = options.config or CONFIG, os.environ.get('CREDENTIALS_DIRECTORY')
    there = options.config or CONFIG.exists()
    config = load(file, Path(credentials) if credentials else None) if there else Config()
    if not options.demo:
        return config
    port = stack.enter_context(SimulatedMeter()).port
    return replace(config, meter=replace(config.meter, port=port, line='auto', specification='auto'))


def main() -> int:
    """The command. Exit status 0 after SIGTERM or SIGINT, 2 with one line on stderr when it cannot start."""
    parser = arguments('Serves the readings of a Dutch (DSMR / P1) smart meter over HTTP.')
    parser.add_argument('--verbose', action='store_true', help='log each request')
    options = parser.parse_args()
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format='%(asctime)s %(message)s')
    _on_signals(_end)
    with ExitStack() as stack:
        try:
            config = configuration(options, stack)
            settings = config.meter
            announcer = Announcer()
            stack.callback(announcer.close)
            meter = Meter(P1Reader(settings), on_first=announcer.device)
            server = HttpServer(config.server, meter, verbose=options.verbose)
        except (ConfigError, OSError) as error:
            print(f'dsmr_rest_server: {error}', file=sys.stderr)
            return CANNOT_START
        stack.callback(server.close)
        for warning in config.warnings:
            log.warning(warning)
        with suppress(OSError):  # a full disk behind nohup.out does not stop it
            print(f'serving {settings.port} at {" ".join(server.urls)}', flush=True)
        if not options.demo:
            announcer.begin(config.server, server.server_address[1])
        if settings.keep_open or announcer.needs_reading:
            meter.open(settings.keep_open or settings.timeout)
        signal.set_wakeup_fd(server.wake)
        _on_signals(server.end)
        server.serve_forever()
        _on_signals(signal.SIG_IGN)  # it is ending already
    return 0


def _on_signals(handler: Callable[..., object] | signal.Handlers) -> None:
    for each in signal.SIGTERM, signal.SIGINT:
        signal.signal(each, handler)


def _end(*_: object) -> NoReturn:
    _on_signals(signal.SIG_IGN)
    sys.exit(0)  # while it starts; what the stack holds is closed on the way


if __name__ == '__main__':
    sys.exit(main())
