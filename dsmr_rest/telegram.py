"""Bytes in, whole telegrams out; whatever comes, memory is bounded, time linear, and no telegram behind it is lost.

A telegram (P1 companion standard) is a header line that begins with '/', lines of OBIS codes, and an end line of '!'
and, from DSMR 4 on, four hexadecimal digits: a CRC-16 over all bytes from '/' to '!'. Encrypted meters send DLMS
general-global-cipher frames instead. Both are found here in the same stream. No port, no clock.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

TELEGRAM_LIMIT = 16 * 1024
"""Bytes. The longest telegrams known (Belgian, 13 months; Luxembourg) are under 3 kB; a text message adds 2 kB."""
FRAME_LIMIT = TELEGRAM_LIMIT + 64
"""Bytes in one encrypted frame: it holds one telegram."""
HEADER_LIMIT = 256
"""Bytes kept of a line without end: a header (at most 16 characters of identification) may come at its end."""

_END = re.compile(rb'!([0-9A-Fa-f]{0,4})[\s\0]*\Z')
_OBIS_LINE = re.compile(rb'\d+-\d+:\d+[.:]')
_IDENTIFICATION = re.compile(rb'/[A-Za-z]{3}\d')  # IEC 62056-21: three letters, one digit for the speed
# Tag, system title of 8 bytes, length, security control (suite 0, with authentication, encryption or both).
_FRAME = re.compile(rb'\xdb\x08.{8}(?:\x81(.)|\x82(..))(?=[\x10\x20\x30])', re.DOTALL)
_FRAME_HEAD = 14

_EVEN = bytes(byte for byte in range(256) if byte.bit_count() % 2 == 0)
_PRINTABLE = bytes([*range(0x20, 0x7F), *b'\r\n'])
_SLASH_AT_7E1 = b'\xaf'
_TEXT = _PRINTABLE + bytes(byte | 0x80 for byte in _PRINTABLE if byte.bit_count() % 2)  # as 7E1 shows at 8N1


def _checksum_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _checksum_table()


def crc16(data: bytes) -> int:
    """The checksum of the P1 companion standard: CRC-16, polynomial x16 + x15 + x2 + 1, least significant bit first."""
    crc = 0
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc


@dataclass(frozen=True)
class Telegram:
    """A whole telegram as on the wire, from '/' to the end of its last line."""

    raw: bytes
    checksum_holds: bool | None
    """None when the telegram has no checksum (DSMR 2.2 and 3)."""


@dataclass(frozen=True)
class EncryptedFrame:
    """A DLMS general-global-cipher frame, from its tag on."""

    raw: bytes


def restore_parity(line: bytes) -> bytes:
    """A line of a 7E1 port read at 8N1 without the parity bits; any other line as it is.

    In such a line every byte has even parity and some have bit 7 set, which no text of eight bits has throughout. Noise
    may have come before its header.
    """
    if line.isascii():
        return line
    if line.translate(None, _EVEN):
        header = line.rfind(_SLASH_AT_7E1)
        return line[:header] + restore_parity(line[header:]) if header > 0 else line
    return bytes(byte & 0x7F for byte in line)


class Framer:
    """Finds telegrams in a stream; a fresh one for each opening of the port.

    `incomplete` counts telegrams that began and never ended. `unexplained` is the number of bytes since the last line
    that a telegram could have, `unprintable` how many of them are no text: both tell a wrong speed.
    """

    def __init__(self) -> None:
        self.incomplete = 0
        self.unexplained = 0
        self.unprintable = 0
        self._rest = b''  # a line that has not ended
        self._lines: list[bytes] = []  # of the telegram that has not ended, header first
        self._size = 0
        self._has_objects = False
        self._cipher = bytearray()
        self._end = self._searched = 0

    @property
    def inside(self) -> bool:
        """Whether a telegram has begun and shown at least one object."""
        return self._has_objects

    @property
    def pending(self) -> int:
        """Bytes of the telegram that has not ended; 0 between telegrams."""
        return self._size + len(self._rest) if self._lines else 0

    def feed(self, data: bytes) -> list[Telegram | EncryptedFrame]:
        """The telegrams and frames that end within `data`."""
        self.unexplained += len(data)
        self.unprintable += len(data.translate(None, _TEXT))
        found: list[Telegram | EncryptedFrame] = [*self._frames(data)]
        lines = (self._rest + data).split(b'\n')
        self._rest = lines.pop()
        for line in lines:
            if not self._lines and line in {b'', b'\r'}:
                continue
            found += self._line(restore_parity(line + b'\n'))
        if len(self._rest) > TELEGRAM_LIMIT:
            self._drop()
            self._rest = self._rest[-HEADER_LIMIT:]
        return found

    def _line(self, line: bytes) -> Iterator[Telegram]:
        # A header may come in the middle of a line, behind noise or behind a telegram that was cut short. A '/'
        # within a value is none: it has a ')' behind it, or neither an identification nor this meter's header.
        start = 0 if line.startswith(b'/') else line.find(b'/', line.rfind(b')') + 1)
        if start > 0 and self._lines and _OBIS_LINE.match(line):
            named = _IDENTIFICATION.search(line, start)
            start = named.start() if named else line.find(self._lines[0], start)
        if start >= 0 and len(line) - start > HEADER_LIMIT:
            line = line[-HEADER_LIMIT:]
            start = line.find(b'/')
        if start < 0:
            yield from self._body(line)
            return
        if start:
            yield from self._body(line[:start])
        self._drop()
        self._lines, self._size = [line[start:]], len(line) - start

    def _body(self, line: bytes) -> Iterator[Telegram]:
        end = _END.match(line)
        if end or _OBIS_LINE.match(line):
            self.unexplained = self.unprintable = 0
        if not self._lines:
            return
        self._lines.append(line)
        self._size += len(line)
        if end:
            if self._has_objects:
                yield self._whole(end[1])
            self._has_objects = False
            self._drop()
        elif self._size > TELEGRAM_LIMIT:
            self._drop()
        else:
            self._has_objects = self._has_objects or bool(_OBIS_LINE.match(line))

    def _drop(self) -> None:
        self.incomplete += self._has_objects
        self._lines, self._size, self._has_objects = [], 0, False

    def _whole(self, checksum: bytes) -> Telegram:
        """The telegram in `_lines`; noise before its header may have brought a '/' of its own, the checksum tells."""
        raw = b''.join(self._lines)
        slashes = [place for place, byte in enumerate(self._lines[0]) if byte == ord('/')]
        starts = [0, *(slashes[1:][-3:])]  # no header has more than one or two of its own
        if not checksum:
            named = (start for start in starts if _IDENTIFICATION.match(raw, start))
            return Telegram(raw[max(named, default=0) :], None)
        end = raw.rindex(b'!') + 1
        for start in starts:
            if crc16(raw[start:end]) == int(checksum, 16):
                return Telegram(raw[start:], checksum_holds=True)
        return Telegram(raw, checksum_holds=False)

    def _frames(self, data: bytes) -> Iterator[EncryptedFrame]:
        """The frames that end within `data`. `_cipher` begins with the one that has not, if any, and `_end` is its end.

        A head within a frame means that the frame was cut short: by chance it stands in one of a million.
        """
        self._cipher += data
        while True:
            head = next(self._heads(), None)
            if self._end and self._end <= (head.start() if head else len(self._cipher)):
                yield EncryptedFrame(bytes(self._cipher[: self._end]))
                self._end = self.unexplained = self.unprintable = 0
            if not head:
                break
            self._end, self._searched = _frame_end(head) - head.start(), 1
            del self._cipher[: head.start()]
        self._searched = max(0, len(self._cipher) - _FRAME_HEAD + 1)
        if self._end:  # what comes is a frame's
            self.unexplained = self.unprintable = 0
        else:
            del self._cipher[: self._searched]
            self._searched = 0

    def _heads(self) -> Iterator[re.Match[bytes]]:
        found = _FRAME.finditer(self._cipher, self._searched)
        return (head for head in found if _frame_end(head) - head.start() <= FRAME_LIMIT)


def _frame_end(head: re.Match[bytes]) -> int:
    return head.end() + int.from_bytes(head[1] or head[2], 'big')
