"""What Linux says about serial ports: programs that have one open, and what a name stands for instead of a port."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsmr_rest.p1 import port_facts
from dsmr_rest.p1.port_facts import (
    Users,
    facts_of,
    has_serial_number,
    persistent_name,
    programs_using,
    serial_ports,
    what_else_it_is,
)
from tests.conftest import new_meter, wait_for
from tests.faulty_meter import FaultyMeter

HOLDER = """import sys
with open(sys.argv[-1], 'rb', buffering=0):
    print(flush=True)
    sys.stdin.read()
"""
"""A program that holds the port open which is its last argument."""


@contextmanager
def holding(*command: str, folder: Path) -> Iterator[int]:
    """The number of a process with this command, once it has the port open."""
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        yield process.pid
        process.stdin.close()


@pytest.mark.parametrize(
    ('arguments', 'shown'),
    [
        (['holder.py', '--password=geheim'], 'holder.py'),
        (['-u', './holder.py', 'geheim'], './holder.py'),
        (['-m', 'holder', 'geheim'], '-m holder'),
        (['-c', HOLDER, 'geheim'], ''),
    ],
)
def test_a_program_is_named_with_its_script(
    arguments: list[str], shown: str, meter: FaultyMeter, tmp_path: Path
) -> None:
    """An interpreter is named with the script or module that it runs, and without any other argument."""
    (tmp_path / 'holder.py').write_text(HOLDER)
    with holding(sys.executable, *arguments, meter.port, folder=tmp_path) as process:
        names = programs_using(meter.port).names
        (found,) = [each for each in names if each.endswith(f' (pid {process})')]
        name = Path(f'/proc/{process}/comm').read_text().strip()
    assert found == f'{f"{name} {shown}".strip()} (pid {process})'


def test_a_program_without_a_script_is_named_alone(meter: FaultyMeter) -> None:
    """The port, which is an argument of most programs that read one, is no script."""
    with subprocess.Popen(['tail', '-f', meter.port], stdout=subprocess.DEVNULL) as process:
        name = f'tail (pid {process.pid})'
        try:
            wait_for(lambda: name in programs_using(meter.port).names)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ('error', 'some_are_hidden'), [(PermissionError(), True), (ProcessLookupError(), False)]
)
def test_programs_that_cannot_be_examined(
    error: OSError, monkeypatch: pytest.MonkeyPatch, *, some_are_hidden: bool
) -> None:
    """A program of another user is hidden, and one that has ended meanwhile is not."""

    def fail(*_: object) -> bool:
        raise error

    monkeypatch.setattr(port_facts, '_has_open', fail)
    assert programs_using('/dev/ttyUSB0') == Users([], some_are_hidden)


def test_what_is_no_serial_port(tmp_path: Path) -> None:
    """A folder, a file and another device are told from a serial port; a name of nothing may become one."""
    file = tmp_path / 'file'
    file.touch()
    link = tmp_path / 'link'
    link.symlink_to(file)
    assert what_else_it_is(str(tmp_path)) == 'a folder'
    assert what_else_it_is(str(file)) == 'a file'
    assert what_else_it_is(str(link)) == 'a file'
    assert what_else_it_is(os.devnull) == 'another kind of device'
    assert what_else_it_is(str(tmp_path / 'none')) == ''
    assert what_else_it_is('socket://127.0.0.1:2001') == ''
    with new_meter() as simulated:
        assert what_else_it_is(simulated.port) == ''


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """Its /dev and /sys: ttyUSB0 is a cable with a serial number, ttyUSB1 one without, and ttyS0 is no USB cable."""
    dev, sys_folder = tmp_path / 'dev', tmp_path / 'sys'
    for name, serial in (('ttyUSB0', 'A50285BI'), ('ttyUSB1', '')):
        usb_device = sys_folder / 'devices/usb1' / name
        interface = usb_device / '1-1:1.0' / name
        interface.mkdir(parents=True)
        (usb_device / 'idVendor').write_text('1a86')
        if serial:
            (usb_device / 'serial').write_text(serial)
        (sys_folder / 'class/tty' / name).mkdir(parents=True)
        (sys_folder / 'class/tty' / name / 'device').symlink_to(interface)
        for kind in ('by-id', 'by-path'):
            folder = dev / 'serial' / kind
            folder.mkdir(parents=True, exist_ok=True)
            (dev / name).touch()
            (folder / f'{kind}-{name}').symlink_to(dev / name)
    (dev / 'ttyS0').touch()
    return dev, sys_folder


def test_a_cable_without_a_serial_number_has_the_name_of_its_socket(
    machine: tuple[Path, Path],
) -> None:
    """Its name in by-id is shared by all cables of its kind, so it is not used; a cable with a number keeps its own."""
    dev, sys_folder = machine
    assert has_serial_number(f'{dev}/ttyUSB0', sys_folder)
    assert not has_serial_number(f'{dev}/ttyUSB1', sys_folder)
    assert has_serial_number(f'{dev}/ttyS0', sys_folder)
    expected = {
        'ttyUSB0': f'{dev}/serial/by-id/by-id-ttyUSB0',
        'ttyUSB1': f'{dev}/serial/by-path/by-path-ttyUSB1',
        'ttyS0': f'{dev}/ttyS0',
    }
    for name, persistent in expected.items():
        assert persistent_name(f'{dev}/{name}', dev, sys_folder) == persistent
    assert serial_ports(dev, sys_folder) == [
        f'{dev}/ttyUSB0 = {expected["ttyUSB0"]}',
        f'{dev}/ttyUSB1 = {expected["ttyUSB1"]}',
        expected['ttyS0'],
    ]


def test_what_is_known_of_a_port(tmp_path: Path) -> None:
    """Whether it is there, its group, and whether that group may open it."""
    assert not facts_of(str(tmp_path / 'none')).is_there
    with new_meter() as simulated:
        device = Path(simulated.port)
        device.chmod(0o660)
        facts = facts_of(simulated.port)
        assert (facts.is_there, facts.what_else, facts.group) == (True, '', device.group())
        assert facts.group_may_open
        device.chmod(0o640)
        assert not facts_of(simulated.port).group_may_open
