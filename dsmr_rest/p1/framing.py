"""Bytes in, whole telegrams out: finds telegrams and encrypted frames in a stream that may be damaged anywhere.

A telegram (P1 companion standard, after IEC 62056-21) is a header line that begins with '/', lines of OBIS codes, and
an end line of '!' and, from DSMR 4 on, four hexadecimal digits: a CRC-16 over all bytes from '/' to '!'. Encrypted
meters send DLMS general-global-cipher frames (IEC 62056-5-3) instead. A Framer finds both in the same stream.

It does not know what an OBIS code means, whether a telegram arrived intact, how a frame is decrypted, or where the
bytes come from: no port, no clock.

How framing recovers
    Nothing that arrives may hide the telegram after it, so every '/' that can begin a header does begin a new
    telegram, and drops one that has not ended:

    - A header in the middle of a line: noise, or a telegram that was cut short, ran into it. A '/' within a value does
      not count: a ')' comes after it. If a line with an OBIS code was cut within its value, only an identification
      ('/', three letters, a digit) or the header of the same meter counts.
    - A telegram that was cut short: its lines are dropped when the next header arrives, and it counts as incomplete if
      it had a line with an OBIS code.
    - Noise before the header that contains a '/': the telegram seems to begin too early. Each '/' of its header line is
      a possible start, and whoever proves the telegram (proof.py) finds out which is the right one.
    - A frame that was cut short: the head of the next frame appears within it, and the search goes on from there. What
      looks like a head appears by chance in one of a million frames.

Bounds
    A telegram may have TELEGRAM_LIMIT bytes and a frame FRAME_LIMIT; longer ones are dropped. A line without an end is
    dropped at TELEGRAM_LIMIT too, except for its last HEADER_LIMIT bytes, where a header may have begun. So memory is
    bounded, whatever arrives. The time is linear: each byte is appended and searched a fixed number of times.
"""

import re
from typing import NamedTuple

from dsmr_rest.p1.foreign import ENVELOPE_LIMIT, begins_a_content

TELEGRAM_LIMIT = 16 * 1024
"""Bytes. The longest telegrams known (Belgian, 13 months; Luxembourg) are under 3 kB; a text message adds 2 kB."""
FRAME_LIMIT = TELEGRAM_LIMIT + 64
"""Bytes in one encrypted frame: it holds one telegram."""
HEADER_LIMIT = 256
"""Bytes kept of a line without end: a header (at most 16 characters of identification) may have begun there."""
LATER_SLASHES_TRIED = 3
"""How many '/' after the first of a header line may begin the telegram. Headers have at most two of their own."""

_END_LINE = re.compile(rb'!([0-9A-Fa-f]{0,4})[\s\0]*\Z')
_OBIS_LINE = re.compile(rb'\d+-\d+:\d+[.:]')
IDENTIFICATION = re.compile(rb'/[A-Za-z]{3}\d')
"""How a header begins (IEC 62056-21): '/', three letters, one digit for the baud rate."""

# Tag, system title of 8 bytes, length, security control (suite 0, with authentication, encryption or both).
_FRAME_HEAD = re.compile(rb'\xdb\x08.{8}(?:\x81(.)|\x82(..))(?=[\x10\x20\x30])', re.DOTALL)
_FRAME_HEAD_SIZE = 14

EVEN_PARITY = bytes(byte for byte in range(256) if byte.bit_count() % 2 == 0)
"""The bytes that a 7E1 line may carry: seven bits of a character, and an eighth that makes the number of ones even."""
_PRINTABLE = bytes([*range(0x20, 0x7F), *b'\r\n'])
# With its parity bit set.
_PRINTABLE_AT_7E1 = bytes(byte | 0x80 for byte in _PRINTABLE if byte.bit_count() % 2)
_TEXT = _PRINTABLE + _PRINTABLE_AT_7E1
_SLASH_AT_7E1 = b'\xaf'


class ReceivedTelegram(NamedTuple):
    """The bytes of a telegram as received, from the first '/' of its header line to the end of its last line.

    Noise before the header may contain a '/' too, so the telegram begins at one of `starts`, the first of which is 0.
    `checksum` has the hexadecimal digits at its end; empty when there are none.
    """

    raw: bytes
    starts: tuple[int, ...]
    checksum: bytes


class EncryptedFrame(NamedTuple):
    """A DLMS general-global-cipher frame, from its tag on."""

    raw: bytes


def without_parity(line: bytes) -> bytes:
    """A line of a 7E1 port, read at 8N1, without the parity bits; any other line unchanged.

    In a line sent at 7E1 every byte has even parity and some have bit 7 set; text of eight bits has neither throughout.
    Noise may have come before the header, so a line that is mixed is looked at again from its last '/'. Every byte
    keeps its place.
    """
    if line.isascii():
        return line
    has_even_parity = not line.translate(None, EVEN_PARITY)
    if has_even_parity:
        return bytes(byte & 0x7F for byte in line)
    header = line.rfind(_SLASH_AT_7E1)
    if header > 0:
        return line[:header] + without_parity(line[header:])
    return line


class _Line(NamedTuple):
    """A line as received, and the same bytes without the parity bits of a 7E1 line: what it says."""

    raw: bytes
    text: bytes

    def part(self, start: int | None, end: int | None = None) -> '_Line':
        """The bytes from `start` to `end`."""
        return _Line(self.raw[start:end], self.text[start:end])


class Framer:
    """Finds telegrams and frames in a stream, however it is cut; a fresh one for each opening of the port.

    `incomplete` counts telegrams that began and never ended. `unexplained` is the number of bytes since the last line
    that a telegram could have, `unprintable` how many of them are not text: both are signs of a wrong baud rate.
    """

    def __init__(self) -> None:
        self.incomplete = 0
        self.unexplained = 0
        self.unprintable = 0
        self._unfinished_line = bytearray()
        # The lines so far of the telegram that has not ended, header first.
        self._telegram = bytearray()
        self._header = b''  # what its first line says
        self._has_objects = False
        self._frames = _FrameFinder()

    @property
    def inside(self) -> bool:
        """Whether a telegram has begun and shown at least one line with an OBIS code."""
        return self._has_objects

    @property
    def pending(self) -> int:
        """Bytes of the telegram that has not ended, also of its unfinished header line; 0 between telegrams."""
        may_be_header = self._unfinished_line.startswith((b'/', _SLASH_AT_7E1))
        if self._telegram or may_be_header:
            return len(self._telegram) + len(self._unfinished_line)
        return 0

    def feed(self, data: bytes) -> list[ReceivedTelegram | EncryptedFrame]:
        """The telegrams and frames that end within `data`."""
        self.unexplained += len(data)
        self.unprintable += len(data.translate(None, _TEXT))
        frames = self._frames.feed(data)
        if frames or self._frames.inside:
            self._explain()
        return [*frames, *self._feed_lines(data)]

    def _feed_lines(self, data: bytes) -> list[ReceivedTelegram]:
        telegrams = []
        *lines, unfinished_line = data.split(b'\n')
        if lines:
            lines[0] = bytes(self._unfinished_line) + lines[0]
            self._unfinished_line.clear()
        for raw_line in lines:
            line = _Line(raw_line + b'\n', without_parity(raw_line + b'\n'))
            is_blank = line.text in {b'\n', b'\r\n'}
            if is_blank and not self._telegram:
                continue
            telegram = self._add_line(line)
            if telegram:
                telegrams.append(telegram)
        self._unfinished_line += unfinished_line
        if len(self._unfinished_line) > TELEGRAM_LIMIT:
            self._drop()
            del self._unfinished_line[:-HEADER_LIMIT]
        return telegrams

    def _add_line(self, line: _Line) -> ReceivedTelegram | None:
        """The telegram that this line ends, if any; a header at its end begins the next."""
        header = self._find_header(line.text)
        if header >= 0 and len(line.text) - header > HEADER_LIMIT:
            # No header is this long: the '/' belongs to noise. A header may still have begun near the end.
            line = line.part(-HEADER_LIMIT)
            header = line.text.find(b'/')
        if header < 0:
            return self._continue(line)
        telegram = None
        if header > 0:
            telegram = self._continue(line.part(0, header))
        self._drop()
        begin = line.part(header)
        self._header = begin.text
        self._telegram += begin.raw
        return telegram

    def _find_header(self, line: bytes) -> int:
        """Where in the line a header begins, or -1."""
        if line.startswith(b'/'):
            return 0
        after_values = line.rfind(b')') + 1
        slash = line.find(b'/', after_values)
        may_be_in_a_value = self._telegram and _OBIS_LINE.match(line)
        if slash < 0 or not may_be_in_a_value:
            return slash
        identification = IDENTIFICATION.search(line, slash)
        if identification:
            return identification.start()
        return line.find(self._header, slash)

    def _continue(self, line: _Line) -> ReceivedTelegram | None:
        """Adds a line that is not a header; the telegram if it was the end line."""
        end = _END_LINE.match(line.text)
        is_object = _OBIS_LINE.match(line.text) is not None
        if end or is_object:
            self._explain()
        if not self._telegram:
            return None
        self._telegram += line.raw
        if len(self._telegram) > TELEGRAM_LIMIT:
            self._drop()
        elif end:
            return self._finish(end[1])
        elif is_object:
            self._has_objects = True
        return None

    def _finish(self, checksum: bytes) -> ReceivedTelegram | None:
        """The telegram whose end line was added; None when it was a header and an end line without an object."""
        telegram = None
        if self._has_objects:
            starts = _possible_starts(self._header)
            telegram = ReceivedTelegram(bytes(self._telegram), starts, checksum)
        self._has_objects = False  # so that it does not count as incomplete
        self._drop()
        return telegram

    def _drop(self) -> None:
        """Forgets the telegram that has not ended, and counts it if it had begun in earnest."""
        if self._has_objects:
            self.incomplete += 1
        self._telegram.clear()
        self._has_objects = False

    def _explain(self) -> None:
        self.unexplained = 0
        self.unprintable = 0


def _possible_starts(header: bytes) -> tuple[int, ...]:
    """Where in its header line a telegram may begin: noise before the header may contain a '/' too."""
    first, *later = [slash.start() for slash in re.finditer(b'/', header)]
    return (first, *later[-LATER_SLASHES_TRIED:])


class _FrameFinder:
    """Finds encrypted frames in a stream, however it is cut.

    A frame ends where its head says, unless another head appears before that: then it was cut short. So the bytes of a
    frame are searched for further heads as they arrive, each byte once.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()  # begins with the frame that has not ended, if any
        self._frame_size = 0  # of that frame, by its head; 0 outside a frame
        self._searched = 0  # so many bytes of the buffer cannot begin a further head

    @property
    def inside(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self._frame_size > 0

    def feed(self, data: bytes) -> list[EncryptedFrame]:
        """The frames that end within `data`."""
        frames = []
        self._buffer += data
        while True:
            head = self._next_head()
            undisturbed = len(self._buffer)
            if head:
                undisturbed = head.start()
            if 0 < self._frame_size <= undisturbed:
                frames.append(EncryptedFrame(bytes(self._buffer[: self._frame_size])))
                self._frame_size = 0
            if not head:
                break
            self._frame_size = _frame_size(head)
            self._searched = 1
            del self._buffer[:undisturbed]
        self._searched = max(0, len(self._buffer) - _FRAME_HEAD_SIZE + 1)
        if not self.inside:
            unneeded = max(0, self._searched - ENVELOPE_LIMIT)
            del self._buffer[:unneeded]
            self._searched -= unneeded
        return frames

    def _next_head(self) -> re.Match[bytes] | None:
        """The next head of a frame that is not too long, and not the content of a frame of another protocol."""
        head = _FRAME_HEAD.search(self._buffer, self._searched)
        while head and not self._is_usable(head):
            head = _FRAME_HEAD.search(self._buffer, head.start() + 1)
        return head

    def _is_usable(self, head: re.Match[bytes]) -> bool:
        if _frame_size(head) > FRAME_LIMIT:
            return False
        start = head.start()
        before = self._buffer[max(0, start - ENVELOPE_LIMIT) : start]
        return not begins_a_content(bytes(before))


def _frame_size(head: re.Match[bytes]) -> int:
    """Bytes of a frame, head included."""
    length = head[1] or head[2]
    return head.end() - head.start() + int.from_bytes(length, 'big')
