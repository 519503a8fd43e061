"""Encrypted frames to the telegrams in them, and what their failures say about the keys.

A frame is decrypted, and a telegram is found in its text and proved. When that fails again and again, one of the keys
is wrong, and the text shows which. This module knows neither the port nor what the lines of a telegram mean.
"""

import logging
from typing import TYPE_CHECKING, NamedTuple

from dsmr_rest.config import MeterSettings
from dsmr_rest.faults import MeterError
from dsmr_rest.p1.framing import IDENTIFICATION, EncryptedFrame, Framer
from dsmr_rest.p1.line import LineCounters
from dsmr_rest.p1.problem_log import ProblemLog
from dsmr_rest.p1.proof import Prover, Rejection
from dsmr_rest.reading.telegram import Telegram

if TYPE_CHECKING:
    from dsmr_rest.p1.decryption import Decryptor, Plain

log = logging.getLogger(__name__)


class Unpacked(NamedTuple):
    """The telegrams of a frame that may be served, and what is to be counted.

    `invalid_because` says why there is none although the frame arrived intact.
    """

    telegrams: tuple[Telegram, ...] = ()
    counted: LineCounters = LineCounters()
    invalid_because: str = ''


class Unpacker:
    """Takes the telegrams out of the frames of one meter. One thread at a time."""

    def __init__(self, settings: MeterSettings, prover: Prover, problems: ProblemLog) -> None:
        self._port = settings.port
        self._decryptor = _decryptor(settings)
        self._prover = prover
        self._problems = problems
        self._has_decrypted = False
        self._has_failed = False

    def unpack(self, frame: EncryptedFrame) -> Unpacked:
        """The telegrams in a frame. Raises MeterError when there is no key, and when a key does not work."""
        if self._decryptor is None:
            raise _cannot_decrypt(self._port, has_key=False)
        plain = self._decryptor.decrypt(frame)
        outcomes = self._outcomes(plain)
        telegrams = tuple(outcome for outcome in outcomes if isinstance(outcome, Telegram))
        if telegrams:
            self._note_success(plain)
            return Unpacked(telegrams)
        if Rejection.UNCONFIRMED in outcomes:
            return Unpacked(counted=LineCounters(unconfirmed_telegrams=1))
        if not plain.is_authentic:
            return self._failed(plain)
        self._has_decrypted = True
        if outcomes:
            return Unpacked(invalid_because='the checksum is wrong or missing')
        return Unpacked(invalid_because='no whole telegram is in the frame')

    def _outcomes(self, plain: 'Plain') -> list[Telegram | Rejection]:
        """What the prover says of each telegram in the text."""
        outcomes = []
        for inside in Framer().feed(plain.text + b'\n'):
            if isinstance(inside, EncryptedFrame):
                continue
            outcome = self._prover.prove_decrypted(
                inside, is_authentic=plain.is_authentic, has_tag=plain.has_tag
            )
            outcomes.append(outcome)
        return outcomes

    def _note_success(self, plain: 'Plain') -> None:
        self._has_decrypted = True
        if not plain.is_authentic and self._problems.add('authentication'):
            log.warning(
                '[meter] decryption_key is right, but the frames of the meter at %s are not authenticated with'
                ' authentication_key: only a checksum within can prove the telegrams',
                self._port,
            )

    def _failed(self, plain: 'Plain') -> Unpacked:
        """What is counted for a frame that could not be decrypted. Raises MeterError when that is no accident."""
        # A single frame may have been damaged on its way.
        if self._has_failed and not self._has_decrypted:
            is_text = IDENTIFICATION.match(plain.text) is not None
            raise _cannot_decrypt(self._port, has_key=True, is_text=is_text, has_tag=plain.has_tag)
        self._has_failed = True
        return Unpacked(counted=LineCounters(decryption_failures=1))


def _decryptor(settings: MeterSettings) -> 'Decryptor | None':
    """None without a key. What it needs takes 0.5 MB, which a server whose meter does not encrypt does not need."""
    if not settings.decryption_key:
        return None
    from dsmr_rest.p1.decryption import Decryptor  # noqa: PLC0415 see above

    return Decryptor(settings)


def _cannot_decrypt(
    port: str, *, has_key: bool, is_text: bool = False, has_tag: bool = True
) -> MeterError:
    """Why the frames cannot be decrypted; the arguments are those of KeyFailure."""
    from dsmr_rest.p1.diagnosis import cannot_decrypt  # noqa: PLC0415 as in reader.py
    from dsmr_rest.p1.evidence import KeyFailure  # noqa: PLC0415 as in reader.py

    return cannot_decrypt(KeyFailure(port, has_key, is_text, has_tag))
