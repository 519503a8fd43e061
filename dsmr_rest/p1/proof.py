"""Which telegrams may be served: those that prove that they arrived as the meter sent them.

Every rule follows from what the meter itself sends, never from the name of a telegram specification:

A checksum that is there must hold
    It is the P1 standard's, over the bytes as received. Some meters send another one, CRC-16/X-25: it counts when the
    P1 standard's has never held for this meter and X-25 has held in two telegrams running. From then on it is the
    meter's checksum. One telegram is not enough, because any checksum holds by chance in one of 65,536.

Line ends that were changed on the way
    A terminal that is not raw, or a program that passes the telegrams on, may drop the CR of a line end, double it, or
    make it another LF, and may leave out the blank line after the header. If the checksum holds over the lines with
    their CR LF, nothing else has changed.

Without a checksum, the parity bits must be right
    DSMR 2.2 and 3 have no checksum; their 7E1 lines have a parity bit in each byte, and a port that is read at 8N1
    keeps it in bit 7. So a telegram without a checksum in which bytes have that bit set must have even parity
    throughout. A telegram with a checksum need not: there are meters that send bytes of 0xFF.

With neither, a second telegram must confirm the first
    A checksum may be missing because it was lost. So a telegram without one counts when its meter, known by its header
    line, has not sent one with a checksum so far, and the telegram before it had the same OBIS codes. Telegrams of
    DSMR 2.2 and 3 count at once. They state neither a version nor their own time, as all later ones do.

A telegram from an encrypted frame is proved by the frame's authentication tag, or else by its own checksum. When the
frame has no tag and the checksum is ignored, nothing need prove it.

This module does not know the port, how telegrams are found, or what their lines mean. No I/O, no clock.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import NamedTuple

from dsmr_rest.p1.checksum import crc16, crc16_x25
from dsmr_rest.p1.framing import EVEN_PARITY, IDENTIFICATION, ReceivedTelegram
from dsmr_rest.reading.telegram import Proof, Telegram

METERS_REMEMBERED = 16
"""Header lines of which something is remembered: a damaged header is another one, and memory must stay bounded."""
CHECKSUM_DIGITS = 4
"""Hexadecimal digits of a checksum. Fewer may be the rest of one, or noise after a bare '!'."""

_OBIS_CODE = re.compile(rb'^\d+-\d+:[^(\r\n]*', re.MULTILINE)
_STATES_VERSION_OR_TIME = re.compile(rb'^(1-3:0\.2\.8|0-0:96\.1\.4|0-0:1\.0\.0)\(', re.MULTILINE)
_DUTCH_METER_NUMBER = re.compile(rb'^0-0:96\.1\.1\(', re.MULTILINE)
# A line of a telegram after its header: nothing, an OBIS code with groups, groups alone, or the end.
_LINE_WITH_FORM = re.compile(rb'(\d+-\d+:[\d.:*]+)?(\([^()]*\))*|![0-9A-Fa-f]*')

Crc = Callable[[bytes], int]


class Rejection(Enum):
    """Why a whole telegram must not be served."""

    WRONG_CHECKSUM = auto()
    MISSING_CHECKSUM = auto()
    """It has none, although its meter sends one."""
    WRONG_PARITY = auto()
    UNCONFIRMED = auto()
    """Nothing speaks against it, but the next telegram must confirm how this meter proves its telegrams."""


class _Meter:
    """What the telegrams with one header line have shown so far."""

    sends_p1_checksum: bool = False
    sends_x25_checksum: bool = False
    x25_held_last: bool = False
    has_sent_checksum: bool = False
    codes_without_checksum: tuple[bytes, ...] = ()


class _Candidate(NamedTuple):
    """A received telegram from one of its possible starts on, without its parity bits.

    `has_parity` when it had such bits, and all were right; `is_sound` unless some were wrong.
    """

    text: bytes
    has_parity: bool
    is_sound: bool

    @property
    def header(self) -> bytes:
        """The header line, by which a meter is known."""
        header, _, _ = self.text.partition(b'\n')
        return header.strip(b'\r')


class Prover:
    """Decides which telegrams of one line may be served. It remembers what each meter has shown since the start.

    Not for two threads at once. When `ignores_checksum` ([meter] checksum = ignore), telegrams count whose checksum is
    wrong or missing. `foreign_checksums` counts the telegrams in a row whose lines all have a form, but whose checksum
    is one that has never held for their meter.
    """

    def __init__(self, *, ignores_checksum: bool = False) -> None:
        self.foreign_checksums = 0
        self._ignores_checksum = ignores_checksum
        self._meters: OrderedDict[bytes, _Meter] = OrderedDict()

    def prove(self, received: ReceivedTelegram) -> Telegram | Rejection:
        """The telegram with what proves it, or why it must not be served."""
        candidates = _candidates(received)
        if received.checksum:
            outcome = self._prove_by_checksum(candidates, received.checksum)
        else:
            outcome = self._prove_without_checksum(_most_likely(candidates))
        if isinstance(outcome, Telegram):
            self.foreign_checksums = 0
            return outcome
        if self._ignores_checksum and outcome is not Rejection.WRONG_PARITY:
            return Telegram(_most_likely(candidates).text, Proof.NOTHING)
        return outcome

    def prove_decrypted(
        self, received: ReceivedTelegram, *, is_authentic: bool, has_tag: bool = True
    ) -> Telegram | Rejection:
        """The same for a telegram from an encrypted frame, whose authentication tag holds if it `is_authentic`."""
        if self._ignores_checksum and not has_tag:
            return self.prove(received)
        candidates = _candidates(received)
        if received.checksum:
            outcome = self._prove_by_checksum(candidates, received.checksum)
        elif is_authentic:
            outcome = Telegram(_most_likely(candidates).text, Proof.AUTHENTICATION)
        else:
            outcome = Rejection.MISSING_CHECKSUM
        if not is_authentic:
            return outcome
        if isinstance(outcome, Telegram):
            return outcome._replace(verified_by=Proof.AUTHENTICATION)
        # The tag shows that the telegram is intact, whichever checksum its meter computes.
        if outcome is Rejection.UNCONFIRMED or self._ignores_checksum:
            return Telegram(_most_likely(candidates).text, Proof.AUTHENTICATION)
        return outcome

    def _prove_by_checksum(
        self, candidates: list[_Candidate], digits: bytes
    ) -> Telegram | Rejection:
        expected = int(digits, 16)
        if len(digits) == CHECKSUM_DIGITS:
            for candidate in candidates:
                self._meter(candidate).has_sent_checksum = True
        for candidate in candidates:
            telegram = self._prove_by_p1_checksum(candidate, expected)
            outcome = telegram or self._prove_by_x25_checksum(candidate, expected)
            if outcome is not None:
                return outcome
        likely = _most_likely(candidates)
        self._note_wrong_checksum(likely)
        return Rejection.WRONG_CHECKSUM

    def _prove_by_p1_checksum(self, candidate: _Candidate, expected: int) -> Telegram | None:
        meter = self._meter(candidate)
        if meter.sends_x25_checksum:
            return None
        telegram = _telegram_whose_checksum_holds(candidate.text, crc16, expected)
        if telegram:
            meter.sends_p1_checksum = True
            meter.has_sent_checksum = True
        return telegram

    def _prove_by_x25_checksum(
        self, candidate: _Candidate, expected: int
    ) -> Telegram | Rejection | None:
        meter = self._meter(candidate)
        if meter.sends_p1_checksum:
            return None
        telegram = _telegram_whose_checksum_holds(candidate.text, crc16_x25, expected)
        if telegram is None:
            return None
        if meter.x25_held_last:
            meter.sends_x25_checksum = True
        meter.x25_held_last = True
        if meter.sends_x25_checksum:
            return telegram
        return Rejection.UNCONFIRMED

    def _note_wrong_checksum(self, candidate: _Candidate) -> None:
        meter = self._meter(candidate)
        meter.x25_held_last = False
        has_held_before = meter.sends_p1_checksum or meter.sends_x25_checksum
        if has_held_before or not _every_line_has_a_form(candidate.text):
            self.foreign_checksums = 0
        else:
            self.foreign_checksums += 1

    def _prove_without_checksum(self, candidate: _Candidate) -> Telegram | Rejection:
        if not candidate.is_sound:
            return Rejection.WRONG_PARITY
        if candidate.has_parity:
            return Telegram(candidate.text, Proof.PARITY)
        if self._meter(candidate).has_sent_checksum:
            return Rejection.MISSING_CHECKSUM
        if _is_before_dsmr_4(candidate.text):
            return Telegram(candidate.text, Proof.NOTHING)
        return self._confirm(candidate)

    def _confirm(self, candidate: _Candidate) -> Telegram | Rejection:
        """The telegram, if the one before it shows that its meter sends no checksum."""
        if not _ends_as_its_lines_do(candidate.text):
            return Rejection.MISSING_CHECKSUM
        meter = self._meter(candidate)
        codes = tuple(_OBIS_CODE.findall(candidate.text))
        is_confirmed = codes == meter.codes_without_checksum
        meter.codes_without_checksum = codes
        if is_confirmed:
            return Telegram(candidate.text, Proof.NOTHING)
        return Rejection.UNCONFIRMED

    def _meter(self, candidate: _Candidate) -> _Meter:
        """What is remembered of the meter with this header line; the meter seen longest ago is forgotten for it."""
        meter = self._meters.setdefault(candidate.header, _Meter())
        self._meters.move_to_end(candidate.header)
        if len(self._meters) > METERS_REMEMBERED:
            self._meters.popitem(last=False)
        return meter


def _candidates(received: ReceivedTelegram) -> list[_Candidate]:
    """The telegram from each of its possible starts on, without the parity bits if its bytes have them."""
    candidates = []
    for start in received.starts:
        raw = received.raw[start:]
        has_even_parity = not raw.translate(None, EVEN_PARITY)
        text = raw
        if has_even_parity:
            text = bytes(byte & 0x7F for byte in raw)
        candidate = _Candidate(text, has_parity=text != raw, is_sound=text.isascii())
        candidates.append(candidate)
    return candidates


def _most_likely(candidates: list[_Candidate]) -> _Candidate:
    """The last candidate that begins with an identification, else the first."""
    likely = candidates[0]
    for candidate in candidates:
        if IDENTIFICATION.match(candidate.text):
            likely = candidate
    return likely


def _telegram_whose_checksum_holds(text: bytes, crc: Crc, expected: int) -> Telegram | None:
    """The telegram, if the checksum holds over it as received, or with the line ends that the meter sent."""
    if crc(_protected(text)) == expected:
        return Telegram(text, Proof.CHECKSUM)
    for restored in _with_other_line_ends(text):
        if crc(_protected(restored)) == expected:
            return Telegram(text, Proof.CHECKSUM, has_changed_line_ends=True)
    return None


def _protected(text: bytes) -> bytes:
    """What the checksum is over: all from '/' to '!'."""
    return text[: text.rindex(b'!') + 1]


def _with_other_line_ends(text: bytes) -> Iterator[bytes]:
    """The telegram with CR LF at the ends of its lines, where something on the way may have changed them."""
    restored = re.sub(rb'\r*\n', b'\r\n', text)
    if restored != text:
        yield restored
    header, line_end, rest = restored.partition(b'\r\n')
    if not rest.startswith(line_end):  # the blank line after the header (P1 companion standard)
        yield header + 2 * line_end + rest
    if b'\r' not in text:  # a terminal that makes each CR an LF
        yield text.replace(b'\n\n', b'\r\n')


def _is_before_dsmr_4(text: bytes) -> bool:
    """Whether it is a telegram of DSMR 2.2 or 3, as far as its lines show."""
    return bool(_DUTCH_METER_NUMBER.search(text)) and not _STATES_VERSION_OR_TIME.search(text)


def _ends_as_its_lines_do(text: bytes) -> bool:
    """Whether its last line ends as its first does.

    Otherwise the '!' may be followed by a checksum of which a digit arrived as a line end.
    """
    header, _, _ = text.partition(b'\n')
    _, _, end_line = text.rpartition(b'!')
    return header.endswith(b'\r') == (b'\r' in end_line)


def _every_line_has_a_form(text: bytes) -> bool:
    _header, *lines = text.splitlines()
    return all(_LINE_WITH_FORM.fullmatch(line) for line in lines)
