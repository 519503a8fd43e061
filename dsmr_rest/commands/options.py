"""What both commands have in common: their options, the file with the settings, and the simulated meter of --demo.

It does not know what a command does with its settings.
"""

import argparse
import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from dsmr_rest import __version__
from dsmr_rest.config import Config, load

DEMO_VERSION = '5.0'
"""Of the simulated meter, when --demo names none."""
DEFAULT_CONFIG = Path(__file__).parents[2] / 'config.ini'
"""Beside the commands."""


def common_arguments(description: str) -> argparse.ArgumentParser:
    """A parser of the options that both commands have."""
    default = f'Without --config, the settings are those in\n{DEFAULT_CONFIG}'
    if not DEFAULT_CONFIG.exists():
        default += '\nwhich does not exist now, so every setting has its default.'
    parser = argparse.ArgumentParser(
        description=description,
        epilog=default,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # which does not break the path
    )
    parser.add_argument('--version', action='version', version=f'dsmr-rest-server {__version__}')
    parser.add_argument('--config', type=Path, metavar='FILE', help='the file with the settings')
    parser.add_argument(
        '--demo',
        nargs='?',
        const=DEMO_VERSION,
        type=_demo_version,
        metavar='VERSION',
        help=(
            'read a simulated meter instead of [meter] port:'
            f' 5.0, 4.2, 2.2, belgium or sweden (default: {DEMO_VERSION})'
        ),
    )
    return parser


def _demo_version(text: str) -> str:
    """The text of --demo, if there is such a simulated meter. Raises ArgumentTypeError."""
    from dsmr_rest.simulated.telegrams import VERSIONS  # noqa: PLC0415 only --demo needs it

    if text not in VERSIONS:
        raise argparse.ArgumentTypeError(f'must be one of: {", ".join(VERSIONS)}')
    return text


def settings_file(options: argparse.Namespace) -> Path | None:
    """The file that the options name, else config.ini beside the commands; None when that is not there."""
    if options.config is not None:
        named: Path = options.config
        return named
    if DEFAULT_CONFIG.exists():
        return DEFAULT_CONFIG
    return None


def configuration(options: argparse.Namespace) -> Config:
    """The settings from the file, or else the defaults. Raises ConfigError."""
    file = settings_file(options)
    if file is None:
        return Config()
    credentials: Path | None = None
    if 'CREDENTIALS_DIRECTORY' in os.environ:  # systemd.exec(5)
        credentials = Path(os.environ['CREDENTIALS_DIRECTORY'])
    return load(file, credentials)


def with_simulated_meter(config: Config, version: str, stack: ExitStack) -> Config:
    """The settings with the port of a simulated meter, which the stack ends. Raises OSError if it cannot be started.

    `version` is one of dsmr_rest.simulated.telegrams.VERSIONS.
    """
    from dsmr_rest.simulated.meter import SimulatedMeter  # noqa: PLC0415 only --demo needs it

    simulated_meter = stack.enter_context(SimulatedMeter(version))
    meter = replace(config.meter, port=simulated_meter.port, line='auto', specification='auto')
    return replace(config, meter=meter)
