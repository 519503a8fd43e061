"""The pure functions of the dashboard's modules: their own tests, in Node.js."""

import subprocess

from tests.conftest import ROOT
from tests.system_packages import program

FOLDER = ROOT / 'tests' / 'api' / 'dashboard'
DEADLINE = 300


def test_the_modules_pass_their_own_tests() -> None:
    """Node.js runs the tests beside this file, and all of them pass."""
    node = program('node', 'nodejs npm')
    files = sorted(FOLDER.glob('*.test.mjs'))
    finished = subprocess.run(
        [node, '--test', *files], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
