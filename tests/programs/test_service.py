"""The systemd unit, as systemd and the kernel see it."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import ROOT, new_meter
from tests.pages import PAGES, README
from tests.system_packages import program

UNIT = ROOT / 'systemd' / 'dsmr-rest-server.service'
INSTALLED = '/opt/dsmr-rest-server'
MOST_EXPOSED = 1.7
"""Of 10. systemd 252 scores the unit 1.5, without DynamicUser 1.8 and without its filter of system calls 3.1."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as if the server were installed in this folder: systemd checks whether the programs exist."""
    text = UNIT.read_text().replace(f'{INSTALLED}/.venv/bin/python', sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(INSTALLED, str(ROOT)))
    return copy


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [program('systemd-analyze', 'systemd'), *map(str, arguments)]
    return subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def values(unit: Path, name: str) -> list[str]:
    """The values of a setting of the unit, in order."""
    return re.findall(rf'^{name}=(.*)$', unit.read_text(), re.MULTILINE)


def members(name: str) -> set[str]:
    """The system calls of a group of systemd (systemd.exec(5), SystemCallFilter), or the call of this name."""
    if not name.startswith('@'):
        return {name}
    listed = analyze('syscall-filter', name)
    assert listed.returncode == 0, listed.stdout
    calls: set[str] = set()
    for line in listed.stdout.splitlines()[1:]:
        member = line.strip()
        if member and not member.startswith('#'):
            calls |= members(member)
    return calls


def allowed_calls(unit: Path) -> set[str]:
    """The system calls that the unit's filter lets through."""
    allowed: set[str] = set()
    for names in values(unit, 'SystemCallFilter'):
        calls: set[str] = set()
        for name in names.lstrip('~').split():
            calls |= members(name)
        if names.startswith('~'):
            allowed -= calls
        else:
            allowed |= calls
    return allowed


def test_systemd_finds_no_mistake_in_the_unit(unit: Path) -> None:
    """`systemd-analyze verify` has no complaints."""
    verified = analyze('verify', unit)
    assert (verified.returncode, verified.stdout) == (0, '')


def test_the_template_is_the_unit_with_another_command() -> None:
    """The unit for several meters has the same settings, except those that name the instance."""
    differs = ('#', 'Description=', 'ExecStart=')
    settings = []
    for name in (UNIT.name, 'dsmr-rest-server@.service'):
        lines = UNIT.with_name(name).read_text().splitlines()
        settings.append([line for line in lines if not line.startswith(differs)])
    assert settings[0] == settings[1]


def test_the_unit_is_hardly_exposed(unit: Path) -> None:
    """`systemd-analyze security` gives the unit a low score: no root, no capabilities, few system calls and devices."""
    report = analyze('security', '--offline=true', unit).stdout
    level = re.search(r'Overall exposure level for \S+: (\d+\.\d)', report)
    assert level, report
    assert float(level[1]) < MOST_EXPOSED, report


def test_the_readme_installs_what_the_unit_starts() -> None:
    """The README clones the project to the folder from which the unit starts it."""
    assert values(UNIT, 'WorkingDirectory') == [INSTALLED]
    assert f'sudo git clone … {INSTALLED} && cd {INSTALLED}\n' in PAGES[README]


def test_the_unit_starts_a_server_that_makes_only_allowed_system_calls(
    tmp_path: Path, unit: Path
) -> None:
    """The unit's command serves a reading and, from start to end, makes no system call outside SystemCallFilter."""
    allowed = allowed_calls(unit)
    assert 'openat' in allowed
    assert not allowed & {'mount', 'setpriority'}
    trace = tmp_path / 'trace'
    config = tmp_path / 'config.ini'
    started_command = values(unit, 'ExecStart')[0].split()
    traced_command = [
        program('strace', 'strace'),
        '-f',
        '-o',
        str(trace),
        *started_command,
        '--config',
        str(config),
    ]
    with new_meter(interval=0.2) as meter:
        config.write_text(f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = 0\n')
        with subprocess.Popen(traced_command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            port = urlsplit(process.stdout.readline().split()[-1]).port
            # Each line begins with the number of the process.
            server = int(trace.read_text().split()[0])
            try:
                with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=20) as response:
                    assert b'currentElectricityUsage' in response.read()
            finally:
                os.kill(server, signal.SIGTERM)
            assert process.wait(20) == 0
    made = set(re.findall(r'^\d+ +(\w+)\(', trace.read_text(), re.MULTILINE))
    assert 'openat' in made
    assert made <= allowed
