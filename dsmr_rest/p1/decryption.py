"""Encrypted frames to the text in them, and what that says about the keys.

Meters in Luxembourg and Austria send DLMS general-global-cipher frames (IEC 62056-5-3, security suite 0: AES-128 in
Galois/Counter mode). A frame is encrypted with one key and authenticated with another. dlms_cosem, which dsmr_parser
brings, does both at once and refuses a frame whose tag does not hold. So when only the tag is wrong or missing, the
text is decrypted here without it, with the same key stream (NIST SP 800-38D, GCTR); whether the text is right is for
its own checksum to say.

This module knows the keys, and shows them to nobody. It does not know how frames are found, nor what is in the text.
"""

from contextlib import suppress
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from dlms_cosem.connection import XDlmsApduFactory
from dsmr_parser import telegram_specifications

from dsmr_rest.config import MeterSettings
from dsmr_rest.p1.framing import EncryptedFrame

PUBLIC_AUTHENTICATION_KEY: str = telegram_specifications.MSN['authentication_key']
"""Luxmetering E-Meter P1 specification 3.2.5: the same for all its meters; others use their own."""

_TITLE = slice(2, 10)  # of a frame: the system title, after the tag and its length
_LENGTHS = {0x81: 1, 0x82: 2}  # bytes of a length, by its first byte (BER)
_TAG_SIZE = 12
_COUNTER_SIZE = 4  # the invocation counter
_AUTHENTICATED, _ENCRYPTED = 0x10, 0x20  # bits of the security control
_FIRST_BLOCK = (2).to_bytes(4, 'big')  # of the text; block 1 is for the tag


class Plain(NamedTuple):
    """The text of a frame, and whether the frame has a tag.

    `is_authentic` when that tag holds, so that the text is exactly what the meter sent.
    """

    text: bytes
    is_authentic: bool
    has_tag: bool = True


class _Parts(NamedTuple):
    """What a frame consists of: `protected` is the text, encrypted or not; `tag` is empty in a frame without one."""

    title: bytes
    control: int
    counter: bytes
    protected: bytes
    tag: bytes

    @property
    def is_encrypted(self) -> bool:
        return bool(self.control & _ENCRYPTED)


class Decryptor:
    """Decrypts the frames of one meter, whose settings have a decryption_key."""

    def __init__(self, settings: MeterSettings) -> None:
        authentication_key = settings.authentication_key or PUBLIC_AUTHENTICATION_KEY
        self._decryption_key = bytes.fromhex(settings.decryption_key)
        self._authentication_key = bytes.fromhex(authentication_key)

    def decrypt(self, frame: EncryptedFrame) -> Plain:
        """The text in a frame. With a wrong decryption key, or from a damaged frame, it makes no sense."""
        parts = _parts(frame.raw)
        if parts.tag:
            # The library raises many kinds of exception, and damaged frames raise any of them.
            with suppress(Exception):
                return Plain(self._verified_text(frame), is_authentic=True)
        text = self._unverified_text(parts)
        return Plain(text, is_authentic=False, has_tag=bool(parts.tag))

    def _verified_text(self, frame: EncryptedFrame) -> bytes:
        """Raises whatever the library raises when the tag does not hold."""
        apdu = XDlmsApduFactory.apdu_from_bytes(frame.raw)
        text: bytes = apdu.to_plain_apdu(self._decryption_key, self._authentication_key)
        return text

    def _unverified_text(self, parts: _Parts) -> bytes:
        """The text without regard to the tag."""
        if not parts.is_encrypted:
            return parts.protected
        first_block = parts.title + parts.counter + _FIRST_BLOCK
        cipher = Cipher(AES(self._decryption_key), CTR(first_block))
        return cipher.decryptor().update(parts.protected)


def _parts(raw: bytes) -> _Parts:
    """The parts of a frame, which the framer has found to be long enough for them."""
    title = raw[_TITLE]
    size_of_length = _LENGTHS[raw[_TITLE.stop]]
    content = raw[_TITLE.stop + 1 + size_of_length :]
    control = content[0]
    begin_of_text = 1 + _COUNTER_SIZE
    counter = content[1:begin_of_text]
    protected = content[begin_of_text:]
    tag = b''
    if control & _AUTHENTICATED:
        tag = protected[-_TAG_SIZE:]
        protected = protected[:-_TAG_SIZE]
    return _Parts(title, control, counter, protected, tag)
