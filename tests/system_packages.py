"""What tests need that pip does not install: programs of the system, and packages of npm in tests/package.json."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

NODE_MODULES = Path(__file__).parent / 'node_modules'
"""Where `npm install --prefix tests` puts the packages of tests/package.json."""

FOR_ROOT = '/usr/sbin:/sbin'
"""Where Debian has servers such as mosquitto, which an ordinary user may start too, but does not have on PATH."""


def program(name: str, package: str) -> str:
    """The path of a program from this Debian package. Without it the test is skipped, or fails where it is required."""
    path = shutil.which(name, path=f'{os.environ["PATH"]}:{FOR_ROOT}')
    if path is None:
        _do_without(f'{name} is not installed: apt-get install {package}')
    return path


def node_program(name: str) -> str:
    """The path of a program from tests/package.json. Without it, or without Node.js, as for program()."""
    program('node', 'nodejs npm')
    path = shutil.which(name, path=NODE_MODULES / '.bin')
    if path is None:
        _do_without(f'{name} is not installed: npm install --prefix tests')
    return path


def npm_file(name: str) -> Path:
    """A file of a package in tests/package.json. Without it the test is skipped, or fails where it is required."""
    path = NODE_MODULES / name
    if not path.exists():
        _do_without(f'{path} is missing: npm install --prefix tests')
    return path


def _do_without(reason: str) -> NoReturn:
    if os.environ.get('DSMR_REQUIRE_SYSTEM_PACKAGES') == '1':
        pytest.fail(reason)
    pytest.skip(reason)
