"""What somebody reads who starts a command without the packages that it needs, instead of a traceback.

This module is imported before those packages, so it imports only what comes with Python.
"""

import sys

INSTALL = '.venv/bin/pip install -r requirements.txt'
SET_UP = f'python3 -m venv .venv && {INSTALL}'
APT = 'sudo apt install python3-cryptography'
SET_UP_OF_32_BITS = f'{APT} && python3 -m venv --system-site-packages .venv && {INSTALL}'
"""PyPI has no wheels for 32-bit ARM of what cryptography needs, and few people have a compiler there."""
CANNOT_START = 2
"""Exit status."""


def report_missing_package(
    command: str, error: ModuleNotFoundError, *, is_32_bit: bool = sys.maxsize < 2**32
) -> int:
    """Says in one line on stderr how to install what could not be imported; returns the exit status of the command.

    Raises the error when it is a module of this project that is missing: no package would help.
    """
    name = error.name or ''
    package, _, _ = name.partition('.')
    if package == 'dsmr_rest':
        raise error
    set_up = SET_UP
    if is_32_bit:
        set_up = SET_UP_OF_32_BITS
    sys.stderr.write(
        f'{command}: the Python package {package} is missing. Install it in the folder of this project with'
        f' `{set_up}`, and start the command with .venv/bin/python.\n'
    )
    return CANNOT_START
