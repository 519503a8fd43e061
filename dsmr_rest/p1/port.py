"""The serial port, at this machine or behind a TCP socket. The only module that touches pyserial.

It opens the port, reads what has arrived, discards it, and changes the baud rate; its errors are OSErrors. It does not
know what the bytes mean, when to change the baud rate, or what a person should do about an error.

A line of 7E1 is read at 8N1. Both have ten bits on the wire for a byte, and a port that is set to 7E1 strips the
parity bit without a look at it, because pyserial clears INPCK (termios(3)). At 8N1 it stays in bit 7, where proof.py
checks it.
"""

import errno
import fcntl
import os
import termios
from array import array
from pathlib import Path
from typing import Any

import serial

TICK = 0.25
"""Seconds that a read waits for the first byte: how soon the caller can end the reading of a silent line."""
READ_LIMIT = 64 * 1024
"""Bytes taken by one read: 20 telegrams of the longest kind. A peer that sends without end must not fill the memory."""
SOCKET_SCHEME = 'socket://'


def is_remote(port: str) -> bool:
    """Whether [meter] port is on another machine."""
    return port.startswith(SOCKET_SCHEME)


def serial_settings() -> dict[str, Any]:
    """The arguments of pyserial's serial_for_url() for every line, but for the port itself and its baud rate."""
    return {
        'timeout': TICK,
        'exclusive': True,
        'bytesize': serial.EIGHTBITS,
        'parity': serial.PARITY_NONE,
        'stopbits': serial.STOPBITS_ONE,
    }


class Port:
    """An open port. One thread at a time."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Opens the port with these arguments of serial_for_url(). Raises OSError."""
        try:
            self._port: Any = serial.serial_for_url(**settings)
        except ValueError as error:  # pyserial cannot make sense of the URL
            raise OSError(errno.EINVAL, str(error)) from error
        except termios.error as error:  # lost meanwhile: an OSError in all but its type
            raise OSError(*error.args) from error
        except serial.SerialException as error:
            raise _cause_of(error) from error
        self._name: str = settings['url']
        self._is_socket = is_remote(self._name)

    def read(self) -> bytes:
        """What has arrived, as soon as there is anything, at most READ_LIMIT bytes; nothing after TICK.

        Raises OSError when the port is lost.
        """
        first: bytes = self._port.read(1)
        if not first:
            return b''
        available = min(self._available(), READ_LIMIT - 1)
        rest: bytes = self._port.read(available)
        return first + rest

    @property
    def is_there(self) -> bool:
        """Whether a local port still works: it is a terminal that has not been hung up, under the same name."""
        if self._is_socket or not Path(self._name).exists():
            return False
        try:
            termios.tcgetattr(self._port.fileno())
        except (OSError, termios.error):
            return False
        return True

    def discard(self) -> None:
        """Drops what has arrived. Raises OSError."""
        try:
            self._port.reset_input_buffer()
        except termios.error as error:  # as above
            raise OSError(*error.args) from error

    def set_baud_rate(self, baud_rate: int) -> None:
        """Raises OSError."""
        self._port.baudrate = baud_rate

    def close(self) -> None:
        """Closes the port, also one that is lost."""
        self._port.close()

    def _available(self) -> int:
        """How many bytes have arrived; pyserial's own in_waiting is at most 1 for a socket."""
        if not self._is_socket:
            waiting: int = self._port.in_waiting
            return waiting
        count = array('i', [0])
        fcntl.ioctl(self._port.fileno(), termios.FIONREAD, count)
        return count[0]


def _cause_of(error: serial.SerialException) -> OSError:
    """The error of the system that made pyserial raise its own, which has the text of that within its own text."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.errno is not None:
        return OSError(cause.errno, os.strerror(cause.errno))
    if isinstance(cause, termios.error):
        return OSError(*cause.args)
    return error
