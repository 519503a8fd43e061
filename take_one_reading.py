#!/usr/bin/env python3
"""Takes one reading from the meter with the server's own code: a test for somebody who has just plugged in a P1 cable.

stdout has only the reading, as JSON, so that it can be piped into jq. All else goes to stderr: what is done, what was
found and the lines for config.ini that find this meter again; or, when there is no reading, the code with which the
server would respond, what is known of the cause and what to do about it.
"""

import argparse
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import Any

from dsmr_rest.commands.requirements import report_missing_package

try:
    from dsmr_rest.commands.options import common_arguments, configuration, with_simulated_meter
    from dsmr_rest.config import Config, ConfigError, NotAllowedError, serial_port
    from dsmr_rest.faults import Fault, MeterError
    from dsmr_rest.p1.port import is_remote
    from dsmr_rest.p1.port_facts import persistent_name, programs_using, serial_ports
    from dsmr_rest.p1.reader import P1Reader
    from dsmr_rest.printable import printable
    from dsmr_rest.reading.document import Reading, render
    from dsmr_rest.reading.quantities import OTHER_OBJECTS, number
    from dsmr_rest.reading.telegram import Proof
except ModuleNotFoundError as missing:
    sys.exit(report_missing_package('take_one_reading', missing))

NO_READING = 1
CANNOT_START = 2
INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended: 128 and the number of SIGINT."""
PROGRESS_PAUSE = 0.2
"""Seconds between two updates of the progress line: people, and terminals over a network, cannot follow faster ones."""

_PROOF = {
    Proof.CHECKSUM: 'its checksum',
    Proof.PARITY: 'its parity bits',
    Proof.AUTHENTICATION: 'the authentication tag of its frame',
    Proof.NOTHING: 'nothing: a damaged telegram may look like a good one',
}
"""What shows that the telegram is intact, in words."""
_FAULTS_OF_THE_NAME = (Fault.PORT_MISSING, Fault.PORT_UNUSABLE)
_FAULTS_OF_SHARING = (
    Fault.PORT_BUSY,
    Fault.PORT_LOST,
    Fault.CHECKSUM_FAILED,
    Fault.LINE_GARBLED,
    Fault.TELEGRAM_INCOMPLETE,
)
"""Those to which another program that reads the port may lead."""
_FAULTS_OF_THE_LINE = (Fault.METER_SILENT, Fault.LINE_GARBLED, Fault.TELEGRAM_INCOMPLETE)

_PERSONAL_KEY = re.compile('quipmentIdentifier|Serial[Nn]umber|ogicalDeviceName|extMessage')
# Digits, also as a 7E1 line read at 8N1 shows them, and the system title of an encrypted frame, which contains the
# serial number of the meter (IEC 62056-5-3).
_PERSONAL_BYTES = re.compile(rb'(?<=\xdb\x08).{1,8}|[0-9\xb1\xb2\xb4\xb7\xb8]', re.DOTALL)


def main() -> int:
    """The command. Exit status: 0 with a reading on stdout, 1 without, 2 for a wrong configuration, 130 for Ctrl-C."""
    options = _options()
    # What the reader logs is part of the report below, so it is not shown twice.
    logging.getLogger('dsmr_rest').addHandler(logging.NullHandler())
    try:
        with ExitStack() as stack:
            config = _configuration(options, stack)
            reader = P1Reader(config.meter)
            return _run(reader, masked=options.mask, demo_version=options.demo)
    except (ConfigError, OSError) as error:
        report(f'take_one_reading: {error}')
        return CANNOT_START
    except KeyboardInterrupt:
        return INTERRUPTED


def _options() -> argparse.Namespace:
    parser = common_arguments(
        'Takes one reading: JSON on stdout; on stderr what was found, or what is wrong and what to do.'
    )
    parser.add_argument(
        '--port',
        type=_port,
        metavar='DEVICE',
        help='read this device or URL instead of [meter] port, such as /dev/ttyUSB1',
    )
    parser.add_argument(
        '--mask',
        action='store_true',
        help='hide meter numbers and text messages, to post the output',
    )
    options = parser.parse_args()
    if options.demo and options.port is not None:
        parser.error('argument --port: not allowed with argument --demo')
    return options


def _port(text: str) -> str:
    """The text of --port, if [meter] port may have it. Raises ArgumentTypeError."""
    try:
        return serial_port(text)
    except NotAllowedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _configuration(options: argparse.Namespace, stack: ExitStack) -> Config:
    """The settings, with the port that the options ask for. Raises ConfigError and OSError."""
    config = configuration(options)
    if options.demo:
        return with_simulated_meter(config, options.demo, stack)
    if options.port is not None:
        meter = replace(config.meter, port=options.port)
        return config._replace(meter=meter)
    return config


def _run(reader: P1Reader, *, masked: bool, demo_version: str | None) -> int:
    settings = reader.settings
    meter = settings.port
    if demo_version is not None:
        meter = f'a simulated meter ({demo_version})'
    report(
        f'reading {meter}: line {settings.line}, specification {settings.specification},'
        f' for at most {settings.timeout:g} s'
    )
    try:
        reading = take_reading(reader)
    except MeterError as error:
        report(f'{error.fault.code}: {error.detail}')
        report(*explain(error, reader, masked=masked))
        return NO_READING
    report(*describe(reading, reader.line, masked=masked))
    if demo_version is None:
        report(*config_lines(reading, reader))
    if masked:
        return write_to_stdout(render(mask(reading.document)))
    return write_to_stdout(reading.json)


def report(*lines: str) -> None:
    """Prints lines to stderr; when stderr is closed, the reading is still worth taking."""
    if sys.stderr:
        with suppress(OSError):
            print(*lines, sep='\n', file=sys.stderr, flush=True)


def write_to_stdout(data: bytes) -> int:
    """Writes the reading and returns the exit status. A pipe whose reader has ended is not worth a message."""
    try:
        with os.fdopen(1, 'wb', closefd=False) as output:
            output.write(data)
    except BrokenPipeError:
        return NO_READING
    except OSError as error:
        report(f'take_one_reading: the reading cannot be written to stdout: {error.strerror}')
        return NO_READING
    return 0


def take_reading(reader: P1Reader) -> Reading:
    """The first reading that arrives. Raises MeterError when none does within the timeout of the settings."""
    started = time.monotonic()
    counters_before = reader.counters
    next_progress = 0.0
    try:
        with closing(reader.read()) as readings:
            for reading in readings:
                if reading:
                    return reading
                waited = time.monotonic() - started
                if waited >= reader.settings.timeout:
                    break
                if waited >= next_progress:
                    next_progress = waited + PROGRESS_PAUSE
                    counters = reader.counters
                    _show_progress(
                        f'{waited:.0f} s, {counters.received_bytes} bytes, {counters.checksum_failures} bad checksums'
                    )
    finally:
        _show_progress('')
    raise reader.why_nothing(counters_before, time.monotonic() - started)


def _show_progress(text: str) -> None:
    """Replaces the progress line, which only a terminal shows."""
    if sys.stderr and sys.stderr.isatty():
        clear_to_end_of_line = '\x1b[K'  # ECMA-48 8.3.41
        with suppress(OSError):
            print(f'\r{text}{clear_to_end_of_line}', end='', file=sys.stderr, flush=True)


def describe(reading: Reading, line: str, *, masked: bool = False) -> list[str]:
    """What a reading says about its meter, one line for each fact; `line` are the line settings in use."""
    lines = [
        f'meter          {_identification(reading, masked=masked)}',
        f'DSMR version   {_version(reading)}',
        f'proved by      {_PROOF[reading.verified_by]}',
    ]
    if reading.has_changed_line_ends:
        lines.append(
            'line ends      changed on the way: the port, or what passes the telegrams on, is not raw'
        )
    if reading.unsure:
        lines.append(
            f'specification  {reading.specification}, but unsure: it knows less than half of the lines'
        )
    else:
        lines.append(f'specification  {reading.specification}')
    if reading.not_understood:
        codes = ' '.join(reading.not_understood)
        lines.append(f'not understood {printable(codes)}')
    devices = [f'channel {device.channel} {device.kind_name}' for device in reading.devices]
    return [
        *lines,
        f'line           {line}',
        f'objects        {_count_objects(reading.document)}',
        f'M-Bus devices  {", ".join(devices) or "none"}',
    ]


def _identification(reading: Reading, *, masked: bool) -> str:
    """The header line of the telegram (IEC 62056-21 6.3.2)."""
    maker = reading.identification[:5]  # three letters, a code for the baud rate and a backslash
    meter = reading.identification[5:]
    if masked:
        meter = re.sub(r'\d', 'X', meter)
    return printable(maker + meter)


def _version(reading: Reading) -> str:
    version = str(reading.version or 'not stated')
    if re.fullmatch(r'\d\d', version):
        return f'{version[0]}.{version[1]}'
    return printable(version)


def _count_objects(document: Mapping[str, Any]) -> int:
    """How many objects the meter and its M-Bus devices sent."""
    count = 0
    for key, item in document.items():
        if key == 'mbusDevices':
            for device in item:
                count += _count_objects(device) - 1  # the channel is not an object
        elif key == OTHER_OBJECTS:
            count += len(item)
        else:
            count += 1
    return count


def config_lines(reading: Reading, reader: P1Reader) -> list[str]:
    """The lines for config.ini with which this meter is found at once the next time."""
    specification = reading.specification
    if reading.unsure:
        specification = 'auto'
    port = persistent_name(reader.settings.port)
    remarks = []
    if '/by-path/' in port and '/by-path/' not in reader.settings.port:
        remarks.append(
            '# The cable has no serial number, so its name in by-id may be that of another cable after the next start.'
            ' This name belongs to the USB socket.'
        )
    return [
        'config.ini:',
        '[meter]',
        *remarks,
        f'port = {port}',
        f'line = {reader.line}',
        f'specification = {specification}',
    ]


def explain(error: MeterError, reader: P1Reader, *, masked: bool = False) -> list[str]:
    """What else is known about the cause of a fault, and its advice, as lines of text."""
    settings = reader.settings
    lines: list[str] = []
    if not is_remote(settings.port):
        if error.fault in _FAULTS_OF_THE_NAME:
            lines += ['Serial ports of this machine:', *_ports_to_try()]
        if error.fault in _FAULTS_OF_SHARING:
            lines += _other_users(settings.port)
    if error.fault in _FAULTS_OF_THE_LINE:
        lines += _line_facts(reader, masked=masked)
    if error.fault is Fault.TELEGRAM_INVALID and settings.specification != 'auto':
        lines.append(
            f'If the meter does not send telegrams of {settings.specification}: set [meter] specification = auto.'
        )
    return [*lines, error.advice]


def _other_users(port: str) -> list[str]:
    """A line for each other program that has the port open, and one when there are some that may not be examined."""
    users = programs_using(port)
    lines = [f'{port} is open in {name}' for name in users.names]
    if not users.some_are_hidden:
        return lines
    if os.geteuid() == 0:
        return [
            *lines,
            'Some programs cannot be examined, not even by root: in a container, look on the machine that runs it.',
        ]
    return [
        *lines,
        'Programs of other users cannot be examined: run this again with sudo to see which have the port open.',
    ]


def _ports_to_try() -> list[str]:
    ports = serial_ports()
    if not ports:
        return ['none: Linux does not detect a cable']
    first, _, _ = ports[0].partition(' ')
    return [*ports, f'To try one of them now, without a change to config.ini: --port {first}']


def _line_facts(reader: P1Reader, *, masked: bool) -> list[str]:
    baud_rates = ', '.join(str(baud_rate) for baud_rate in reader.baud_rates_tried)
    lines = [f'Baud rates tried: {baud_rates}.']
    sample = reader.state.first_bytes
    if masked:
        sample = _PERSONAL_BYTES.sub(lambda match: b'X' * len(match[0]), sample)
    if sample:
        lines.append(f'First bytes received: {sample!r}')
    return lines


def mask(value: Any) -> Any:
    """A copy of a document with X for each letter and digit of meter numbers and text messages."""
    if isinstance(value, list):
        return [mask(item) for item in value]
    if not isinstance(value, dict):
        return value
    masked = {}
    for key, item in value.items():
        if key == OTHER_OBJECTS:
            masked[key] = {code: _mask_other(other) for code, other in item.items()}
        elif _PERSONAL_KEY.search(key):
            masked[key] = _mask_object(item)
        else:
            masked[key] = mask(item)
    return masked


def _mask_other(item: Any) -> Any:
    """An item of otherObjects, of which nobody knows what it is: only a number with a unit is no identifier."""
    if isinstance(item, list):
        return [_mask_other(entry) for entry in item]
    if 'groups' in item:
        return {'groups': [_x_for_each(group) for group in item['groups']]}
    if number(item) is not None and item['unit']:
        return item
    return _mask_object(item)


def _mask_object(item: Any) -> Any:
    if isinstance(item, list):
        return [_mask_object(entry) for entry in item]
    masked = dict(item)
    for key in ('value', 'unit'):  # in a text message, what follows a '*' looks like a unit
        if item.get(key) is not None:
            masked[key] = _x_for_each(str(item[key]))
    return masked


def _x_for_each(text: str) -> str:
    """X for each letter and digit of a text."""
    return re.sub(r'[^\W_]', 'X', text)


if __name__ == '__main__':
    sys.exit(main())
