#!/usr/bin/env python3
"""Serves the readings of a Dutch (DSMR / P1) smart meter over HTTP, until SIGTERM or SIGINT."""

import argparse
import logging
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from dsmr_rest.config import Config, ConfigError, load
from dsmr_rest.http_server import HttpServer
from dsmr_rest.meter import Meter
from dsmr_rest.p1_reader import P1Reader
from dsmr_rest.simulated_meter import SimulatedMeter

CONFIG = Path(__file__).with_name('config.ini')
USAGE_ERROR = 2


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that both commands have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        '--config', type=Path, metavar='FILE', help='the settings; default: config.ini beside this script'
    )
    parser.add_argument('--demo', action='store_true', help='read a simulated meter instead of [meter] port')
    return parser


def configuration(file: Path | None) -> Config:
    """The settings in a file, by default config.ini beside this script, and the defaults where there is none."""
    return load(file or CONFIG) if file or CONFIG.exists() else Config()


def main() -> int:
    """The command. Exit status 0 after SIGTERM or SIGINT, 2 with one line on stderr when it cannot start."""
    parser = arguments('Serves the readings of a Dutch (DSMR / P1) smart meter over HTTP.')
    parser.add_argument('--verbose', action='store_true', help='log each request')
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format='%(asctime)s %(message)s')
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _end)
    with ExitStack() as stack:
        try:
            config = configuration(options.config)
            settings = config.meter
            if options.demo:
                simulated = stack.enter_context(SimulatedMeter())
                settings = replace(settings, port=simulated.port, line='auto', specification='auto')
            server = HttpServer(config.server, Meter(P1Reader(settings)), verbose=options.verbose)
        except (ConfigError, OSError) as error:
            print(f'dsmr_rest_server: {error}', file=sys.stderr)
            return USAGE_ERROR
        stack.callback(server.close)
        print(f'serving {settings.port} at {" ".join(server.urls)}', flush=True)
        server.serve_forever()
    return 0


def _end(*_: object) -> NoReturn:
    sys.exit(0)  # out of serve_forever(), whose end closes all


if __name__ == '__main__':
    sys.exit(main())
