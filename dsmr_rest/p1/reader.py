"""P1Reader: the meter's port as a series of readings. The only module that touches pyserial.

It is dsmr_parser's SerialReader, made from a device, serial settings and a specification, whose read() generates what
the meter sends. It opens the port with the serial settings of that base, but with pyserial, and in a loop of its own:
since dsmr_parser 1.7 the base reads through another serial package, and its read() never returns on a silent line.

This module knows the port, the order of decryption and reading, and what to report when there is no reading. It does
not know who waits for a reading, and it has no threads.
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
from typing import Any, NoReturn

import serial
from dlms_cosem.connection import XDlmsApduFactory
from dsmr_parser import telegram_specifications
from dsmr_parser.clients.serial_ import SerialReader

from dsmr_rest import clock
from dsmr_rest.choices import BAUD_RATES
from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import Fault, MeterError
from dsmr_rest.p1.baud_rate_search import BaudRateSearch
from dsmr_rest.p1.framing import EncryptedFrame, Framer
from dsmr_rest.p1.line import BITS_PER_BYTE, LONGEST_SILENCE, LineCounters
from dsmr_rest.reading.document import Reading, UnusableTelegramError, make_reading
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.reading.telegram import Telegram

log = logging.getLogger(__name__)

TICK = 0.25
"""Seconds that a read waits for the first byte: how soon the caller can end the reading of a silent line."""
LONGEST_ROUND = 2 * TICK
"""Seconds from one read to the next: bytes may gather for a TICK, and a read may wait for one."""
STALL_TIME = 1.0
"""Seconds beyond those that reading takes, after which what arrived meanwhile is of unknown age."""
END_IN_SIGHT = 16
"""Bytes before the expected end of a telegram from which each arrival is read at once; before that they gather.

Weighed by `python -m benchmarks`, which has arrivals of 16 and of 180 bytes: delay on one side, CPU on the other.
"""
LINE_CHUNK = 512
"""Bytes: more at a time than a serial adapter hands over, so it comes from something faster than a line."""
PROBLEMS_LOGGED = 50
"""Kinds of problem that are logged, once each: a line that garbles its telegrams must not fill the log."""
CODES_LOGGED = 10
"""OBIS codes named in one log line."""
SAMPLE_SIZE = 64
"""Bytes kept from the beginning of an opening, to show when they are not a telegram."""

PUBLIC_AUTHENTICATION_KEY: str = telegram_specifications.MSN['authentication_key']
"""Luxmetering E-Meter P1 specification 3.2.5: the same for all its meters; others use their own."""

UNMAPPED_GROUP = 65534
"""What a group is shown as that is not mapped in this user namespace (user_namespaces(7)), as with PrivateUsers=."""

EIGHT_BITS = {'bytesize': serial.EIGHTBITS, 'parity': serial.PARITY_NONE}
SEVEN_BITS = {'bytesize': serial.SEVENBITS, 'parity': serial.PARITY_EVEN}


class P1Reader(SerialReader):  # type: ignore[misc] # the library has no types
    """Reads the meter at `settings.port`; one thread at a time.

    `counters` is what happened on the line so far, `sample` the first bytes since the port was opened, and
    `invalid_because` why the last telegram that arrived intact was not valid. They may be read from any thread.
    `longest_silence` is in seconds, see LONGEST_SILENCE.
    """

    def __init__(self, settings: MeterSettings, longest_silence: float = LONGEST_SILENCE) -> None:
        super().__init__(
            _url(settings.port), _serial_settings(settings.line), telegram_specifications.V5
        )
        self.settings = settings
        self.counters = LineCounters()
        self.sample = b''
        self.invalid_because = ''
        self._longest_silence = longest_silence
        self._search = BaudRateSearch(*_baud_rates(settings.line), longest_silence=longest_silence)
        self._framer = Framer()
        self._last_length = 0  # bytes of the last telegram or frame
        self._chooser = Chooser(settings.specification, settings.time_zone)
        self._has_decrypted = False
        self._logged: set[tuple[str, ...]] = set()
        self._is_remote = '://' in settings.port
        self._is_socket = settings.port.startswith('socket://')

    @property
    def line(self) -> str:
        """The line settings in use, as config.ini names them; 7E1 is read at 8N1 too, so 9600 has its usual name."""
        if self.settings.line != 'auto':
            return self.settings.line
        if self._search.baud_rate == BAUD_RATES['115200 8N1']:
            return '115200 8N1'
        return '9600 7E1'

    @property
    def baud_rates_tried(self) -> list[int]:
        """The baud rates at which no telegram was found, or the one at which the last was."""
        return list(self._search.tried)

    def read(self) -> Generator[Reading | None, None, None]:
        """Opens the port and generates a reading per usable telegram, and None whenever there was none for a moment.

        Something is generated at least every TICK seconds, so that the caller can stop; closing the generator closes
        the port. Raises MeterError when the port cannot be opened or is lost, and when telegrams cannot be decrypted.
        """
        while True:
            with closing(self._open()) as port:
                try:
                    yield from self._read_port(port)
                except OSError as error:
                    self._count(port_losses=1)
                    raise self._port_lost(error) from error

    def read_as_object(self) -> NoReturn:
        """Not supported: the base would open the port a second time, through another serial package."""
        raise NotImplementedError(
            'P1Reader generates its readings with read(); read_as_object() is not supported'
        )

    def nothing_usable(self, before: LineCounters, waited: float) -> MeterError:
        """Why there was no reading for `waited` seconds, by what was counted since `before`."""
        counted = self.counters.since(before)
        where = f'on {self.settings.port} in {waited:.1f} s'
        received = f'{counted.received_bytes} bytes were received {where}'
        # First, because a telegram that arrived intact should have been a reading, whatever happened to the others.
        if counted.invalid_telegrams:
            intact = f'{counted.invalid_telegrams} encrypted telegrams arrived intact {where}'
            detail = f'{intact}, but are not valid ({self.invalid_because})'
            remedy = 'the cable and the keys are right; check [meter] specification, or report it'
            return MeterError(Fault.TELEGRAM_INVALID, f'{detail}: {remedy}')
        if counted.decryption_failures:
            failures = f'{counted.decryption_failures} failed'
            detail = f'no telegram that was received {where} could be decrypted ({failures})'
            remedy = 'check the cable, and [meter] decryption_key and authentication_key'
            return MeterError(Fault.DECRYPTION_FAILED, f'{detail}: {remedy}')
        if counted.checksum_failures:
            failures = f'{counted.checksum_failures} with a wrong or missing checksum'
            detail = f'only damaged telegrams were received {where} ({failures})'
            remedy = 'check the cable, and that no other program reads the port'
            return MeterError(Fault.CHECKSUM_FAILED, f'{detail}: {remedy}')
        is_incomplete = counted.received_bytes and self._framer.inside
        if counted.incomplete_telegrams or is_incomplete:
            remedy = 'check the cable, and that [meter] timeout is long enough'
            detail = f'{received}, but no complete telegram: {remedy}'
            return MeterError(Fault.TELEGRAM_INCOMPLETE, detail)
        if counted.received_bytes:
            remedy = (
                f'check [meter] line (now {self.line}), and that the cable is made for the P1 port'
            )
            return MeterError(
                Fault.LINE_GARBLED, f'{received}, but they are not a telegram: {remedy}'
            )
        remedy = 'check the cable, and that the P1 port is switched on'
        if waited < self._longest_silence:
            remedy = f'wait longer, because some meters send only every 10 s, or {remedy}'
        return MeterError(Fault.METER_SILENT, f'no byte was received {where}: {remedy}')

    def _port_lost(self, error: OSError) -> MeterError:
        remedy = 'check the cable'
        if self._is_remote:
            remedy = 'check the network, and the program that serves the port there'
        detail = f'{self.settings.port} was lost during a reading ({error}): {remedy}'
        return MeterError(Fault.PORT_LOST, detail)

    def _open(self) -> Any:
        try:
            port = self._open_at_accepted_baud_rate()
        except (OSError, ValueError, termios.error) as error:
            raise cannot_open(self.settings.port, error) from error
        self._count(port_openings=1)
        self.sample = b''
        self._framer = Framer()
        return port

    def _open_at_accepted_baud_rate(self) -> Any:
        try:
            return self._open_with_settings()
        except ValueError:  # a setting that the port cannot have: the other end of rfc2217 may have one baud rate only
            if not self._search.refused():
                raise
        return self._open_with_settings()

    def _open_with_settings(self) -> Any:
        self.serial_settings['baudrate'] = self._search.baud_rate
        try:
            return serial.serial_for_url(**self.serial_settings)
        # A pseudo-terminal may refuse 7E1, which can be read at 8N1: see restore_parity().
        except termios.error:
            settings_without_parity = self.serial_settings | EIGHT_BITS
        return serial.serial_for_url(**settings_without_parity)

    def _read_port(self, port: Any) -> Iterator[Reading | None]:
        """Generates readings until the port is lost, or a remote port has been silent for too long.

        A peer on the network that went away without a word is silent for ever, so it must be connected to again.
        """
        last_heard = last_read = clock.now()
        while True:
            began = clock.now()
            data = self._read_available(port)
            now = clock.now()
            was_stalled = now - last_read > LONGEST_ROUND + STALL_TIME
            last_read = now
            if was_stalled:
                self._discard(port)
                yield None
                continue
            if data:
                last_heard = now
                yield from self._readings(data, now)
                self._gather(len(data))
            if self._baud_rate_changed(data, now - began):
                self._set_baud_rate(port)
            if self._is_remote and now - last_heard > self._longest_silence:
                return
            yield None

    def _read_available(self, port: Any) -> bytes:
        """What has arrived, as soon as there is anything; nothing after TICK."""
        first: bytes = port.read(1)
        if not first:
            return b''
        available = port.in_waiting
        if self._is_socket:
            available = _available_in_socket(port)
        rest: bytes = port.read(available)
        return first + rest

    def _discard(self, port: Any) -> None:
        """Drops what has arrived, and what there is of a telegram.

        A process that is stopped, or swapped out, reads late what the kernel received in time. Such a telegram must not
        be served as a new one.
        """
        port.reset_input_buffer()
        self._framer = Framer()

    def _gather(self, arrived: int) -> None:
        """Sleeps while the greater part of a telegram arrives, by the length of the one before.

        Each wake-up costs as much as framing 50 bytes, so few are better; but the end must be seen as soon as it is
        there. What arrives faster than a line can carry is not on a line, and is there already.
        """
        if arrived >= LINE_CHUNK:
            return
        before_end = self._last_length - END_IN_SIGHT
        missing = before_end - self._framer.pending
        if 0 < missing < before_end:
            time.sleep(min(TICK, missing * BITS_PER_BYTE / self._search.baud_rate))

    def _baud_rate_changed(self, data: bytes, seconds: float) -> bool:
        """Reports a read of `seconds` to the search; True when the port must be set to another baud rate."""
        framer = self._framer
        if not data:
            return self._search.nothing_arrived(seconds, framer.unexplained)
        return self._search.bytes_arrived(
            seconds, framer.unexplained, framer.unprintable, inside_telegram=framer.inside
        )

    def _set_baud_rate(self, port: Any) -> None:
        self._framer = Framer()
        try:
            port.baudrate = self._search.baud_rate
        except ValueError:  # as at the opening
            self._search.refused()
            port.baudrate = self._search.baud_rate

    def _readings(self, data: bytes, arrived: float) -> Iterator[Reading]:
        """The readings of the telegrams that end within `data`."""
        received = time.time()
        for found in self._feed(data):
            self._search.telegram_found()
            self._last_length = len(found.raw)
            is_encrypted = isinstance(found, EncryptedFrame)
            for telegram in self._decrypted(found):
                reading = self._make_reading(telegram, received, arrived, encrypted=is_encrypted)
                if reading:
                    yield reading

    def _feed(self, data: bytes) -> list[Telegram | EncryptedFrame]:
        missing_sample = SAMPLE_SIZE - len(self.sample)
        if missing_sample > 0:
            self.sample += data[:missing_sample]
        incomplete_before = self._framer.incomplete
        found = self._framer.feed(data)
        incomplete = self._framer.incomplete - incomplete_before
        self._count(received_bytes=len(data), incomplete_telegrams=incomplete)
        return found

    def _make_reading(
        self, telegram: Telegram, received: float, arrived: float, *, encrypted: bool
    ) -> Reading | None:
        """The boundary of a telegram: whatever is wrong with it costs its reading, and nothing else."""
        try:
            reading = make_reading(telegram, self._chooser, received, arrived, encrypted=encrypted)
        except UnusableTelegramError as error:
            if encrypted:
                self._count_invalid(str(error))
            elif error.fault is Fault.CHECKSUM_FAILED:
                self._count(checksum_failures=1)
            return None
        except Exception as error:
            if self._is_new_problem('no reading', type(error).__name__):
                log.exception('a telegram from %s could not be read', self.settings.port)
            return None
        self._count(telegrams=1)
        self._log_not_understood(reading)
        return reading

    def _decrypted(self, found: Telegram | EncryptedFrame) -> list[Telegram]:
        """The telegrams in what was found. Raises MeterError when frames arrive and the keys do not work."""
        if isinstance(found, Telegram):
            return [found]
        if not self.settings.decryption_key:
            detail = f'the meter at {self.settings.port} sends encrypted telegrams'
            remedy = 'ask the grid operator for its key and set [meter] decryption_key'
            raise MeterError(Fault.DECRYPTION_FAILED, f'{detail}: {remedy}')
        try:
            plain = _decrypt(found, self.settings)
        except (
            Exception
        ) as error:  # the library raises many kinds, and damaged frames raise any of them
            self._count(decryption_failures=1)
            is_first_failure = self.counters.decryption_failures == 1
            # The frame may have been damaged on its way.
            if self._has_decrypted or is_first_failure:
                return []
            detail = (
                f'the telegrams of the meter at {self.settings.port} cannot be decrypted with [meter] decryption_key'
                ' and authentication_key: check both'
            )
            raise MeterError(Fault.DECRYPTION_FAILED, detail) from error
        self._has_decrypted = True
        inside_frame = Framer().feed(plain + b'\n')
        telegrams = [telegram for telegram in inside_frame if isinstance(telegram, Telegram)]
        if not telegrams:
            self._count_invalid('no whole telegram is in the frame')
        return telegrams

    def _count_invalid(self, reason: str) -> None:
        """Counts a telegram that is not valid although it arrived intact: its frame was decrypted, see _decrypt()."""
        self.invalid_because = reason
        self._count(invalid_telegrams=1)

    def _count(self, **added: int) -> None:
        self.counters = self.counters.plus(**added)

    def _log_not_understood(self, reading: Reading) -> None:
        codes = reading.not_understood
        if not codes or not self._is_new_problem(reading.specification, *codes):
            return
        chosen = reading.specification
        if reading.unsure:
            chosen += ', unsure'
        listed = ' '.join(codes[:CODES_LOGGED])
        if len(codes) > CODES_LOGGED:
            listed += f' and {len(codes) - CODES_LOGGED} more'
        log.warning(
            'specification %s: these lines of the telegram are not understood, and their values are missing: %s',
            chosen,
            listed,
        )

    def _is_new_problem(self, *kind: str) -> bool:
        """Whether to log a problem of this kind: it was not logged before, and not too many were."""
        if kind in self._logged or len(self._logged) >= PROBLEMS_LOGGED:
            return False
        self._logged.add(kind)
        return True


def _url(port: str) -> str:
    """The port as pyserial takes it."""
    if not port.startswith('rfc2217:'):
        return port
    # A line without DTR and RTS never confirms them, and nothing here needs that.
    if '?' in port:
        return f'{port}&ign_set_control'
    return f'{port}?ign_set_control'


def _serial_settings(line: str) -> dict[str, Any]:
    """The arguments of pyserial's serial_for_url(); the base class adds the port, `url`, and writes into this dict."""
    settings: dict[str, Any] = {'timeout': TICK, 'exclusive': True}
    if line.endswith('7E1'):
        return settings | SEVEN_BITS
    return settings | EIGHT_BITS


def _baud_rates(line: str) -> list[int]:
    """Those to search, the one of most meters first."""
    if line == 'auto':
        return [BAUD_RATES['115200 8N1'], BAUD_RATES['9600 7E1']]
    return [BAUD_RATES[line]]


def _available_in_socket(port: Any) -> int:
    """How many bytes have arrived; pyserial's own in_waiting is at most 1 for a socket."""
    count = array('i', [0])
    fcntl.ioctl(port.fileno(), termios.FIONREAD, count)
    return count[0]


def _decrypt(frame: EncryptedFrame, settings: MeterSettings) -> bytes:
    """The text in a frame, exactly as the meter sent it. Raises whatever the library raises.

    The library verifies an authentication tag (AES-GCM, IEC 62056-5-3) in every frame, with the public authentication
    key if none is set. It refuses frames whose security control says that they have none, as it refuses damaged frames
    and wrong keys. So the tag is a checksum over all that is returned.
    """
    decryption_key = bytes.fromhex(settings.decryption_key)
    authentication_key = bytes.fromhex(settings.authentication_key or PUBLIC_AUTHENTICATION_KEY)
    apdu = XDlmsApduFactory.apdu_from_bytes(frame.raw)
    plain: bytes = apdu.to_plain_apdu(decryption_key, authentication_key)
    return plain


_FAULT_OF_ERRNO = {
    errno.EACCES: Fault.PORT_DENIED,
    errno.EPERM: Fault.PORT_DENIED,
    errno.EAGAIN: Fault.PORT_BUSY,  # another program has locked it
    errno.EBUSY: Fault.PORT_BUSY,
    errno.EMFILE: Fault.SERVER_EXHAUSTED,
    errno.ENFILE: Fault.SERVER_EXHAUSTED,
    errno.ENOMEM: Fault.SERVER_EXHAUSTED,
}


def cannot_open(port: str, error: Exception) -> MeterError:
    """The error of opening as a MeterError that says what to do."""
    # pyserial's own errors have no number for a remote port; what they were raised for has.
    number = getattr(error, 'errno', None) or getattr(error.__context__, 'errno', None) or 0
    fault = _FAULT_OF_ERRNO.get(number, Fault.PORT_MISSING)
    if fault is Fault.PORT_DENIED:
        reason = _reason_of_denial(port)
    elif fault is Fault.PORT_BUSY:
        reason = 'is in use by another program: stop that program'
    elif fault is Fault.SERVER_EXHAUSTED:
        reason = f'cannot be opened ({error}): this machine or this process has reached a limit'
    elif '://' in port:
        remedy = 'check [meter] port, and that ser2net or a similar program is running there'
        reason = f'does not respond ({error}): {remedy}'
    elif not Path(port).exists():
        reason = 'is not there: check the cable and [meter] port'
    else:
        reason = f'cannot be used as a serial port ({error}): check [meter] port'
    return MeterError(fault, f'{port} {reason}')


def _reason_of_denial(port: str) -> str:
    """Who may not open the port, and what gives permission; the usual words where a number has no name."""
    user, group = 'this user', 'dialout'  # the group that Debian gives serial ports to
    with suppress(KeyError, OSError):
        user = getpass.getuser()
        number = Path(port).stat().st_gid
        if number == UNMAPPED_GROUP:
            return (
                f'may not be opened by {user}: in the systemd unit, SupplementaryGroups must have its group and'
                ' DeviceAllow its driver'
            )
        group = grp.getgrgid(number).gr_name
    return (
        f'may not be opened by {user}: run `sudo usermod -a -G {group} {user}`, then log in again'
    )
