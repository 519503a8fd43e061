"""What Linux says about serial ports: programs that have one open, and what a name stands for instead of a port."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsmr_rest.p1.port_facts import programs_using, what_else_it_is
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
