#!/usr/bin/env python3
"""Takes one reading from the meter, by the server's own code: its JSON on stdout, or why there is none on stderr.

For who has just plugged in a P1 cable. All that is not the JSON goes to stderr, so that `| jq` works: what is done,
what was found and the lines of config.ini that pin it down, or the code that the server answers with and what to do.
"""

import logging
import os
import re
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from dsmr_rest.config import ConfigError
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.p1_reader import P1Reader
from dsmr_rest.reading import Reading, render
from dsmr_rest_server import common_arguments, configuration

NO_READING = 1
CANNOT_START = 2
INTERRUPTED = 130
"""As a shell reports a program that Ctrl-C ended: 128 and the number of SIGINT."""
PROGRESS_PAUSE = 0.2
"""Seconds that the progress line stands: bytes arrive faster than eyes, or a terminal far away, can follow."""

_PERSONAL = re.compile('quipmentIdentifier|Serial[Nn]umber|ogicalDeviceName|extMessage')
# Digits, also as a 7E1 line shows them at 8N1, and the system title of an encrypted frame: it has the meter's number.
_PERSONAL_BYTES = re.compile(rb'(?<=\xdb\x08).{1,8}|[0-9\xb1\xb2\xb4\xb7\xb8]', re.DOTALL)


def main() -> int:
    """The command. Exit status 0 with a reading on stdout; on stderr why not: 1 meter, 2 configuration, 130 Ctrl-C."""
    parser = common_arguments(
        'Takes one reading: JSON on stdout; on stderr what was found, or what is wrong and what to do.'
    )
    parser.add_argument('--mask', action='store_true', help='hide numbers of meters and text messages: fit for a forum')
    options = parser.parse_args()
    logging.getLogger('dsmr_rest').addHandler(logging.NullHandler())  # what the reader logs is told below
    try:
        with ExitStack() as stack:
            settings = configuration(options, stack).meter
            return _take_and_tell(P1Reader(settings), masked=options.mask, demo=options.demo)
    except (ConfigError, OSError) as error:
        tell(f'take_one_reading: {error}')
        return CANNOT_START
    except KeyboardInterrupt:
        return INTERRUPTED


def _take_and_tell(reader: P1Reader, *, masked: bool, demo: bool) -> int:
    settings = reader.settings
    tell(
        f'reading {settings.port}: line {settings.line}, specification {settings.specification}, for at most'
        f' {settings.timeout:g} s'
    )
    try:
        reading = take(reader)
    except MeterError as error:
        tell(f'{error.fault.code}: {error.detail}', *next_steps(error.fault, reader, masked=masked))
        return NO_READING
    tell(*found(reading, reader.line, masked=masked))
    if not demo:
        tell(*pinned_down(reading, reader))
    return put_out(render(mask(reading.document)) if masked else reading.json)


def tell(*lines: str) -> None:
    """Lines to stderr; a stderr that is closed does not cost the reading."""
    if sys.stderr:
        with suppress(OSError):
            print(*lines, sep='\n', file=sys.stderr, flush=True)


def put_out(data: bytes) -> int:
    """The data to stdout; the exit status. To a reader that has gone nothing needs to be said."""
    try:
        with os.fdopen(1, 'wb', closefd=False) as output:
            output.write(data)
    except BrokenPipeError:
        return NO_READING
    except OSError as error:
        tell(f'take_one_reading: the reading cannot be written to stdout: {error.strerror}')
        return NO_READING
    return 0


def take(reader: P1Reader) -> Reading:
    """The first reading to come. Raises MeterError when there is none within the timeout of the settings."""
    began, before, due = time.monotonic(), reader.counters, 0.0
    try:
        with closing(reader.read()) as readings:
            for reading in readings:
                waited = time.monotonic() - began
                if reading:
                    return reading
                if waited >= reader.settings.timeout:
                    break
                if waited >= due:
                    due, seen = waited + PROGRESS_PAUSE, reader.counters
                    _progress(f'{waited:.0f} s, {seen.received_bytes} bytes, {seen.checksum_failures} bad checksums')
    finally:
        _progress('')
    raise reader.nothing_usable(before, time.monotonic() - began)


def _progress(text: str) -> None:
    if sys.stderr and sys.stderr.isatty():
        with suppress(OSError):
            print(f'\r{text}\x1b[K', end='', file=sys.stderr, flush=True)  # CSI K: clear to the end of the line


def found(reading: Reading, line: str, *, masked: bool = False) -> list[str]:
    """What a reading tells of its meter, a line each."""
    name = re.sub('[^ -~]', '?', reading.identification)  # no terminal should obey it
    name = name[:5] + re.sub(r'\d', 'X', name[5:]) if masked else name
    version = str(reading.version or 'not stated (before DSMR 4)')
    version = f'{version[0]}.{version[1]}' if re.fullmatch(r'\d\d', version) else version
    of_devices = sum(len(each) - 1 for each in reading.document.get('mbusDevices', []))
    objects = sum(key != 'mbusDevices' for key in reading.document) + of_devices
    devices = [f'channel {each.channel} {each.kind_name}' for each in reading.devices]
    return [
        f'meter          {name}',
        f'DSMR version   {version}',
        f'specification  {reading.specification}'
        + (', but unsure: it knows few of the lines' if reading.unsure else ''),
        *([f'not understood {" ".join(reading.not_understood)}'] if reading.not_understood else []),
        f'line           {line}',
        f'objects        {objects}',
        f'M-Bus devices  {", ".join(devices) or "none"}',
    ]


def pinned_down(reading: Reading, reader: P1Reader) -> list[str]:
    """The lines of config.ini that find this meter again without a search."""
    return [
        'config.ini:',
        '[meter]',
        f'port = {lasting_name(reader.settings.port)}',
        f'line = {reader.line}',
        f'specification = {"auto" if reading.unsure else reading.specification}',
    ]


def next_steps(fault: Fault, reader: P1Reader, *, masked: bool = False) -> list[str]:
    """What else is known of a failure, and what to do, a line each."""
    port, facts = reader.settings.port, []
    if fault is Fault.PORT_MISSING and '://' in port:
        return ['Check that ser2net, or what else offers the port, runs there, and that no firewall is in between.']
    if fault is Fault.PORT_MISSING:
        facts = ['Serial ports here:', *(serial_ports() or ['none: Linux sees no cable'])]
    elif fault in (Fault.PORT_BUSY, Fault.CHECKSUM_FAILED) and '://' not in port:
        facts = holders(port)
    elif fault in (Fault.METER_SILENT, Fault.LINE_GARBLED, Fault.TELEGRAM_INCOMPLETE):
        facts = [f'Speeds tried: {", ".join(map(str, reader.speeds.tried))} baud.']
        sample = _PERSONAL_BYTES.sub(lambda part: b'X' * len(part[0]), reader.sample) if masked else reader.sample
        facts += [f'First bytes received: {sample!r}'] if sample else []
    if fault in (Fault.CHECKSUM_FAILED, Fault.LINE_GARBLED) and reader.settings.specification != 'auto':
        facts.append(f'Or these are no telegrams of {reader.settings.specification}: set [meter] specification = auto.')
    return [*facts, fault.advice]


def serial_ports(dev: Path = Path('/dev')) -> list[str]:
    """The serial ports there are, each with its lasting name where it has one."""
    names = {link.resolve(): f' = {link}' for link in (dev / 'serial/by-id').glob('*')}
    patterns = ('ttyUSB*', 'ttyACM*', 'ttyAMA*', 'ttyS[0-9]')
    return [f'{port}{names.get(port.resolve(), "")}' for pattern in patterns for port in sorted(dev.glob(pattern))]


def lasting_name(port: str, dev: Path = Path('/dev')) -> str:
    """The port's name under /dev/serial/by-id, the same wherever the cable is plugged in; a link of one's own stays."""
    links = [] if Path(port).is_symlink() else sorted((dev / 'serial/by-id').glob('*'))
    return next((str(link) for link in links if link.resolve() == Path(port).resolve()), port)


def holders(port: str) -> list[str]:
    """A line on each process that has the port open, and on those that cannot be looked into."""
    device, lines, hidden = Path(port).resolve(), [], False
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if any(file.readlink() == device for file in (process / 'fd').iterdir()):
                lines.append(f'{port} is open in {(process / "comm").read_text().strip()} (pid {process.name})')
        except PermissionError:
            hidden = True
        except OSError:  # the process has ended
            continue
    if hidden:
        lines.append('The processes of other users cannot be looked into: run this again with sudo to see theirs.')
    return lines


def mask(value: Any) -> Any:
    """A copy of a document without the numbers of meters and text messages; each of their letters and digits is X."""
    if isinstance(value, dict):
        return {key: _hidden(item) if _PERSONAL.search(key) else mask(item) for key, item in value.items()}
    return [mask(item) for item in value] if isinstance(value, list) else value


def _hidden(item: Any) -> Any:
    if isinstance(item, list):
        return [_hidden(each) for each in item]
    # What looks like a unit is a part of the text behind a '*'.
    return item | {
        key: re.sub(r'[^\W_]', 'X', str(item[key])) for key in ('value', 'unit') if item.get(key) is not None
    }


if __name__ == '__main__':
    sys.exit(main())
