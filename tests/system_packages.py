"""Programs that tests need and that are installed by the system, not by pip."""

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """The path of a program from this Debian package. Without it the test is skipped, or fails where it is required."""
    path = shutil.which(name)
    if path:
        return path
    reason = f'{name} is not installed: apt-get install {package}'
    if os.environ.get('DSMR_REQUIRE_SYSTEM_PACKAGES') == '1':
        pytest.fail(reason)
    pytest.skip(reason)
