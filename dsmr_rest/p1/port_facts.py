"""What Linux says about serial ports: which there are, under which names, and which programs have one open.

It looks at /dev and /proc, and opens no port. It does not know what follows from what it finds.
"""

import os
import stat
from itertools import pairwise
from pathlib import Path

from dsmr_rest.printable import printable

DEV = Path('/dev')
SERIAL_PORTS = ('ttyUSB*', 'ttyACM*', 'ttyAMA*', 'ttyS[0-9]')
"""Names in /dev: of USB cables, then of the built-in ports of a Raspberry Pi and of a PC."""


def serial_ports(dev: Path = DEV) -> list[str]:
    """The serial ports of this machine, each with its persistent name if it has one."""
    persistent_names = {}
    for link in (dev / 'serial/by-id').glob('*'):
        persistent_names[link.resolve()] = link
    ports = []
    for pattern in SERIAL_PORTS:
        for port in sorted(dev.glob(pattern)):
            name = persistent_names.get(port.resolve())
            if name:
                ports.append(f'{port} = {name}')
            else:
                ports.append(str(port))
    return ports


def persistent_name(port: str, dev: Path = DEV) -> str:
    """The port's name in /dev/serial/by-id, which does not change when the cable is plugged in elsewhere.

    A port without such a name, a link that the user made and a port on another machine keep their names.
    """
    if Path(port).is_symlink():
        return port
    device = Path(port).resolve()
    for link in sorted((dev / 'serial/by-id').glob('*')):
        if link.resolve() == device:
            return str(link)
    return port


def programs_using(port: str) -> list[str]:
    """A line for each process that has the port open, and one when there are processes that may not be examined."""
    device = Path(port).resolve()
    lines = []
    some_are_hidden = False
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if _has_open(process, device):
                name = printable(_command(process))
                lines.append(f'{port} is open in {name} (pid {process.name})')
        except PermissionError:
            some_are_hidden = True
        except OSError:  # the process has ended
            continue
    if some_are_hidden:
        lines.append(_who_can_see_the_others())
    return lines


def _who_can_see_the_others() -> str:
    if os.geteuid() == 0:
        return 'Some programs cannot be examined, not even by root: in a container, look on the machine that runs it.'
    return 'Programs of other users cannot be examined: run this again with sudo to see which have the port open.'


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
    for option, argument in pairwise(['', *arguments]):
        if option == '-m':
            return f'-m {argument}'
        is_option = argument.startswith('-')
        if not is_option and (folder / argument).is_file():
            return argument
        if not is_option:
            return ''
    return ''


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


def _has_open(process: Path, device: Path) -> bool:
    """Whether the process at this folder of /proc has the device open. Raises OSError."""
    files = (process / 'fd').iterdir()
    return any(file.readlink() == device for file in files)
