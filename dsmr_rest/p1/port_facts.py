"""What Linux says about serial ports: which there are, under which names, who may open one, and which programs have.

It looks at /dev, /proc and /sys, and opens no port. It does not know what follows from what it finds.
"""

import getpass
import grp
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from dsmr_rest.p1.evidence import PortFacts
from dsmr_rest.printable import printable

DEV = Path('/dev')
SYS = Path('/sys')
SERIAL_PORTS = ('ttyUSB*', 'ttyACM*', 'ttyAMA*', 'ttyS[0-9]')
"""Names in /dev: of USB cables, then of the built-in ports of a Raspberry Pi and of a PC."""
UNMAPPED_GROUP = 65534
"""What a group is shown as that is not mapped in this user namespace (user_namespaces(7)), as with PrivateUsers=."""


def serial_ports(dev: Path = DEV, sys: Path = SYS) -> list[str]:
    """The serial ports of this machine, each with its persistent name if it has one."""
    ports = []
    for pattern in SERIAL_PORTS:
        for port in sorted(dev.glob(pattern)):
            name = persistent_name(str(port), dev, sys)
            if name == str(port):
                ports.append(name)
            else:
                ports.append(f'{port} = {name}')
    return ports


def persistent_name(port: str, dev: Path = DEV, sys: Path = SYS) -> str:
    """The port's name in /dev/serial that stays the same after the next start of the machine.

    That is the name in by-id, which belongs to the cable. Cables of one kind that have no serial number share it, and
    it points to whichever was found last: for them it is the name in by-path, which belongs to the USB socket. A port
    without such a name, a link that the user made and a port on another machine keep their names.
    """
    if Path(port).is_symlink():
        return port
    folders = ('serial/by-id', 'serial/by-path')
    if not has_serial_number(port, sys):
        folders = ('serial/by-path', 'serial/by-id')
    for folder in folders:
        for link in sorted((dev / folder).glob('*')):
            if link.resolve() == Path(port).resolve():
                return str(link)
    return port


def has_serial_number(port: str, sys: Path = SYS) -> bool:
    """Whether the USB cable at a port has a serial number; true also for what is no USB cable."""
    device = (sys / 'class/tty' / Path(port).resolve().name / 'device').resolve()
    for folder in (device, *device.parents):
        if (folder / 'idVendor').exists():  # the USB device, whose interfaces are below it
            return (folder / 'serial').exists()
    return True


def facts_of(port: str) -> PortFacts:
    """What there is under the name of a port, and who may open it; the usual where the system does not say."""
    user = 'this user'
    with suppress(KeyError, OSError):
        user = getpass.getuser()
    facts = PortFacts(user=user)
    try:
        status = Path(port).stat()
    except OSError:
        return facts
    number = status.st_gid
    group = str(number)
    members: list[str] = []
    with suppress(KeyError):
        entry = grp.getgrgid(number)
        group, members = entry.gr_name, entry.gr_mem
    needed = stat.S_IRGRP | stat.S_IWGRP
    return facts._replace(
        is_there=True,
        what_else=what_else_it_is(port),
        group=group,
        group_may_open=status.st_mode & needed == needed,
        user_is_in_group=user in members,
        group_is_hidden=number == UNMAPPED_GROUP,
    )


def what_else_it_is(port: str) -> str:
    """What this name stands for instead of a serial port, such as 'a folder'; '' when nothing speaks against one."""
    try:
        status = Path(port).stat()
    except OSError:
        return ''
    if stat.S_ISDIR(status.st_mode):
        return 'a folder'
    if not stat.S_ISCHR(status.st_mode):
        return 'a file'
    if not _may_be_terminal(os.major(status.st_rdev)):
        return 'another kind of device'
    return ''


def _may_be_terminal(major: int) -> bool:
    """Whether a device with this major number is a terminal, as serial ports are, or cannot be told from one."""
    try:
        drivers = Path('/proc/tty/drivers').read_text()
    except OSError:  # hidden, as by ProcSubset=pid in a unit of systemd
        return True
    majors_of_terminals = set()
    for driver in drivers.splitlines():
        _, driver_major, _minors, _type = driver.rsplit(maxsplit=3)
        majors_of_terminals.add(int(driver_major))
    return major in majors_of_terminals


class Users(NamedTuple):
    """The other programs that have a port open, such as 'minicom (pid 812)'.

    `some_are_hidden` when there are programs of other users, which this one may not examine.
    """

    names: list[str]
    some_are_hidden: bool


def programs_using(port: str) -> Users:
    """Which other programs have the port open."""
    device = Path(port).resolve()
    names: list[str] = []
    some_are_hidden = False
    try:
        processes = list(_other_processes())
    except OSError:  # no file descriptor is left, for example
        return Users(names, some_are_hidden=True)
    for process in processes:
        try:
            if _has_open(process, device):
                names.append(f'{printable(_command(process))} (pid {process.name})')
        except PermissionError:
            some_are_hidden = True
        except OSError:  # the process has ended
            continue
    return Users(names, some_are_hidden)


def _other_processes() -> Iterator[Path]:
    own = str(os.getpid())
    for process in Path('/proc').glob('[0-9]*'):
        if process.name != own:
            yield process


def _has_open(process: Path, device: Path) -> bool:
    """Whether the process at this folder of /proc has the device open. Raises OSError."""
    files = (process / 'fd').iterdir()
    return any(file.readlink() == device for file in files)


def _command(process: Path) -> str:
    """The name of a program, with its script when it runs one: 'python3 /opt/example.py'. Raises OSError.

    No other argument is shown, because it may be a secret.
    """
    name = (process / 'comm').read_bytes().decode('latin-1').strip()
    command_line = (process / 'cmdline').read_bytes().decode('latin-1')
    _, *arguments = command_line.split('\0')
    script = _script(process / 'cwd', arguments)
    return f'{name} {script}'.strip()


def _script(folder: Path, arguments: list[str]) -> str:
    """The first argument that is no option, if it names a file, such as the script of an interpreter; else ''.

    Python's option -m names a module instead. `folder` is the current one of the process.
    """
    pairs = pairwise(['', *arguments])
    no_options = (pair for pair in pairs if not pair[1].startswith('-'))
    before, argument = next(no_options, ('', ''))
    if before == '-m':
        return f'-m {argument}'
    if (folder / argument).is_file():
        return argument
    return ''
