"""Programs that a test needs and that come from the system, not from pip."""

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """The path of a program of a Debian package. Without it the test is skipped, where it may be missing."""
    path = shutil.which(name)
    if path:
        return path
    reason = f'{name} is not here: apt-get install {package}'
    if os.environ.get('DSMR_REQUIRE_SYSTEM_PACKAGES') == '1':
        pytest.fail(reason)
    pytest.skip(reason)
