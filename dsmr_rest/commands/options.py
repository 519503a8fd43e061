"""What both commands have in common: their options, the file with the settings, and the simulated meter of --demo.

It does not know what a command does with its settings.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from dsmr_rest import __version__
from dsmr_rest.choices import TIME_ZONE
from dsmr_rest.config import Config, load

DEMO_VERSION = '5.0'
"""Of the simulated meter, when --demo names none."""
SCRIPTS = Path(__file__).resolve().parents[2]
"""The folder of both commands' scripts: that of a clone, or for installed commands the one for all packages."""


def common_arguments(description: str) -> argparse.ArgumentParser:
    """A parser of the options that both commands have."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=_where_the_settings_are(),
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


def _where_the_settings_are() -> str:
    file = _default_file()
    if file is None:
        return 'Without --config, every setting has its default.'
    default = f'Without --config, the settings are those in\n{file}'
    if not file.exists():
        default += '\nwhich does not exist now, so every setting has its default.'
    return default


def _default_file() -> Path | None:
    """config.ini beside the script that was started, whether or not it exists.

    An installed command was started from another folder than its script is in. It has no such file: a config.ini among
    the installed packages is some other package's.
    """
    folder = Path(sys.argv[0]).resolve().parent
    if folder != SCRIPTS:
        return None
    return folder / 'config.ini'


def _demo_version(text: str) -> str:
    """The text of --demo, if there is such a simulated meter. Raises ArgumentTypeError."""
    from dsmr_rest.simulated.telegrams import VERSIONS  # noqa: PLC0415 only --demo needs it

    if text not in VERSIONS:
        raise argparse.ArgumentTypeError(f'must be one of: {", ".join(VERSIONS)}')
    return text


def settings_file(options: argparse.Namespace) -> Path | None:
    """The file that the options name, else config.ini beside the script; None when that is not there."""
    if options.config is not None:
        named: Path = options.config
        return named
    file = _default_file()
    if file is not None and file.exists():
        return file
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
    meter = replace(
        config.meter,
        port=simulated_meter.port,
        line='auto',
        specification='auto',
        time_zone=TIME_ZONE,
    )
    return config._replace(meter=meter)
