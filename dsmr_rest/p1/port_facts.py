"""What Linux says about serial ports: which there are, under which names, and which programs have one open.

It looks at /dev and /proc, and opens no port. It does not know what follows from what it finds.
"""

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
                name = (process / 'comm').read_bytes().decode('latin-1').strip()
                lines.append(f'{port} is open in {printable(name)} (pid {process.name})')
        except PermissionError:
            some_are_hidden = True
        except OSError:  # the process has ended
            continue
    if some_are_hidden:
        lines.append(
            'Programs of other users cannot be examined: run this again with sudo to see which have the port open.'
        )
    return lines


def _has_open(process: Path, device: Path) -> bool:
    """Whether the process at this folder of /proc has the device open. Raises OSError."""
    files = (process / 'fd').iterdir()
    return any(file.readlink() == device for file in files)
