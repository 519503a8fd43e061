"""The daemon: from the settings to a server that runs until a signal ends it.

It puts the parts together, in the order in which they start, and takes them apart again. How they work is theirs.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

from dsmr_rest.api.dispatch import Api
from dsmr_rest.api.places import FollowerPlaces
from dsmr_rest.commands.options import (
    common_arguments,
    configuration,
    settings_file,
    with_simulated_meter,
)
from dsmr_rest.config import Config, ConfigError, ServerSettings
from dsmr_rest.http.connection import kernel_keeps_timeouts
from dsmr_rest.http.listener import Listener, refuse_unusable_address
from dsmr_rest.http.server import HttpServer, server_urls, tls_context
from dsmr_rest.meter.meter import Meter
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.process.ending import EndSignal, LastResort, end_now, signals_blocked
from dsmr_rest.process.log_output import log_to_stderr
from dsmr_rest.process.threads import NoThreadError
from dsmr_rest.reading.document import Reading

log = logging.getLogger(__name__)

CANNOT_START = 2
CANNOT_GO_ON = 1
"""Exit statuses."""
LOOK_PAUSE = 1.0
"""Seconds between two looks for the first reading, which the announcement may have to wait for."""
LOG_TIME = 0.3
"""Seconds at the end for the last lines of the log to be taken."""


def serve() -> int:
    """Serves until a signal ends it, and then ends the process. Returns the exit status only if it did not serve."""
    options = _options()
    with ExitStack() as stack:
        try:
            config = configuration(options)
            if options.check:
                return _check(config, options)
            last_resort = LastResort()
            with signals_blocked():
                finish_log = log_to_stderr(verbose=options.verbose)
                if options.demo:
                    config = with_simulated_meter(config, options.demo, stack)
            meter, server = _start(config, stack, verbose=options.verbose)
        except (ConfigError, OSError, NoThreadError) as error:
            print(f'dsmr_rest_server: {error}', file=sys.stderr)
            return CANNOT_START
        _say_what_is_served(config, server, options.demo)
        # Not before, because no client has to wait for it; but now, because later there may be no memory for it.
        importlib.import_module('dsmr_rest.p1.inquiry')
        end_signal = EndSignal()
        if config.meter.keep_open:
            meter.open(config.meter.keep_open)
        if not options.demo and not config.server.is_local:
            _announce(config.server, server.port, meter, end_signal, stack)
        end_signal.wait()
        if end_signal.is_hung:
            _give_up(last_resort, finish_log)
        last_resort.arm(0)
    finish_log(LOG_TIME)
    return end_now(0)


def _give_up(last_resort: LastResort, finish_log: Callable[[float], None]) -> NoReturn:
    """Ends the process after a thread has hung in being started: what it holds, the orderly end would wait for."""
    last_resort.arm(CANNOT_GO_ON)
    log.error('a thread did not start, and what started it waits for ever: the server ends')
    finish_log(LOG_TIME)
    end_now(CANNOT_GO_ON)


def _say_what_is_served(config: Config, server: HttpServer, demo_version: str | None) -> None:
    for warning in config.warnings:
        log.warning(warning)
    with suppress(OSError):  # stdout may be nohup.out on a full disk
        print(*_served(config, server, demo_version), sep='\n', flush=True)


def _options() -> argparse.Namespace:
    parser = common_arguments('Serves the readings of a Dutch (DSMR / P1) smart meter over HTTP.')
    parser.add_argument('--verbose', action='store_true', help='log each request')
    parser.add_argument(
        '--check',
        action='store_true',
        help='check the settings, say what the server would do with them, and end',
    )
    return parser.parse_args()


def _check(config: Config, options: argparse.Namespace) -> int:
    """Prints what the server would do with these settings. Raises ConfigError for what would keep it from starting.

    Returns the exit status, which is CANNOT_START also for a port of the meter that is no serial port: the server would
    start, and wait for ever.

    Opens neither the port of the meter nor a TCP port, so that it disturbs no server that is running meanwhile.
    """
    from dsmr_rest.commands.summary import summary  # noqa: PLC0415 only --check needs it
    from dsmr_rest.p1.port_facts import what_else_it_is  # noqa: PLC0415 as above

    settings = config.server
    tls_context(settings)
    refuse_unusable_address(settings.host, settings.port, 'port')
    if settings.telegram_port is not None:
        refuse_unusable_address(settings.host, settings.telegram_port, 'telegram_port')
    port = config.meter.port
    not_a_port = ''
    if not options.demo:
        not_a_port = what_else_it_is(port)
    lines = summary(
        config,
        file=settings_file(options),
        urls=server_urls(settings, settings.port),
        port_exists=Path(port).exists(),
        not_a_port=not_a_port,
        demo_version=options.demo,
        keeps_timeouts=kernel_keeps_timeouts(),
    )
    _print(lines)
    if not_a_port:
        return CANNOT_START
    return 0


def _print(lines: list[str]) -> None:
    """Prints lines to stdout, as far as somebody reads them: `--check | head -1` is not an error. Raises OSError.

    The file is its own, so that Python does not try to write the rest when it ends.
    """
    with suppress(BrokenPipeError), os.fdopen(1, 'w', closefd=False) as output:
        print(*lines, sep='\n', file=output)


def _served(config: Config, server: HttpServer, demo_version: str | None) -> list[str]:
    """What is served, and at which addresses; whoever tries the demo is also shown where to look."""
    urls = ' '.join(server.urls)
    if demo_version is None:
        return [f'serving {config.meter.port} at {urls}']
    return [
        f'serving a simulated meter ({demo_version}) at {urls}',
        f'The dashboard is at {server.urls[0]}dashboard. Ctrl-C ends the server.',
    ]


def _start(config: Config, stack: ExitStack, *, verbose: bool) -> tuple[Meter, HttpServer]:
    """Starts everything that serves readings. Raises ConfigError, and NoThreadError.

    The stack ends the meter first, so that all requests that wait for it get a response, and then the servers.
    """
    settings = config.server
    meter = Meter(P1Reader(config.meter))
    # One connection is left for requests.
    places = FollowerPlaces(min(settings.max_streams, settings.max_connections - 1))
    server = HttpServer(settings, Api(settings, meter, places), verbose=verbose)
    stack.callback(server.close)
    listeners: list[Listener] = [server]
    if settings.telegram_port is not None:
        from dsmr_rest.telegram_server import TelegramServer  # noqa: PLC0415 most servers have none

        telegram_server = TelegramServer(settings.host, settings.telegram_port, meter, places)
        stack.callback(telegram_server.stop_accepting)
        listeners.append(telegram_server)
    stack.callback(meter.stop)
    with signals_blocked():
        for listener in listeners:
            listener.start()
    return meter, server


def _announce(
    settings: ServerSettings, port: int, meter: Meter, end_signal: EndSignal, stack: ExitStack
) -> None:
    """Announces the server until the stack ends. Returns when there is a signal, also before there is a reading."""
    from dsmr_rest.discovery import Announcement  # noqa: PLC0415 clients are served already and need not wait for it

    announcement = Announcement(settings, port)
    stack.callback(announcement.close)
    first_reading: Reading | None = None
    if announcement.describes_meter:
        meter.open(meter.reader.settings.timeout)
        while first_reading is None:
            if end_signal.wait_for(LOOK_PAUSE):
                return
            first_reading = meter.latest
    announcement.start(first_reading)
