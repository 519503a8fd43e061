"""The set-up test as its user sees it: a process with its stdout, stderr and exit status, on real ptys."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
import serial

import take_one_reading
from dsmr_rest import __version__
from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import METER_FAULTS, Fault, MeterError
from dsmr_rest.p1.port_facts import Users, persistent_name, serial_ports
from dsmr_rest.p1.reader import P1Reader
from dsmr_rest.simulated.telegrams import VERSIONS, with_checksum
from take_one_reading import config_lines, describe, explain, mask
from tests import quick_start
from tests.conftest import ROOT, hush, new_meter, wait_for
from tests.faulty_meter import FaultyMeter
from tests.telegrams import (
    TIME,
    TITLE,
    at_8n1,
    cipher_frame,
    from_lines,
    of_version,
    read,
    read_lines,
)

SCRIPT = ROOT / 'take_one_reading.py'
ENVIRONMENT = quick_start.strict_environment()
LIMIT = 120
"""Seconds for a process, which normally ends long before."""
TIMEOUTS = (1.5, 5, 15, 45)
"""Seconds that are tried one after the other, until the meter has had the time that it needs on a busy machine."""
HIDDEN = b'4530303132333435363738393031323334'
NUMBERED = with_checksum(
    b'/XYZ5\\987654321\r\n\r\n0-0:96.1.1(' + HIDDEN + b')\r\n1-0:1.7.0(00.123*kW)\r\n'
)
KEY, WRONG_KEY = 'A1' * 16, 'B2' * 16

Result = subprocess.CompletedProcess[str]
Outcome = TypeVar('Outcome')


def without(*capabilities: str) -> list[str]:
    """What to put before a command so that root lacks these capabilities; other users never have them."""
    if os.geteuid():
        return []
    if not shutil.which('setpriv'):
        pytest.skip('setpriv (util-linux) is missing, which takes capabilities away from root')
    return [
        'setpriv',
        '--bounding-set=' + ','.join(f'-{capability}' for capability in capabilities),
    ]


def config_file(folder: Path, settings: Mapping[str, object]) -> Path:
    file = folder / 'config.ini'
    file.write_text('[meter]\n' + ''.join(f'{key} = {value}\n' for key, value in settings.items()))
    return file


def command(folder: Path, *options: str, **settings: object) -> list[str | Path]:
    return [sys.executable, SCRIPT, '--config', config_file(folder, settings), *options]


def finished(arguments: list[str | Path], *, stdout: int = subprocess.PIPE) -> Result:
    """A process that has ended, with its output."""
    return subprocess.run(
        arguments,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=LIMIT,
        env=ENVIRONMENT,
    )


def quickly_finished(arguments: list[str | Path]) -> Result:
    """The script after it has ended, with its output."""
    return quick_start.finished([str(argument) for argument in arguments], ENVIRONMENT, LIMIT)


def run(folder: Path, *options: str, before: list[str] | None = None, **settings: object) -> Result:
    """The script with these settings for [meter], to its end. `before` is a command that starts it."""
    script = command(folder, *options, **settings)
    if before:
        return without_traceback(finished([*before, *script]))
    return without_traceback(quickly_finished(script))


def without_traceback(result: Result) -> Result:
    assert 'Traceback' not in result.stderr
    return result


def when_sent(meter: FaultyMeter, telegrams: int, attempt: Callable[[float], Outcome]) -> Outcome:
    """What an attempt with a timeout returns, the first in which the meter could send it so many telegrams."""
    for timeout in TIMEOUTS:
        taken_before = meter.taken
        outcome = attempt(timeout)
        if meter.taken - taken_before >= telegrams:
            return outcome
    raise AssertionError(f'{telegrams} telegrams take more than {TIMEOUTS[-1]} s')


def run_when_sent(
    meter: FaultyMeter, folder: Path, *options: str, telegrams: int = 4, **settings: object
) -> Result:
    """The script to its end, in a run to which the meter sent so many telegrams, or what there was of them.

    The first of them may arrive while the port is being opened, and be discarded, and the last while the run ends.
    """

    def attempt(timeout: float) -> Result:
        return quickly_finished(
            command(folder, *options, port=meter.port, timeout=timeout, **settings)
        )

    return when_sent(meter, telegrams, attempt)


def run_in_shell(folder: Path, redirection: str, **settings: object) -> Result:
    """The script to its end, started by a shell that redirects its streams."""
    line = shlex.join(map(str, command(folder, **settings)))
    return finished(['sh', '-c', f'{line} {redirection}'])


def failure(result: Result) -> str:
    """The code of a failure that is reported as it should be: status 1, no stdout, code and detail, and the advice."""
    assert (result.returncode, result.stdout) == (1, '')
    match = re.search(r'^([a-z_]+): \S.+$', result.stderr, re.MULTILINE)
    assert match, result.stderr
    assert match[1] in {fault.code for fault in METER_FAULTS}
    return match[1]


@pytest.fixture(params=VERSIONS)
def any_meter(request: pytest.FixtureRequest) -> Iterator[tuple[str, FaultyMeter]]:
    with new_meter(request.param, interval=0.2) as simulated:
        yield request.param, simulated


@pytest.fixture(params=[version for version in VERSIONS if version != 'sweden'])
def numbered_meter(request: pytest.FixtureRequest) -> Iterator[FaultyMeter]:
    """A meter whose telegrams have its number and those of its devices."""
    with new_meter(request.param, interval=0.2) as simulated:
        yield simulated


EXPECTED = {
    '5.0': ('V5', '115200 8N1', '5.0', 'channel 1 gas'),
    '4.2': ('V4', '115200 8N1', '4.2', 'channel 1 gas'),
    '2.2': ('V2_2', '9600 7E1', 'not stated', 'channel 1 gas'),
    'belgium': ('BELGIUM_FLUVIUS', '115200 8N1', '50217', 'channel 1 gas, channel 2 water'),
    'sweden': ('SWEDEN', '115200 8N1', 'not stated', 'none'),
}


def test_a_meter_is_described(any_meter: tuple[str, FaultyMeter], tmp_path: Path) -> None:
    """stdout is the reading as JSON, stderr what was found, with config.ini lines that read the same meter again."""
    version, meter = any_meter
    result = run(tmp_path, port=meter.port)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert result.stdout == json.dumps(document, indent=3) + '\n'
    specification, line, stated, devices = EXPECTED[version]
    objects = sum(key != 'mbusDevices' for key in document)
    objects += sum(len(device) - 1 for device in document.get('mbusDevices', []))
    shown = dict(re.findall(r'^(\S.*?)  +(\S.*)$', result.stderr, re.MULTILINE))
    assert shown.pop('meter').startswith('SIM5')
    proof = 'its checksum'
    if version == '2.2':  # a pseudo-terminal has no parity bits
        proof = 'nothing: a damaged telegram may look like a good one'
    assert shown == {
        'DSMR version': stated,
        'proved by': proof,
        'specification': specification,
        'line': line,
        'objects': str(objects),
        'M-Bus devices': devices,
    }

    (tmp_path / 'config.ini').write_text(result.stderr.partition('config.ini:\n')[2])
    again = finished([sys.executable, SCRIPT, '--config', tmp_path / 'config.ini'])
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith(
        f'reading {meter.port}: line {line}, specification {specification}, for '
    )
    assert json.loads(again.stdout).keys() == document.keys()


def test_demo_reads_a_simulated_meter(tmp_path: Path) -> None:
    """--demo reads a simulated meter whatever [meter] port is, and prints no config.ini lines for it."""
    result = run(tmp_path, '--demo', port='/dev/none', line='9600 7E1', specification='V2_2')
    assert result.returncode == 0
    assert json.loads(result.stdout)['p1MessageHeader']['value'] == '50'
    assert result.stderr.startswith('reading a simulated meter (5.0): line auto, ')
    assert 'config.ini' not in result.stderr
    another = run(tmp_path, '--demo', 'sweden', port='/dev/none')
    assert 'specification  SWEDEN\n' in another.stderr


def test_stdout_can_be_piped_into_a_json_tool(meter: FaultyMeter, tmp_path: Path) -> None:
    """A JSON tool after a pipe accepts stdout as it is."""
    result = run_in_shell(
        tmp_path, f'| {shlex.quote(sys.executable)} -m json.tool', port=meter.port
    )
    assert json.loads(result.stdout)['p1MessageHeader']['value'] == '50'


def test_a_pipe_without_a_reader_is_not_an_error_message(
    meter: FaultyMeter, tmp_path: Path
) -> None:
    """When the reader of the pipe has ended, the script ends with status 1 and no message about it."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = finished(command(tmp_path, port=meter.port), stdout=writer)
    finally:
        os.close(writer)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith('specification =')


@pytest.mark.parametrize(
    ('redirection', 'reason'), [('>/dev/full', 'No space'), ('>&-', 'Bad file')]
)
def test_a_stdout_that_cannot_be_written_to(
    redirection: str, reason: str, meter: FaultyMeter, tmp_path: Path
) -> None:
    """The last line says so, and the status is 1."""
    result = run_in_shell(tmp_path, redirection, port=meter.port)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith('take_one_reading: ') and reason in last


def test_a_closed_stderr_leaves_stdout_alone(meter: FaultyMeter, tmp_path: Path) -> None:
    """Without a stderr, stdout has nothing but the JSON."""
    assert json.loads(run_in_shell(tmp_path, '2>&-', port=meter.port).stdout)


def test_control_characters_of_the_meter_are_escaped(tmp_path: Path) -> None:
    """What the meter sends cannot control the terminal: all but printable ASCII is shown as a code."""
    lines = b'1-3:0.2.8(5\x9b0)\r\n1-0:1.7.0(00.123*kW)\r\n'
    with new_meter(
        interval=0.2, source=lambda: with_checksum(b'/ODD5\\\x1b[2J\xe9\r\n\r\n' + lines)
    ) as meter:
        result = run(tmp_path, port=meter.port)
    assert result.returncode == 0, result.stderr
    assert result.stderr.replace('\n', '').isprintable()
    assert 'meter          ODD5\\\\x1b[2J\\xe9\n' in result.stderr


def test_an_unknown_dialect_is_reported_as_unsure(tmp_path: Path) -> None:
    """Of a telegram with mostly odd lines their codes are shown, and config.ini leaves its specification open."""
    lines = b'1-0:1.7.0(00.123*kW)\r\n9-9:77.7.7(1\r\n9-9:78.7.7(1\r\n'
    with new_meter(
        interval=0.2, source=lambda: with_checksum(b'/ODD5\\1\r\n\r\n' + lines)
    ) as meter:
        result = run(tmp_path, port=meter.port)
    assert json.loads(result.stdout).keys() == {'currentElectricityUsage'}
    assert ', but unsure: ' in result.stderr
    assert 'not understood 9-9:77.7.7 9-9:78.7.7\n' in result.stderr
    assert 'specification = auto\n' in result.stderr


def test_a_missing_port(tmp_path: Path) -> None:
    """A port that does not exist: port_missing, with the serial ports of this machine."""
    result = run(tmp_path, port=tmp_path / 'none')
    assert failure(result) == 'port_missing'
    ports = serial_ports()
    for port in ports or ['none: ']:
        assert f'\n{port}' in result.stderr
    assert ('without a change to config.ini: --port /dev/' in result.stderr) == bool(ports)


@pytest.mark.parametrize('in_file', [{}, {'port': '/dev/none'}], ids=['no port', 'another port'])
def test_another_port_can_be_tried(
    in_file: dict[str, object], meter: FaultyMeter, tmp_path: Path
) -> None:
    """--port replaces [meter] port for this reading; everything else comes from the settings file."""
    settings = {**in_file, 'line': '115200 8N1', 'specification': 'V5', 'timeout': 7}
    result = finished(
        [sys.executable, SCRIPT, '--config', config_file(tmp_path, settings), '--port', meter.port]
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)['p1MessageHeader']['value'] == '50'
    assert result.stderr.startswith(
        f'reading {meter.port}: line 115200 8N1, specification V5, for at most 7 s\n'
    )
    assert f'\nport = {meter.port}\n' in result.stderr


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (['--port', 'ttyUSB0'], '--port: must be a device such as /dev/ttyUSB0'),
        (['--port', ''], '--port: must be a device such as /dev/ttyUSB0'),
        (['--port', '/dev/ttyUSB0', '--demo'], '--port: not allowed with argument --demo'),
    ],
)
def test_a_wrong_port_is_a_wrong_option(options: list[str], named: str, tmp_path: Path) -> None:
    """A port that [meter] port could not be, or one beside --demo, is status 2, and the last line says why."""
    result = run(tmp_path, *options)
    assert (result.returncode, result.stdout) == (2, '')
    assert named in result.stderr.splitlines()[-1]


def test_the_version_and_the_help() -> None:
    """--version prints the project's version, and --help the path of the file with the settings."""
    shown = finished([sys.executable, SCRIPT, '--version'])
    assert (shown.returncode, shown.stdout) == (0, f'dsmr-rest-server {__version__}\n')
    shown = finished([sys.executable, SCRIPT, '--help'])
    assert shown.returncode == 0
    assert str(ROOT / 'config.ini') in shown.stdout.splitlines()


def test_a_network_port_where_nobody_listens(tmp_path: Path) -> None:
    """A refused connection: port_missing, without a list of serial ports."""
    result = run(tmp_path, port='socket://127.0.0.1:1')
    assert (result.returncode, result.stdout) == (1, '')
    assert '\nport_missing: socket://127.0.0.1:1 ' in result.stderr
    assert 'Serial ports' not in result.stderr and 'ser2net' in result.stderr


def test_a_denied_port(meter: FaultyMeter, tmp_path: Path) -> None:
    """A port without permission: port_denied, with the command that gives it and the new login that it takes."""
    if os.geteuid() == 0:  # a pseudo-terminal of root has root's group, which nobody should join
        shutil.chown(meter.port, group='dialout')
    group = Path(meter.port).group()
    Path(meter.port).chmod(0o060)
    result = run(tmp_path, port=meter.port, before=without('dac_override', 'dac_read_search'))
    assert failure(result) == 'port_denied'
    assert f'sudo usermod -a -G {group} ' in result.stderr


def test_a_port_that_no_group_may_open(meter: FaultyMeter, tmp_path: Path) -> None:
    """Membership of a group would not help: the advice is another group and mode, and a rule that keeps them."""
    Path(meter.port).chmod(0)
    result = run(tmp_path, port=meter.port, before=without('dac_override', 'dac_read_search'))
    assert failure(result) == 'port_denied'
    assert f'sudo chgrp dialout {meter.port} && sudo chmod 660 {meter.port}' in result.stderr
    assert '/etc/udev/rules.d/' in result.stderr


def test_a_port_that_is_denied_in_a_user_namespace(meter: FaultyMeter, tmp_path: Path) -> None:
    """Where the port's group has no name, as in the systemd unit, the detail names settings of the unit, no group."""
    in_namespace = ['unshare', '--user']
    if (
        not shutil.which('unshare')
        or subprocess.run([*in_namespace, 'true'], check=False).returncode
    ):
        pytest.skip('unshare (util-linux) is missing, or may not make a user namespace')
    Path(meter.port).chmod(0)
    result = run(tmp_path, port=meter.port, before=in_namespace)
    assert failure(result) == 'port_denied'
    assert 'SupplementaryGroups must have its group and DeviceAllow its driver' in result.stderr
    assert 'nogroup' not in result.stderr and 'usermod' not in result.stderr


def test_a_busy_port(meter: FaultyMeter, tmp_path: Path) -> None:
    """A port that another program has locked: port_busy, with the name and the id of its process."""
    with serial.Serial(meter.port, exclusive=True):
        result = run(tmp_path, port=meter.port)
    assert failure(result) == 'port_busy'
    name = Path('/proc/self/comm').read_text().strip()
    assert re.search(rf'{meter.port} is open in {name}.* \(pid {os.getpid()}\)', result.stderr)


def test_a_busy_port_through_a_link(meter: FaultyMeter, tmp_path: Path) -> None:
    """The program is found although [meter] port is a link to the device that it has locked."""
    (tmp_path / 'p1').symlink_to(meter.port)
    with serial.Serial(meter.port, exclusive=True):
        result = run(tmp_path, port=tmp_path / 'p1')
    assert failure(result) == 'port_busy'
    assert f'(pid {os.getpid()})' in result.stderr


def test_a_busy_port_of_a_program_with_an_odd_name(meter: FaultyMeter, tmp_path: Path) -> None:
    """The name of a process is any bytes; it is shown with codes for what is not printable."""
    name_file = Path('/proc/self/comm')
    name = name_file.read_bytes()
    try:
        name_file.write_bytes(b'p1\xff\x1b[2J')
        with serial.Serial(meter.port, exclusive=True):
            result = run(tmp_path, port=meter.port)
    finally:
        name_file.write_bytes(name.strip())
    assert failure(result) == 'port_busy'
    assert f'{meter.port} is open in p1\\xff\\x1b[2J' in result.stderr


def test_a_busy_port_of_another_user(meter: FaultyMeter, tmp_path: Path) -> None:
    """When /proc does not show all processes, the advice is sudo, but not to root, for whom that changes nothing."""
    with serial.Serial(meter.port, exclusive=True):
        result = run(tmp_path, port=meter.port, before=without('sys_ptrace'))
    assert failure(result) == 'port_busy'
    if os.geteuid() == 0:
        assert 'not even by root' in result.stderr
    elif os.access('/proc/1/fd', os.R_OK):  # on this machine everything runs as this user
        assert 'with sudo' not in result.stderr
    else:
        assert 'with sudo' in result.stderr


def test_a_silent_meter(meter: FaultyMeter, tmp_path: Path) -> None:
    """No byte: meter_silent, with the baud rates tried and what to check in order."""
    hush(meter)
    result = run(tmp_path, port=meter.port, timeout=1)
    assert failure(result) == 'meter_silent'
    assert 'Baud rates tried: 115200.\n' in result.stderr
    assert re.findall(r'^(\d)\. ', result.stderr, re.MULTILINE) == list('12345')
    assert 'First bytes' not in result.stderr


@pytest.mark.parametrize(
    ('line', 'baud_rates'), [('115200 8N1', '115200'), ('auto', '115200, 9600')]
)
def test_a_garbled_line(line: str, baud_rates: str, tmp_path: Path) -> None:
    """Bytes without a telegram: line_garbled, with the first of them and the baud rates tried."""
    with new_meter(interval=0.2, source=lambda: bytes(range(128, 256))) as meter:
        result = run_when_sent(meter, tmp_path, telegrams=4, line=line)
    assert failure(result) == 'line_garbled'
    assert f'Baud rates tried: {baud_rates}.\n' in result.stderr
    assert re.search(
        r"^First bytes received: b'(\\x[89a-f][0-9a-f]){8}.+'$", result.stderr, re.MULTILINE
    )


def test_a_telegram_that_never_ends(meter: FaultyMeter, tmp_path: Path) -> None:
    """Telegrams cut short: telegram_incomplete, with the first bytes."""
    meter.cut = 300
    result = run_when_sent(meter, tmp_path)
    assert failure(result) == 'telegram_incomplete'
    assert 'First bytes received: b' in result.stderr


def test_wrong_checksums(meter: FaultyMeter, tmp_path: Path) -> None:
    """Only damaged telegrams: checksum_failed, with their count and the programs that have the port open."""
    meter.source = lambda: of_version('5.0').replace(b'*kWh)', b'*kWh(')
    result = run_when_sent(meter, tmp_path)
    assert failure(result) == 'checksum_failed'
    assert re.search(r'^checksum_failed: .*\([1-9]\d* with a wrong', result.stderr, re.MULTILINE)
    assert f'(pid {os.getpid()})' in result.stderr  # the simulated meter has it open


@pytest.mark.parametrize('key', ['', WRONG_KEY])
def test_a_meter_that_encrypts_without_its_key(key: str, tmp_path: Path) -> None:
    """Encrypted telegrams with no key or a wrong one: decryption_failed, and the key is not shown."""
    with new_meter(
        interval=0.5, source=lambda: cipher_frame(NUMBERED, bytes.fromhex(KEY))
    ) as meter:
        result = run(tmp_path, port=meter.port, decryption_key=key)
    assert failure(result) == 'decryption_failed'
    assert WRONG_KEY not in result.stderr


@pytest.mark.parametrize('specification', ['auto', 'SAGEMCOM_T210_D_R'])
def test_a_telegram_that_is_not_valid_although_it_arrived_intact(
    specification: str, tmp_path: Path
) -> None:
    """A wrong checksum in an authentic frame: telegram_invalid, whose advice concerns the meter and not the line."""
    wrong = NUMBERED.replace(b'00.123', b'00.124')
    with new_meter(interval=0.5, source=lambda: cipher_frame(wrong, bytes.fromhex(KEY))) as meter:
        # A frame whose beginning was missed looks like a wrong baud rate, so none is searched for here: at the other
        # one the reader would stay until the line falls silent, which a meter that is late never does.
        result = run_when_sent(
            meter,
            tmp_path,
            decryption_key=KEY,
            specification=specification,
            line='115200 8N1',
        )
    assert failure(result) == 'telegram_invalid'
    assert re.search(
        r'telegram_invalid: [1-9]\d* encrypted telegrams arrived intact', result.stderr
    )
    for of_the_line in ('plug', 'shorter cable', 'program', 'Baud rates', 'First bytes'):
        assert of_the_line not in result.stderr
    is_set = specification != 'auto'
    assert (f'does not send telegrams of {specification}' in result.stderr) == is_set


def test_a_meter_that_encrypts_with_its_key(tmp_path: Path) -> None:
    """With the right key an encrypted telegram is a reading like any other."""
    with new_meter(
        interval=0.5, source=lambda: cipher_frame(NUMBERED, bytes.fromhex(KEY))
    ) as meter:
        result = run(tmp_path, port=meter.port, decryption_key=KEY)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)['currentElectricityUsage']['value'] == 0.123
    assert KEY not in result.stderr


@pytest.mark.parametrize(
    'text',
    [
        '[meter]\nport = nonsense\n',
        '[meter]\nspeed = 1\n',
        '[gas]\n',
        'no section\n',
        '[meter]\nport = \xff\n',
        None,
    ],
)
def test_a_wrong_configuration(text: str | None, tmp_path: Path) -> None:
    """A config.ini that is wrong, or missing although it is named, is status 2 and one line on stderr that names it."""
    file = tmp_path / 'config.ini'
    if text:
        file.write_text(text, encoding='latin-1')
    result = finished([sys.executable, SCRIPT, '--config', file])
    assert (result.returncode, result.stdout, result.stderr.count('\n')) == (2, '', 1)
    assert result.stderr.startswith(f'take_one_reading: {file}: ')


def test_ctrl_c(meter: FaultyMeter, tmp_path: Path) -> None:
    """SIGINT while it waits ends it at once with status 130 and no further output."""
    hush(meter)
    # In the background of a shell SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command(tmp_path, port=meter.port),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        assert process.stderr.readline().startswith('reading ')
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=LIMIT) == ('', '')
    assert process.returncode == 130


def on_a_terminal(arguments: list[str | Path]) -> tuple[str, str]:
    """stdout and stderr of a process whose stderr is a terminal."""
    master, slave = os.openpty()
    try:
        with subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=slave, text=True, env=ENVIRONMENT
        ) as process:
            stdout, _ = process.communicate(timeout=LIMIT)
        os.set_blocking(master, False)
        shown = b''
        with suppress(BlockingIOError):
            while True:
                shown += os.read(master, 4096)
        return stdout, shown.decode()
    finally:
        os.close(slave)
        os.close(master)


def test_progress_on_a_terminal(meter: FaultyMeter, tmp_path: Path) -> None:
    """A terminal shows seconds, bytes and bad checksums in one line, which is cleared before anything else is shown."""
    meter.corrupt_every = 1

    def attempt(timeout: float) -> str:
        _, shown = on_a_terminal(command(tmp_path, port=meter.port, timeout=timeout))
        return shown

    shown = when_sent(meter, 4, attempt)
    first, _, rest = shown.partition('\r\n')
    end = rest.rindex('\x1b[K') + len('\x1b[K')
    progress, rest = rest[:end], rest[end:]
    assert first.startswith('reading ') and '\n' not in progress
    steps = re.findall(r'\r(\d+) s, (\d+) bytes, (\d+) bad checksums\x1b\[K', progress)
    assert len(steps) > 2
    assert int(steps[-1][1]) > int(steps[0][1]) and int(steps[-1][2]) > 0
    assert progress.endswith('checksums\x1b[K\r\x1b[K')
    assert rest.startswith('checksum_failed: ')


def test_a_terminal_for_stderr_leaves_stdout_alone(meter: FaultyMeter, tmp_path: Path) -> None:
    """With stderr on a terminal, stdout has nothing but the JSON."""
    stdout, shown = on_a_terminal(command(tmp_path, port=meter.port))
    assert json.loads(stdout)
    assert '\r\x1b[Kmeter  ' in shown


def test_no_progress_in_a_file(meter: FaultyMeter, tmp_path: Path) -> None:
    """A stderr that is not a terminal has neither the progress line nor a control character."""
    hush(meter)
    result = run(tmp_path, port=meter.port, timeout=1)
    assert failure(result) == 'meter_silent'
    assert 'bytes,' not in result.stderr
    assert result.stderr.replace('\n', '').isprintable()


def test_mask_hides_numbers_from_a_reading(numbered_meter: FaultyMeter, tmp_path: Path) -> None:
    """--mask hides the meters' numbers in stdout and stderr, and leaves the rest of the JSON as it is."""
    meter = numbered_meter
    result = run(tmp_path, '--mask', port=meter.port)
    assert result.returncode == 0, result.stderr
    numbers = re.findall(rb'^0-\d:96\.1\.[01]\((\w+)\)', meter.last, re.MULTILINE)
    assert len(numbers) >= 2
    for number in numbers:
        assert number.decode() not in result.stdout + result.stderr
        assert f'"{"X" * len(number)}"' in result.stdout
    header = meter.last.partition(b'\r')[0][1:].decode()
    assert header not in result.stderr
    assert f'meter          {header[:5]}' in result.stderr
    assert json.loads(result.stdout)['hourlyGasMeterReading']['value'] > 0


def test_mask_hides_every_digit_of_the_header_line(tmp_path: Path) -> None:
    """Of the header line only the maker's letters and the code of the baud rate have digits, which are no number."""
    with new_meter(interval=0.2, source=lambda: NUMBERED) as meter:
        result = run(tmp_path, '--mask', port=meter.port)
    assert re.search(r'^meter +XYZ5\\XXXXXXXXX$', result.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    'data',
    [
        NUMBERED[:60],
        at_8n1(NUMBERED[:60]),
        cipher_frame(NUMBERED, bytes.fromhex(KEY))[:20],
        b'\xff' * 50 + NUMBERED[:60],
    ],
)
def test_mask_hides_numbers_from_a_failure(data: bytes, tmp_path: Path) -> None:
    """--mask hides numbers in the first bytes received: plain, with parity, encrypted or after noise."""
    with new_meter(interval=0.2, source=lambda: data) as meter:
        result = run_when_sent(meter, tmp_path, '--mask', line='115200 8N1')
    assert failure(result) in {'line_garbled', 'telegram_incomplete'}
    sample = re.search(r'^First bytes received: (b.+)$', result.stderr, re.MULTILINE)
    assert sample
    read = ast.literal_eval(sample[1])
    assert b'X' in read and TITLE[3:] not in read
    assert not re.search(rb'\d', bytes(byte & 0x7F for byte in read.partition(b'\xdb')[0]))


def test_mask_hides_numbers_in_damaged_lines(tmp_path: Path) -> None:
    """Of a line that is not understood only the code is shown; both sides of a '*' in a text message are hidden."""
    lines = (
        '0-0:96.1.1h4530303031',
        '0-0:96.13.0(4530*4530)',
        '1-0:1.8.1(000001.000*kWh)',
        '1-0:1.8.2(000002.000*kWh)',
    )
    with new_meter(interval=0.2, source=lambda: from_lines(*lines, checksum=False)) as meter:
        result = run(tmp_path, '--mask', port=meter.port)
    assert json.loads(result.stdout)['textMessage'] == {'value': 'XXXX', 'unit': 'XXXX'}
    assert '0-0:96.1.1\n' in result.stderr
    assert '4530' not in result.stdout + result.stderr


def test_a_wrong_specification_is_named(meter: FaultyMeter, tmp_path: Path) -> None:
    """When the specification that is set may be the cause, the advice says so."""
    with new_meter(interval=0.2, source=lambda: from_lines('1-0:1.8.1')) as odd:
        result = run_when_sent(odd, tmp_path, telegrams=3, specification='V5')
        assert failure(result) == 'telegram_invalid'
        assert 'set [meter] specification = auto' in result.stderr
    meter.corrupt_every = 1
    assert 'specification = auto' not in run_when_sent(meter, tmp_path).stderr


# What the report says on another machine than this.

READING = read(of_version('5.0'))


@pytest.fixture
def reader() -> P1Reader:
    """A reader of a port that is never opened."""
    return P1Reader(MeterSettings(port='/dev/ttyUSB0'))


def shown(name: str, lines: list[str]) -> str:
    """What a report has beside a name."""
    (line,) = [line for line in lines if line.startswith(name)]
    return line.removeprefix(name).strip()


def test_changed_line_ends_are_reported() -> None:
    """That the telegram was changed on its way is said; nothing is said of one that was not."""
    changed = read(of_version('5.0').replace(b'\r\n', b'\n'))
    assert shown('line ends', describe(changed, '115200 8N1')).startswith('changed on the way')
    assert not any(line.startswith('line ends') for line in describe(READING, '115200 8N1'))


def test_objects_without_a_name_are_counted_too() -> None:
    """The number of objects is that of the lines that the meter sent, whether or not they have a name."""
    reading = read_lines('1-0:1.7.0(00.355*kW)', '1-0:99.99.1(1*kW)', '1-0:99.99.2(2*kW)')
    assert shown('objects', describe(reading, '115200 8N1')) == '3'


@pytest.mark.parametrize(
    ('name', 'is_explained'),
    [('/dev/serial/by-path/usb-0', True), ('/dev/serial/by-id/usb-FTDI-1', False)],
)
def test_a_name_that_belongs_to_the_socket_is_explained(
    name: str, reader: P1Reader, monkeypatch: pytest.MonkeyPatch, *, is_explained: bool
) -> None:
    """Where the lines for config.ini name a USB socket instead of a cable, a comment in them says why."""
    monkeypatch.setattr(take_one_reading, 'persistent_name', lambda _: name)
    lines = config_lines(READING, reader)
    assert f'port = {name}' in lines
    assert any(line.startswith('# ') for line in lines) == is_explained


@pytest.mark.parametrize(
    ('some_are_hidden', 'user', 'said'),
    [
        (False, 1000, ''),
        (True, 0, 'not even by root'),
        (True, 1000, 'with sudo'),
    ],
)
def test_hidden_programs_are_mentioned(
    user: int,
    said: str,
    reader: P1Reader,
    monkeypatch: pytest.MonkeyPatch,
    *,
    some_are_hidden: bool,
) -> None:
    """Whoever may not see all programs is told so, with what helps this user."""
    users = Users(['minicom (pid 812)'], some_are_hidden=some_are_hidden)
    monkeypatch.setattr(take_one_reading, 'programs_using', lambda _: users)
    monkeypatch.setattr(os, 'geteuid', lambda: user)
    first, *hidden, _ = explain(MeterError(Fault.PORT_BUSY, ''), reader)
    assert first == '/dev/ttyUSB0 is open in minicom (pid 812)'
    assert [said in line for line in hidden] == [True] * some_are_hidden


@pytest.mark.parametrize(
    ('ports', 'said'),
    [
        ([], 'none: Linux does not detect a cable'),
        (['/dev/ttyUSB1 = /dev/serial/by-id/usb-1', '/dev/ttyS0'], '--port /dev/ttyUSB1'),
    ],
)
def test_ports_to_try_are_listed(
    ports: list[str], said: str, reader: P1Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the port of the settings, the report lists those that there are, or says that there is none."""
    monkeypatch.setattr(take_one_reading, 'serial_ports', lambda: ports)
    title, *listed, last, _ = explain(MeterError(Fault.PORT_MISSING, ''), reader)
    assert title == 'Serial ports of this machine:'
    assert listed == ports
    assert last.endswith(said)


MASKED = {
    'equipmentIdentifier': ('4B-0a', 'XX-XX'),
    'q3dEquipmentIdentifier': (None, None),
    'q3dEquipmentSerialnumber': ('é1', 'XX'),
    'equipmentSerialNumber': (12, 'XX'),
    'cosemLogicalDeviceName': ('SAX1', 'XXXX'),
    'textMessageCode': ('7', 'X'),
    'msnTextMessage2': ('Hi all', 'XX XXX'),
}


@pytest.mark.parametrize('name', MASKED)
def test_mask_hides_what_is_personal(name: str) -> None:
    """Letters and digits of meter numbers and text messages are hidden, at every level, in a copy."""
    given, expected = (
        {name: {'datetime': None, 'value': value, 'unit': None}} for value in MASKED[name]
    )
    document = given | {'mbusDevices': [{'channelId': 1} | given], 'textMessage': [{'value': 'a'}]}
    before = json.dumps(document)
    assert mask(document) == expected | {
        'mbusDevices': [{'channelId': 1} | expected],
        'textMessage': [{'value': 'X'}],
    }
    assert json.dumps(document) == before


def test_mask_leaves_all_else_alone() -> None:
    """Readings, times, lists and names are the same after mask()."""
    document = {
        'p1MessageHeader': {'value': '50', 'unit': None},
        'currentElectricityUsage': {'value': 0.355, 'unit': 'kW'},
        'powerEventFailureLog': {
            'buffer_length': 1,
            'buffer_type': '0-0:96.7.19',
            'buffer': [{'value': 5}],
        },
        'q3dEquipmentState': {'value': 'A1', 'unit': None},
        'mbusDevices': [{'channelId': 1, 'mbusDeviceType': {'value': 3, 'unit': None}}],
    }
    assert mask(document) == document


def test_mask_hides_the_texts_of_other_objects() -> None:
    """Nobody knows what they are, so only numbers with a unit and times are shown, at every level."""
    others = {
        '0-0:96.1.0': {'value': 'ER23', 'unit': None},
        '0-0:96.13.7': {'value': 'Jane', 'unit': 'Doe 1'},
        '1-0:15.7.0': {'value': 3.25, 'unit': 'kW'},
        '1-0:0.0.1': {'value': 12.5, 'unit': None},
        '1-0:1.6.1': {'datetime': TIME, 'value': 3.25, 'unit': 'kW'},
        '1-1:31.4.0': [{'groups': ['040*A', 'Jane']}, {'value': None, 'unit': None}],
    }
    masked = {
        '0-0:96.1.0': {'value': 'XXXX', 'unit': None},
        '0-0:96.13.7': {'value': 'XXXX', 'unit': 'XXX X'},
        '1-0:15.7.0': {'value': 3.25, 'unit': 'kW'},
        '1-0:0.0.1': {'value': 'XX.X', 'unit': None},
        '1-0:1.6.1': {'datetime': TIME, 'value': 3.25, 'unit': 'kW'},
        '1-1:31.4.0': [{'groups': ['XXX*X', 'XXXX']}, {'value': None, 'unit': None}],
    }
    document = {'otherObjects': others, 'mbusDevices': [{'channelId': 1, 'otherObjects': others}]}
    assert mask(document) == {
        'otherObjects': masked,
        'mbusDevices': [{'channelId': 1, 'otherObjects': masked}],
    }


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A /dev with two USB cables, one of them with a persistent name, two built-in ports and other devices."""
    by_id = tmp_path / 'serial/by-id'
    by_id.mkdir(parents=True)
    for name in ('ttyUSB1', 'ttyUSB0', 'ttyAMA0', 'ttyS0', 'tty0', 'ttyS', 'null'):
        (tmp_path / name).touch()
    (by_id / 'usb-P1-if00').symlink_to('../../ttyUSB1')
    return tmp_path


def test_serial_ports_are_listed_with_persistent_names(dev: Path) -> None:
    """USB cables come first, each with its name under /dev/serial/by-id."""
    cable = f'{dev}/ttyUSB1 = {dev}/serial/by-id/usb-P1-if00'
    assert serial_ports(dev) == [f'{dev}/ttyUSB0', cable, f'{dev}/ttyAMA0', f'{dev}/ttyS0']


def test_the_port_gets_its_persistent_name(dev: Path) -> None:
    """A device is named by its link under by-id; one without a link, a user's own link and an address stay the same."""
    (dev / 'my-meter').symlink_to('ttyUSB1')
    assert persistent_name(f'{dev}/ttyUSB1', dev) == f'{dev}/serial/by-id/usb-P1-if00'
    for name in (
        f'{dev}/ttyUSB0',
        f'{dev}/my-meter',
        f'{dev}/serial/by-id/usb-P1-if00',
        'socket://127.0.0.1:2000',
    ):
        assert persistent_name(name, dev) == name


def test_the_port_is_free_after_a_reading(meter: FaultyMeter, tmp_path: Path) -> None:
    """The port is closed after a reading: another program can lock it."""
    assert run(tmp_path, port=meter.port).returncode == 0
    with serial.Serial(meter.port, exclusive=True) as port:
        wait_for(lambda: port.in_waiting)
