"""The systemd unit under a real systemd: process 1 of a machine of its own, in namespaces of this one."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, wait_for
from tests.pages import OPERATIONS, section_of
from tests.system_packages import program

INSTALLED = Path('/opt/dsmr-rest-server')
UNIT = 'dsmr-rest-server.service'
PRODUCT = ('dsmr_rest', 'dsmr_rest_server.py', 'config.ini')
METER_PORT = '/dev/pts/0'
"""The machine has its own pseudo-terminals, of which the simulated meter's is the first."""
TERMINAL = '/dev/ttyTEST'
"""A virtual terminal: a real device under the device policy, with the major number of the driver ttyS."""
NUMBERS_OF_TERMINAL = ('4', '20')
DRIVERS = Path('/proc/devices')


class Machine:
    """A running systemd. `process` is any process of the test system whose child is that systemd."""

    def __init__(self, systemd: int) -> None:
        self._enter = ['nsenter', f'--target={systemd}', '--all', '--root', '--wd']

    def run(self, *command: str, text: str | None = None) -> str:
        """Runs a command in the machine; returns what it prints."""
        done = subprocess.run(
            [*self._enter, *command],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    def write(self, path: str, text: str) -> None:
        self.run('mkdir', '-p', str(Path(path).parent))
        self.run('tee', path, text=text)

    def serve(self, port: str, *unit_settings: str) -> Any:
        """Starts the unit for this port, with further settings; returns the document of the response to GET /."""
        self.write(f'{INSTALLED}/config.ini', f'[meter]\nport = {port}\n')
        lines = ['[Service]', *unit_settings, '']
        self.write(f'/etc/systemd/system/{UNIT}.d/test.conf', '\n'.join(lines))
        self.run('systemctl', 'daemon-reload')
        self.run('systemctl', 'restart', UNIT)
        wait_for(lambda: 'serving' in self.log(), 30)
        get = ['curl', '-s', '--max-time', '20', '-H', 'Prefer: wait=3', 'http://localhost:8080/']
        return json.loads(self.run(*get))

    def log(self) -> str:
        """What the unit has logged since it was last started."""
        invocation = self.run('systemctl', 'show', '--property=InvocationID', '--value', UNIT)
        return self.run('journalctl', '--no-pager', f'_SYSTEMD_INVOCATION_ID={invocation.strip()}')


def python_for_a_unit() -> str:
    """A Python of the version of this one that is in no home folder, because the unit hides those."""
    version = f'python{sys.version_info.major}.{sys.version_info.minor}'
    path = shutil.which(version, path='/usr/local/bin:/usr/bin')
    if path is None:
        pytest.skip(f'{version} is neither in /usr/local/bin nor in /usr/bin')
    return path


def added_files(folder: Path, python: str) -> None:
    """Makes the files that only the machine has: the product as the README installs it, and the unit."""
    installed = folder / INSTALLED.relative_to('/')
    installed.mkdir(parents=True)
    for name in PRODUCT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, installed / name)
        else:
            shutil.copy(source, installed / name)
    environment = installed / '.venv'
    (environment / 'bin').mkdir(parents=True)
    (environment / 'pyvenv.cfg').write_text(f'home = {Path(python).parent}\n')
    (environment / 'bin' / 'python').symlink_to(python)
    library = environment / 'lib' / Path(python).name
    library.mkdir(parents=True)
    (library / 'site-packages').symlink_to('/opt/packages')
    units = folder / 'etc/systemd/system'
    units.mkdir(parents=True)
    shutil.copy(ROOT / 'systemd' / UNIT, units)


def children(process: int) -> list[int]:
    listed = Path(f'/proc/{process}/task/{process}/children').read_text()
    return [int(number) for number in listed.split()]


@contextmanager
def systemd_machine(folder: Path) -> Iterator[Machine]:
    """A machine for as long as the block runs. Skips the test where this process may not make one."""
    files = folder / 'files'
    added_files(files, python_for_a_unit())
    ready = folder / 'ready'
    log = folder / 'log'
    script = Path(__file__).with_name('systemd_machine.sh')
    command = [str(script), str(files), sysconfig.get_path('purelib'), str(ready)]
    with log.open('w') as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: ready.exists() or process.poll() is not None)
        if not ready.exists():
            pytest.skip(f'no machine can be made here: {log.read_text()}')
        (systemd,) = children(process.pid)
        machine = Machine(systemd)
        wait_for(
            lambda: (
                machine.run('systemctl', 'is-system-running').strip() in {'running', 'degraded'}
            ),
            60,
        )
        yield machine
    finally:
        process.kill()
        process.wait()
        remove_cgroup(folder / 'ready.cgroup')


def remove_cgroup(name: Path) -> None:
    """Removes the machine's cgroup, and those that systemd has made in it, as soon as its processes have ended."""
    if not name.exists():
        return
    cgroup = Path(name.read_text().strip())

    def is_gone() -> bool:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with suppress(OSError):
                Path(folder).rmdir()
        return not cgroup.exists()

    wait_for(is_gone)


@pytest.fixture(scope='module')
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a simulated meter, whose port belongs to the group dialout and not to all."""
    if os.geteuid() != 0:
        pytest.skip('only root can start a systemd of its own')
    program('systemctl', 'systemd')
    program('curl', 'curl')
    with systemd_machine(tmp_path_factory.mktemp('machine')) as started:
        python = f'{INSTALLED}/.venv/bin/python'
        meter = [f'--working-directory={INSTALLED}', python, '-m', 'dsmr_rest.simulated']
        started.run('systemd-run', '--unit=meter', *meter)
        wait_for(lambda: started.run('ls', '-d', METER_PORT).strip() == METER_PORT, 30)
        started.run('mknod', TERMINAL, 'c', *NUMBERS_OF_TERMINAL)
        for port in (METER_PORT, TERMINAL):
            started.run('chown', 'root:dialout', port)
            started.run('chmod', '0660', port)
        yield started


def test_the_unit_reads_a_port_of_the_group_dialout(machine: Machine) -> None:
    """With all its restrictions, the unit serves a reading from a port of root:dialout with mode 0660."""
    assert 'currentElectricityUsage' in machine.serve(METER_PORT), machine.log()


def test_a_unit_without_that_group_is_denied(machine: Machine) -> None:
    """Without SupplementaryGroups the port is denied, and the detail names the settings of the unit."""
    document = machine.serve(METER_PORT, 'SupplementaryGroups=')
    assert document['code'] == 'port_denied'
    assert 'in the systemd unit, SupplementaryGroups must have its group' in document['detail']


needs_terminal = pytest.mark.skipif(
    '  4 ttyS' not in DRIVERS.read_text() or not Path('/dev/tty20').exists(),
    reason='this kernel has no driver ttyS, or no virtual terminals',
)


@needs_terminal
@pytest.mark.parametrize(
    ('unit_settings', 'code'),
    [
        ((), 'meter_silent'),
        (('DeviceAllow=', 'DeviceAllow=char-ttyUSB rw'), 'port_denied'),
        (('PrivateDevices=yes',), 'port_missing'),
    ],
    ids=['the unit as it is', 'another driver', 'private devices'],
)
def test_the_unit_may_open_a_serial_port_by_its_driver(
    unit_settings: tuple[str, ...], code: str, machine: Machine
) -> None:
    """A device of a driver in DeviceAllow is opened; without that, or with PrivateDevices, it is not."""
    assert machine.serve(TERMINAL, *unit_settings)['code'] == code


LOADS_USB_DRIVER = """#!/bin/sh
case "$*" in *usbserial*) cat /run/drivers-after >/run/drivers ;; esac
"""


@contextmanager
def without_usb_driver(machine: Machine) -> Iterator[None]:
    """The driver ttyS appears as ttyUSB, and only after modprobe has loaded it."""
    drivers = DRIVERS.read_text()
    machine.write('/run/drivers', drivers.replace('  4 ttyS\n', ''))
    machine.write('/run/drivers-after', drivers.replace('  4 ttyS\n', '  4 ttyUSB\n'))
    machine.write('/usr/sbin/modprobe', LOADS_USB_DRIVER)
    machine.run('chmod', '+x', '/usr/sbin/modprobe')
    machine.run('mount', '--bind', '/run/drivers', str(DRIVERS))
    try:
        yield
    finally:
        machine.run('umount', str(DRIVERS))


@needs_terminal
def test_a_cable_may_be_plugged_in_after_the_start(machine: Machine) -> None:
    """The unit loads the drivers of USB cables before systemd looks them up, so their devices are never denied."""
    with without_usb_driver(machine):
        assert machine.serve(TERMINAL)['code'] == 'meter_silent'


def commands_with_systemd(heading: str) -> list[str]:
    """The commands that a section of docs/operations.md has for systemd, without sudo: root runs them here."""
    _, found, rest = section_of(OPERATIONS, heading).partition('With systemd:\n\n')
    assert found
    lines = [line.strip() for line in rest.splitlines() if line.startswith('    ')]
    return [line.replace('sudo ', '') for line in lines]


def test_the_unit_is_restarted_and_uninstalled_as_the_page_says(machine: Machine) -> None:
    """After an upgrade the unit starts anew and reads; after the last command nothing of it is left. Runs last."""
    machine.serve(METER_PORT)
    log_before = machine.log()
    *_, restart = commands_with_systemd('Upgrade')
    machine.run('sh', '-c', restart)
    wait_for(lambda: machine.log() != log_before and 'serving' in machine.log(), 30)
    assert machine.run('systemctl', 'is-active', UNIT).strip() == 'active'
    for command in commands_with_systemd('Uninstall'):
        machine.run('sh', '-c', command)
    assert machine.run('systemctl', 'is-active', UNIT).strip() == 'inactive'
    machine.run('systemctl', 'daemon-reload')
    units = machine.run('systemctl', 'list-unit-files', UNIT)
    assert '0 unit files' in units
    assert 'No such file' in machine.run('ls', str(INSTALLED))
