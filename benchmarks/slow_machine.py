"""A slow machine: processes that have a share of one processor's time, as on a smaller computer.

The kernel sees to it: a cgroup with a quota of CPU time (cpu.cfs_quota_us of version 1, cpu.max of version 2). Unlike a
process that is stopped and continued by signals, one without quota is not woken for nothing.
"""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PERIOD = 10_000
"""Microseconds in which the quota may be used up: so few that what is measured is not the wait for the next ones."""
REMOVAL_TIME = 10.0
"""Seconds that the kernel may take to forget a process that has ended."""

_numbers = itertools.count()


class NoQuotaError(Exception):
    """This machine does not let this process make a cgroup with a quota."""


@contextmanager
def quota(share: float) -> Iterator[Path]:
    """A cgroup whose processes have this share of one processor. Raises NoQuotaError.

    A process joins by its number, written to the file cgroup.procs of the folder. All must have ended with the block.
    """
    name = f'benchmark-{os.getpid()}-{next(_numbers)}'
    group = _own_cgroup() / name
    microseconds = round(PERIOD * share)
    try:
        group.mkdir()
    except OSError as error:
        raise NoQuotaError(f'no cgroup can be made ({error}): a share needs root') from error
    try:
        _limit(group, microseconds)
        yield group
    finally:
        _remove(group)


def _own_cgroup() -> Path:
    """The cgroup of this process in the hierarchy that has the CPU controller. Raises NoQuotaError."""
    for mount in Path('/proc/self/mounts').read_text().splitlines():
        _, folder, kind, options, *_ = mount.split()
        if kind == 'cgroup' and 'cpu' in options.split(','):
            return Path(folder) / _place_in_hierarchy('cpu')
        if kind == 'cgroup2':
            controllers = Path(folder, 'cgroup.controllers').read_text()
            if 'cpu' in controllers.split():
                return Path(folder) / _place_in_hierarchy('')
    raise NoQuotaError('this machine has no cgroups with the CPU controller')


def _place_in_hierarchy(controller: str) -> str:
    """The path of the cgroup of this process, relative to the mount; '' is the controller of version 2."""
    for line in Path('/proc/self/cgroup').read_text().splitlines():
        _, controllers, path = line.split(':', 2)
        if controller in controllers.split(','):
            return path.lstrip('/')
    return ''


def _limit(group: Path, microseconds: int) -> None:
    version_2 = group / 'cpu.max'
    try:
        if version_2.exists():
            version_2.write_text(f'{microseconds} {PERIOD}')
            return
        (group / 'cpu.cfs_period_us').write_text(str(PERIOD))
        (group / 'cpu.cfs_quota_us').write_text(str(microseconds))
    except OSError as error:
        raise NoQuotaError(f'the quota cannot be set: {error}') from error


def _remove(group: Path) -> None:
    deadline = time.monotonic() + REMOVAL_TIME
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
