"""The systemd unit, as systemd itself and the kernel see it."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, new_meter, wait_for
from system_packages import program

UNIT = ROOT / 'systemd' / 'dsmr-rest-server.service'
INSTALLED = '/opt/dsmr-rest-server'
MOST_EXPOSED = 2.0


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as if the project were installed here: systemd looks whether its programs are there."""
    text = UNIT.read_text().replace(f'{INSTALLED}/.venv/bin/python', sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(INSTALLED, str(ROOT)))
    return copy


def analyzed(*arguments: object) -> subprocess.CompletedProcess[str]:
    analyze = program('systemd-analyze', 'systemd')
    return subprocess.run(
        [analyze, *map(str, arguments)], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def settings() -> list[str]:
    return [line for line in UNIT.read_text().splitlines() if line and line[0] not in '#[']


def allowed_calls() -> set[str]:
    """The system calls that the unit's filter lets through, its groups resolved by systemd."""
    allowed: set[str] = set()
    for setting in settings():
        if setting.startswith('SystemCallFilter='):
            names = setting.partition('=')[2]
            calls = set().union(*(_members(name) for name in names.lstrip('~').split()))
            allowed = allowed - calls if names.startswith('~') else allowed | calls
    return allowed


def _members(name: str) -> set[str]:
    if not name.startswith('@'):
        return {name}
    shown = analyzed('syscall-filter', name)
    assert shown.returncode == 0, shown.stdout
    inside = {line.strip() for line in shown.stdout.splitlines()[1:] if not line.strip().startswith('#')}
    return set().union(*(_members(each) for each in inside if each))


def test_systemd_has_nothing_to_say_about_the_unit(unit: Path) -> None:
    """`systemd-analyze verify` is silent."""
    verified = analyzed('verify', unit)
    assert (verified.returncode, verified.stdout) == (0, '')


def test_the_unit_is_hardly_exposed(unit: Path) -> None:
    """`systemd-analyze security` scores the unit below 2.0 of 10."""
    judged = analyzed('security', '--offline=true', unit).stdout
    level = re.search(r'Overall exposure level for \S+: (\d+\.\d)', judged)
    assert level, judged
    assert float(level[1]) < MOST_EXPOSED, judged


@pytest.mark.parametrize(
    'setting',
    [
        'DynamicUser=yes',
        'SupplementaryGroups=dialout',
        'Restart=always',
        'StartLimitIntervalSec=0',
        'ProtectSystem=strict',
        'CapabilityBoundingSet=',
        'AmbientCapabilities=',
        'NoNewPrivileges=yes',
        'DeviceAllow=char-ttyUSB rw',
        'Environment=PYTHONDONTWRITEBYTECODE=1',
    ],
)
def test_the_unit_promises(setting: str) -> None:
    """The service has no rights but to a serial port, writes nothing and is always started again."""
    assert setting in settings()


def test_the_unit_starts_what_is_installed() -> None:
    """The unit runs this project's server, in the folder that it is installed in."""
    started = next(each for each in settings() if each.startswith('ExecStart='))
    script = started.split()[-1]
    assert script.startswith(f'{INSTALLED}/') and (ROOT / script.removeprefix(f'{INSTALLED}/')).is_file()


def test_the_server_makes_no_system_call_that_the_unit_forbids(tmp_path: Path, unit: Path) -> None:
    """From start to end, with a reading between, the server makes no system call outside SystemCallFilter."""
    strace, allowed = program('strace', 'strace'), allowed_calls()
    assert 'openat' in allowed and 'mount' not in allowed and 'setpriority' not in allowed
    trace, config = tmp_path / 'trace', tmp_path / 'config.ini'
    command = re.findall(r'^ExecStart=(.*)', unit.read_text(), re.MULTILINE)[0].split()
    with new_meter(interval=0.2) as meter:
        config.write_text(f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = 0\n')
        with subprocess.Popen(
            [strace, '-f', '-o', trace, *command, '--config', config], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            url = process.stdout.readline().split()[-1]
            subprocess.run([sys.executable, '-c', f'import urllib.request as r; r.urlopen({url!r}).read()'], check=True)
            server = int(trace.read_text().split()[0])
            subprocess.run(['kill', f'-{signal.SIGTERM.value}', str(server)], check=True)
            assert wait_for(lambda: process.poll() is not None) and process.returncode == 0
    made = set(re.findall(r'^\d+ +(\w+)\(', trace.read_text(), re.MULTILINE))
    assert 'openat' in made and made <= allowed
