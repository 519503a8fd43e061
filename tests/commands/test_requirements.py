"""The commands on a machine where nobody has installed what they need."""

import re
import subprocess
import sys

import pytest

from dsmr_rest.commands.requirements import report_missing_package
from tests.conftest import ROOT
from tests.faulty_meter import PATIENCE
from tests.pages import PAGES, README

SEARCH_NO_PACKAGES = """
import runpy, sys
sys.path = [folder for folder in sys.path if not folder.endswith('-packages')]
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
"""Runs a script as if no package were installed. Python's -S would do, but that switches coverage off as well."""


@pytest.mark.parametrize('command', ['dsmr_rest_server', 'take_one_reading'])
def test_a_missing_package_is_one_line(command: str) -> None:
    """Without the requirements the status is 2, and one line names the package and the README's set-up command."""
    ended = subprocess.run(
        [sys.executable, '-c', SEARCH_NO_PACKAGES, f'{command}.py', '--demo'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stdout) == (2, '')
    line = re.fullmatch(
        rf'{command}: the Python package \w+ is missing\..* `(.+)`.*\n', ended.stderr
    )
    assert line, ended.stderr
    assert line[1] in PAGES[README]


def test_a_32_bit_system_is_told_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    """On a 32-bit system the line has the two commands that the README has for it."""
    missing = ModuleNotFoundError(name='cffi.api')
    assert report_missing_package('take_one_reading', missing, is_32_bit=True) == 2
    shown = capsys.readouterr().err
    assert 'package cffi is missing' in shown
    for part in (
        'sudo apt install python3-cryptography',
        'python3 -m venv --system-site-packages .venv',
    ):
        assert part in shown
        assert part in PAGES[README]


def test_a_fault_of_the_project_is_not_a_missing_package() -> None:
    """A module of the project that is missing is no reason to install anything: the error goes on."""
    missing = ModuleNotFoundError(name='dsmr_rest.none')
    with pytest.raises(ModuleNotFoundError):
        report_missing_package('take_one_reading', missing)
