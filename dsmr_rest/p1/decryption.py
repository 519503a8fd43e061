"""Encrypted frames to the text in them, and what that says about the keys.

Meters in Luxembourg and Austria send DLMS general-global-cipher frames (IEC 62056-5-3, security suite 0: AES-128 in
Galois/Counter mode). A frame is encrypted with one key and authenticated with another. dlms_cosem, which dsmr_parser
brings, does both at once and refuses a frame whose tag does not hold. So when only the tag is wrong or missing, the
text is decrypted here without it, with the same key stream (NIST SP 800-38D, GCTR); whether the text is right is for
its own checksum to say.

This module knows the keys, and shows them to nobody. It does not know how frames are found, nor what is in the text.
"""

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
    """The text of a frame; `is_authentic` when its tag holds, so that it is exactly what the meter sent."""

    text: bytes
    is_authentic: bool


class Decryptor:
    """Decrypts the frames of one meter."""

    def __init__(self, settings: MeterSettings) -> None:
        authentication_key = settings.authentication_key or PUBLIC_AUTHENTICATION_KEY
        self.has_key = bool(settings.decryption_key)
        self._decryption_key = bytes.fromhex(settings.decryption_key)
        self._authentication_key = bytes.fromhex(authentication_key)

    def decrypt(self, frame: EncryptedFrame) -> Plain:
        """The text in a frame. With a wrong decryption key, or from a damaged frame, it makes no sense."""
        try:
            text = self._verified_text(frame)
        # The library raises many kinds of exception, and damaged frames raise any of them.
        except Exception:  # noqa: BLE001
            return Plain(self._unverified_text(frame), is_authentic=False)
        return Plain(text, is_authentic=True)

    def _verified_text(self, frame: EncryptedFrame) -> bytes:
        """Raises whatever the library raises, also when the frame states that it has no tag."""
        apdu = XDlmsApduFactory.apdu_from_bytes(frame.raw)
        text: bytes = apdu.to_plain_apdu(self._decryption_key, self._authentication_key)
        return text

    def _unverified_text(self, frame: EncryptedFrame) -> bytes:
        """The text without regard to the tag, which a frame without authentication does not have."""
        size_of_length = _LENGTHS[frame.raw[_TITLE.stop]]
        content = frame.raw[_TITLE.stop + 1 + size_of_length :]
        control, counter = content[0], content[1 : 1 + _COUNTER_SIZE]
        protected = content[1 + _COUNTER_SIZE :]
        if control & _AUTHENTICATED:
            protected = protected[:-_TAG_SIZE]
        if not control & _ENCRYPTED:
            return protected
        nonce = frame.raw[_TITLE] + counter
        key_stream = Cipher(AES(self._decryption_key), CTR(nonce + _FIRST_BLOCK)).decryptor()
        return key_stream.update(protected)
