"""P1Reader: the meter's port, opened with pyserial, as a series of readings. The only module that touches pyserial.

dsmr_parser's SerialReader supplies the shape: made from a device, serial settings and a specification, and a read()
that generates what the meter sends. The port and the loop are this module's own, because the library's reads through
another serial package since 1.7 and never returns on a silent line.
"""

import errno
import fcntl
import getpass
import grp
import logging
import termios
import time
from array import array
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import serial
from dlms_cosem.connection import XDlmsApduFactory
from dsmr_parser import telegram_specifications
from dsmr_parser.clients.serial_ import SerialReader
from dsmr_parser.clients.settings import SERIAL_SETTINGS_V5

from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.reading import Reading, UnusableTelegramError, make_reading
from dsmr_rest.serial_line import BAUD_RATES, BITS_PER_BYTE, LineCounters
from dsmr_rest.specification import Chooser
from dsmr_rest.telegram import EncryptedFrame, Framer, Telegram

log = logging.getLogger(__name__)

TICK = 0.25
"""Seconds that a read waits for the first byte: how soon the caller can end the reading of a silent line."""
END_IN_SIGHT = 48
"""Bytes before the expected end of a telegram from which each arrival is looked at; before that they gather.

Weighed by `python -m benchmarks`, which has arrivals of 16 and of 180 bytes: delay on one side, CPU on the other.
"""
LINE_CHUNK = 512
"""Bytes: more at a time than a serial adapter hands over, so it comes from something faster than a line."""
LONGEST_SILENCE = 11.0
"""Seconds. Meters speak at least every 10 s (DSMR 2.2 to 4.x), so a longer silence means another speed, or no peer."""
STRANGE = 16
"""Bytes that are no text before they mean a wrong speed: more than a cut line's end, less than a telegram's header."""
MOST_LOGGED = 50
"""Kinds of problem that are logged, once each."""
SAMPLE = 64
"""Bytes kept from the beginning of an opening, to show when they are no telegram."""

PUBLIC_AUTHENTICATION_KEY: str = telegram_specifications.MSN['authentication_key']
"""Luxmetering E-Meter P1 specification 3.2.5: the same for all its meters; others use their own."""

EIGHT_BITS = (serial.EIGHTBITS, serial.PARITY_NONE)


class SpeedSearch:
    """Finds the line's speed by what arrives at one of two. Pure: times are given, monotonic seconds.

    At a speed that was never seen to work, bytes that are no text mean the other one at once. After such a change only
    a whole burst without anything of a telegram does, and at a speed that worked only if there was no telegram for a
    while: noise may come before every telegram, and the rest of an encrypted frame looks like noise.
    """

    def __init__(self, *speeds: int) -> None:
        self._speeds = speeds
        self.speed = speeds[0]
        self.tried = [self.speed]
        self._confirmed = False
        self._hasty = True
        # Seconds at this speed, over all openings: without a byte, and listened to since the last telegram.
        self._silent = self._listened = 0.0
        self._listens_from = 0.0

    def opened(self, now: float) -> None:
        """The port was opened."""
        self._listens_from = now

    def found(self, now: float) -> None:
        """A telegram arrived at this speed."""
        self._confirmed, self._hasty, self._listened, self._listens_from = True, False, 0.0, now
        self.tried = [self.speed]

    def silence(self, seconds: float, now: float) -> bool:
        """A read ended without a byte after so many seconds. True when it changed the speed."""
        self._silent += seconds
        return self._silent > LONGEST_SILENCE and self._change(now, hasty=True)

    def bytes_came(self, framer: Framer, now: float, *, burst_over: bool = False) -> bool:
        """Bytes came, and the framer counted them. True when it changed the speed."""
        self._silent = 0.0
        self._listened, self._listens_from = self._listened + now - self._listens_from, now
        odd = not framer.inside and framer.unprintable * 5 > framer.unexplained  # a text may have foreign letters
        if framer.unexplained < STRANGE or not (odd or burst_over):
            return False
        patience = LONGEST_SILENCE if self._confirmed or not burst_over else 0
        return (self._hasty or self._listened > patience) and self._change(now, hasty=False)

    def refused(self, now: float) -> bool:
        """The port cannot have this speed. True when there is another."""
        return self._change(now, hasty=True)

    def _change(self, now: float, *, hasty: bool) -> bool:
        self._silent, self._listened, self._listens_from = 0.0, 0.0, now
        if len(self._speeds) == 1:
            return False
        self.speed = next(speed for speed in self._speeds if speed != self.speed)
        self.tried = [*dict.fromkeys([*self.tried, self.speed])]
        self._confirmed, self._hasty = False, hasty
        return True


class P1Reader(SerialReader):  # type: ignore[misc] # the library has no types
    """Reads the meter at `settings.port`; one thread at a time."""

    def __init__(self, settings: MeterSettings) -> None:
        # A copy of the serial settings: the library writes the device into what is a global of its module.
        super().__init__(settings.port, dict(SERIAL_SETTINGS_V5), telegram_specifications.V5)
        self.settings = settings
        self.counters = LineCounters()
        self.sample = b''
        self.speeds = SpeedSearch(*((115200, 9600) if settings.line == 'auto' else (BAUD_RATES[settings.line],)))
        self._framer = Framer()
        self._length = 0  # of the last telegram
        self._chooser = Chooser(settings.specification)
        self._has_decrypted = False
        self._logged: set[tuple[str, ...]] = set()
        self._is_remote = '://' in settings.port
        self._is_socket = settings.port.startswith('socket://')

    @property
    def line(self) -> str:
        """The line settings in use, as config.ini names them; 7E1 is read at 8N1 too, so 9600 has its usual name."""
        if self.settings.line != 'auto':
            return self.settings.line
        return '115200 8N1' if self.speeds.speed == BAUD_RATES['115200 8N1'] else '9600 7E1'

    def read(self) -> Generator[Reading | None, None, None]:
        """Opens the port and generates a reading per usable telegram, and None whenever there was none for a moment.

        At least every TICK seconds, so that the caller can end it; closing the generator closes the port. Raises
        MeterError when the port cannot be opened or is lost, and when telegrams cannot be decrypted.
        """
        while True:  # a peer on the network that went away without a word is silent for ever: connect anew
            with closing(self._open()) as port:
                try:
                    yield from self._read_port(port)
                except OSError as error:
                    self.counters = self.counters.plus(port_losses=1)
                    detail = f'{self.settings.port} was lost while it was read ({error}): check the cable'
                    raise MeterError(Fault.PORT_LOST, detail) from error

    def nothing_usable(self, before: LineCounters, waited: float) -> MeterError:
        """Why there was no reading for so many seconds, by what was seen since `before`."""
        seen, where = self.counters.since(before), f'on {self.settings.port} in {waited:.1f} s'
        if seen.decryption_failures:
            return MeterError(
                Fault.DECRYPTION_FAILED, f'{seen.decryption_failures} telegrams could not be decrypted {where}'
            )
        if seen.checksum_failures:
            return MeterError(
                Fault.CHECKSUM_FAILED,
                f'{seen.checksum_failures} telegrams with a wrong or missing checksum {where}, none with a right one:'
                ' check the cable, and that no other program reads the port',
            )
        if seen.incomplete_telegrams or (seen.received_bytes and self._framer.inside):
            return MeterError(
                Fault.TELEGRAM_INCOMPLETE, f'{seen.received_bytes} bytes but no telegram that ended {where}'
            )
        if seen.received_bytes:
            return MeterError(
                Fault.LINE_GARBLED,
                f'{seen.received_bytes} bytes but no telegram {where}: check [meter] line (now {self.line}) and whether'
                ' the cable inverts the signal',
            )
        return MeterError(Fault.METER_SILENT, f'no byte {where}: check the cable, and that the P1 port is switched on')

    def _open(self, *, again: bool = True) -> Any:
        framing = (serial.SEVENBITS, serial.PARITY_EVEN) if self.settings.line.endswith('7E1') else EIGHT_BITS
        try:
            try:
                port = self._open_as(*framing)
            except termios.error:  # a pseudo-terminal knows no parity; 7E1 can be read at 8N1
                port = self._open_as(*EIGHT_BITS)
        except (OSError, ValueError, termios.error) as error:  # ValueError: settings that the port cannot take
            if isinstance(error, ValueError) and again and self.speeds.refused(time.monotonic()):
                return self._open(again=False)
            raise cannot_open(self.settings.port, error) from error
        self.counters = self.counters.plus(port_openings=1)
        self.sample = b''
        self._framer = Framer()
        return port

    def _open_as(self, bytesize: int, parity: str) -> Any:
        port = self.settings.port
        if port.startswith('rfc2217:'):  # a line without DTR and RTS never confirms them, and nothing here needs that
            port += ('&' if '?' in port else '?') + 'ign_set_control'
        return serial.serial_for_url(
            port,
            baudrate=self.speeds.speed,
            bytesize=bytesize,
            parity=parity,
            timeout=TICK,
            exclusive=True,
        )

    def _read_port(self, port: Any) -> Iterator[Reading | None]:
        heard = time.monotonic()
        self.speeds.opened(heard)
        burst_over = True
        while True:
            data = self._arrived(port)
            now = time.monotonic()
            if data:
                heard, burst_over = now, False
                yield from self._readings(data, now)
                self._gather(len(data))
                changed = self.speeds.bytes_came(self._framer, now)
            elif not burst_over:
                burst_over = True
                changed = self.speeds.bytes_came(self._framer, now, burst_over=True)
            else:
                changed = self.speeds.silence(TICK, now)
            if changed:
                self._framer = Framer()
                try:
                    port.baudrate = self.speeds.speed
                except ValueError:  # the other end of rfc2217 may have one speed only
                    self.speeds.refused(now)
                    port.baudrate = self.speeds.speed
            if self._is_remote and now - heard > LONGEST_SILENCE:
                return
            yield None

    def _arrived(self, port: Any) -> bytes:
        first: bytes = port.read(1)
        if not first:
            return b''
        rest: bytes = port.read(_in_socket(port) if self._is_socket else port.in_waiting)
        return first + rest

    def _gather(self, arrived: int) -> None:
        """Sleeps while the greater part of a telegram comes in, by the length of the one before.

        Each wake-up costs as much as 50 bytes' framing, so few are better; but the end must be seen as soon as it is
        there. What comes faster than the line can carry is not on a line, and waits already.
        """
        missing = self._length - self._framer.pending - END_IN_SIGHT
        if 0 < missing < self._length - END_IN_SIGHT and arrived < LINE_CHUNK:
            time.sleep(min(TICK, missing * BITS_PER_BYTE / self.speeds.speed))

    def _readings(self, data: bytes, now: float) -> Iterator[Reading]:
        self.counters = self.counters.plus(received_bytes=len(data))
        self.sample = (self.sample + data)[:SAMPLE] if len(self.sample) < SAMPLE else self.sample
        incomplete = self._framer.incomplete
        found = self._framer.feed(data)
        self.counters = self.counters.plus(incomplete_telegrams=self._framer.incomplete - incomplete)
        received = time.time()
        for item in found:
            self.speeds.found(now)
            self._length = len(item.raw)
            encrypted = isinstance(item, EncryptedFrame)
            for telegram in self._decrypt(item) if isinstance(item, EncryptedFrame) else [item]:
                try:
                    reading = make_reading(telegram, self._chooser, received, now, encrypted=encrypted)
                except UnusableTelegramError as error:
                    self.counters = self.counters.plus(checksum_failures=error.fault is Fault.CHECKSUM_FAILED)
                    continue
                self.counters = self.counters.plus(telegrams=1)
                self._log_once(reading)
                yield reading

    def _decrypt(self, frame: EncryptedFrame) -> list[Telegram]:
        settings = self.settings
        if not settings.decryption_key:
            raise MeterError(
                Fault.DECRYPTION_FAILED,
                f'the meter at {settings.port} sends encrypted telegrams: ask the grid operator for its key and set'
                ' [meter] decryption_key',
            )
        try:
            apdu = XDlmsApduFactory.apdu_from_bytes(frame.raw)
            plain: bytes = apdu.to_plain_apdu(
                bytes.fromhex(settings.decryption_key),
                bytes.fromhex(settings.authentication_key or PUBLIC_AUTHENTICATION_KEY),
            )
        except Exception as error:
            self.counters = self.counters.plus(decryption_failures=1)
            # One may have been damaged on its way; when the keys have worked, any.
            if self._has_decrypted or self.counters.decryption_failures == 1:
                return []
            raise MeterError(
                Fault.DECRYPTION_FAILED,
                f'the telegrams of the meter at {settings.port} cannot be decrypted with [meter] decryption_key and'
                ' authentication_key: check both',
            ) from error
        self._has_decrypted = True
        found = Framer().feed(plain + b'\n')
        return [telegram for telegram in found if isinstance(telegram, Telegram)]

    def _log_once(self, reading: Reading) -> None:
        kind = (reading.specification, *reading.not_understood)
        if reading.not_understood and kind not in self._logged and len(self._logged) < MOST_LOGGED:
            self._logged.add(kind)
            log.warning(
                'specification %s%s: no value from the lines %s',
                reading.specification,
                ' (unsure)' if reading.unsure else '',
                ' '.join(reading.not_understood),
            )


_FAULTS = {
    errno.EACCES: Fault.PORT_DENIED,
    errno.EPERM: Fault.PORT_DENIED,
    errno.EAGAIN: Fault.PORT_BUSY,  # another has locked it
    errno.EBUSY: Fault.PORT_BUSY,
}


def _in_socket(port: Any) -> int:
    """How many bytes wait; pyserial's own says at most 1 of a socket."""
    count = array('i', [0])
    fcntl.ioctl(port.fileno(), termios.FIONREAD, count)
    return count[0]


def cannot_open(port: str, error: Exception) -> MeterError:
    """The error of opening as a MeterError with what to do."""
    fault = _FAULTS.get(getattr(error, 'errno', None) or 0, Fault.PORT_MISSING)
    if fault is Fault.PORT_DENIED:
        user, group = 'this user', 'dialout'  # the group that Debian gives serial ports to
        with suppress(KeyError, OSError):  # there may be no names for the numbers
            user = getpass.getuser()
            group = grp.getgrgid(Path(port).stat().st_gid).gr_name
        advice = f'may not be opened by {user}: sudo usermod -a -G {group} {user}, then log in again'
    elif fault is Fault.PORT_BUSY:
        advice = 'is in use by another program'
    elif '://' in port:
        advice = f'does not answer ({error}): check [meter] port and that a server listens there'
    elif not Path(port).exists():
        advice = 'is not there: check the cable and [meter] port'
    else:
        advice = f'cannot be used as a serial port ({error}): check [meter] port'
    return MeterError(fault, f'{port} {advice}')
