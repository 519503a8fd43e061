"""What bytes are that are not a telegram, when they are a perfect frame of another protocol.

Such a meter has the right cable and the right line settings, so a person must be told what it speaks instead. A frame
counts only if its length fits, because noise has the first bytes of everything. Pure: bytes in, a name out.

Few meters ever need these patterns, so they are texts, which re compiles when it is given them first, and remembers.
"""

import re
from collections.abc import Callable

# Frame type 3, a bit for "more segments follow", and an 11-bit length (ISO/IEC 13239).
_HDLC_HEAD = rb'\x7e([\xa0-\xaf])(.)'
_HDLC_FLAG = 0x7E
# The length twice between two start bytes (EN 13757-2).
_M_BUS_HEAD = rb'\x68(.)\1\x68'
_M_BUS_OVERHEAD = 6  # head of four bytes, checksum, stop byte
_M_BUS_STOP = 0x16
_ENVELOPE = (
    # Addresses, control, checksum, and the header of logical link control (IEC 62056-46).
    rb'(\x7e[\xa0-\xaf].{5,12}\xe6[\xe6\xe7]\x00'
    # Control, address, type of content, and the two service access points (EN 13757-3).
    rb'|\x68(.)\2\x68.{5})\Z'
)
ENVELOPE_LIMIT = 18
"""Bytes that a frame of another protocol has before its content."""
_SML_ESCAPE = (
    b'\x1b\x1b\x1b\x1b\x01\x01\x01\x01'  # begins a message (SML 1.04, transport protocol version 1)
)
# A telegram's header line, and then a frame whose system title has no bytes, so that it cannot be decrypted.
_FRAME_WITHOUT_TITLE = rb'/[A-Za-z]{3}\d[^\r\n]*(\r?\n)+\xdb?\x00\x82'
_SHORT_CODE = rb'[\dCFLP]{1,3}(\.[\dCFLP]{1,3}){1,2}([*&]\d{1,3})?'
# A header line, and then two lines at least whose codes have neither medium nor channel (IEC 62056-21).
_SHORT_CODES = rb'/[A-Za-z]{3}\d[^\r\n]*(\r?\n)+(' + _SHORT_CODE + rb'(\([^()\r\n]*\))+\r?\n){2}'
_TELNET_COMMAND = rb'\xff[\xfb-\xfe]'  # WILL, WONT, DO, DONT (RFC 854)


def _has_hdlc(data: bytes) -> bool:
    for head in re.finditer(_HDLC_HEAD, data, re.DOTALL):
        length = (head[1][0] & 0x07) << 8 | head[2][0]
        end = head.start() + 1 + length
        if end < len(data) and data[end] == _HDLC_FLAG:
            return True
    return False


def _has_m_bus(data: bytes) -> bool:
    for head in re.finditer(_M_BUS_HEAD, data, re.DOTALL):
        end = head.start() + head[1][0] + _M_BUS_OVERHEAD - 1
        if end < len(data) and data[end] == _M_BUS_STOP:
            return True
    return False


def _has_sml(data: bytes) -> bool:
    return _SML_ESCAPE in data


def _has_frame_without_title(data: bytes) -> bool:
    return re.search(_FRAME_WITHOUT_TITLE, data) is not None


def _has_short_codes(data: bytes) -> bool:
    characters = bytes(byte & 0x7F for byte in data)  # meters that speak it have a parity bit
    return re.search(_SHORT_CODES, characters) is not None


_PROTOCOLS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ('SML, as German meters send it', _has_sml),
    ('HDLC frames of DLMS', _has_hdlc),
    ('M-Bus frames', _has_m_bus),
    ('encrypted frames without a system title', _has_frame_without_title),
    ('IEC 62056-21 with short codes', _has_short_codes),
)


def other_protocol(data: bytes) -> str:
    """What the meter speaks, if these bytes have a whole frame of another protocol than P1; else empty."""
    for name, is_in in _PROTOCOLS:
        if is_in(data):
            return name
    return ''


def begins_a_content(before: bytes) -> bool:
    """Whether these bytes are the head of a frame of another protocol, so that its content is what comes next.

    HDLC and M-Bus carry the same encrypted frames as P1, but in pieces, and with no telegram in them.
    """
    return re.search(_ENVELOPE, before, re.DOTALL) is not None


def has_telnet_commands(data: bytes) -> bool:
    """Whether the program that serves the port talks telnet among the meter's bytes."""
    return re.search(_TELNET_COMMAND, data) is not None
