"""What bytes are that are not a telegram, when they are a perfect frame of another protocol.

Such a meter has the right cable and the right line settings, so a person must be told what it speaks instead. A frame
counts only if its length fits, because noise has the first bytes of everything. Pure: bytes in, a name out.
"""

import re
from collections.abc import Callable

_HDLC_HEAD = re.compile(
    rb'\x7e([\xa0-\xa7])(.)', re.DOTALL
)  # frame type 3, and an 11-bit length (ISO/IEC 13239)
_HDLC_FLAG = 0x7E
_M_BUS_HEAD = re.compile(
    rb'\x68(.)\1\x68', re.DOTALL
)  # the length twice between two start bytes (EN 13757-2)
_M_BUS_OVERHEAD = 6  # head of four bytes, checksum, stop byte
_M_BUS_STOP = 0x16
_SML_ESCAPE = (
    b'\x1b\x1b\x1b\x1b\x01\x01\x01\x01'  # begins a message (SML 1.04, transport protocol version 1)
)
# A telegram's header line, and then a frame whose system title has no bytes, so that it cannot be decrypted.
_FRAME_WITHOUT_TITLE = re.compile(rb'/[A-Za-z]{3}\d[^\r\n]*(\r?\n)+\xdb?\x00\x82')
_TELNET_COMMAND = re.compile(rb'\xff[\xfb-\xfe]')  # WILL, WONT, DO, DONT (RFC 854)


def _has_hdlc(data: bytes) -> bool:
    for head in _HDLC_HEAD.finditer(data):
        length = (head[1][0] & 0x07) << 8 | head[2][0]
        end = head.start() + 1 + length
        if end < len(data) and data[end] == _HDLC_FLAG:
            return True
    return False


def _has_m_bus(data: bytes) -> bool:
    for head in _M_BUS_HEAD.finditer(data):
        end = head.start() + head[1][0] + _M_BUS_OVERHEAD - 1
        if end < len(data) and data[end] == _M_BUS_STOP:
            return True
    return False


def _has_sml(data: bytes) -> bool:
    return _SML_ESCAPE in data


def _has_frame_without_title(data: bytes) -> bool:
    return _FRAME_WITHOUT_TITLE.search(data) is not None


_PROTOCOLS: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ('SML, as German meters send it', _has_sml),
    ('HDLC frames of DLMS', _has_hdlc),
    ('M-Bus frames', _has_m_bus),
    ('encrypted frames without a system title', _has_frame_without_title),
)


def other_protocol(data: bytes) -> str:
    """What the meter speaks, if these bytes have a whole frame of another protocol than P1; else empty."""
    for name, is_in in _PROTOCOLS:
        if is_in(data):
            return name
    return ''


def has_telnet_commands(data: bytes) -> bool:
    """Whether the program that serves the port talks telnet among the meter's bytes."""
    return _TELNET_COMMAND.search(data) is not None
