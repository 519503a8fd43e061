"""The search for the baud rate of a line: which of two it must be, by what arrives at one of them.

It is given counts and durations, and knows neither the port, nor the clock, nor what a telegram is.

The strategy
    A meter sends at one of two baud rates. At the wrong one its telegrams arrive as bytes that are not text, or do not
    arrive at all. But there may be noise before each telegram at the right one too, and a meter may be silent for up to
    LONGEST_SILENCE. So how much evidence it takes to change depends on the Confidence in the present baud rate:

    - NONE, at the start: bytes that are not text lead to a change at once.
    - LIKELY, after such a change: the same bytes may be noise before a telegram. They lead to a change when the line
      falls silent after them, or when they still arrive after LONGEST_SILENCE without anything of a telegram.
    - PROVEN, once a telegram arrived: they lead to a change only after LONGEST_SILENCE without anything of a telegram.
      This finds a meter that was replaced by another with a different baud rate.

    Whatever the confidence, LONGEST_SILENCE without anything of a telegram leads to a change as soon as the line is
    silent. Silence says nothing about the other baud rate, so the confidence is NONE again.

    Time counts only while somebody listens: a port that is closed between two requests is not a silent one.
"""

from enum import Enum, auto

from dsmr_rest.p1.line import LONGEST_SILENCE

TOO_MANY_UNEXPLAINED = 16
"""Bytes that are not part of a telegram: more than the end of a line that was cut, less than a telegram's header."""
UNPRINTABLE_SHARE = 0.2
"""Of the bytes that are not explained; up to this, they may be a text with foreign letters."""


class Confidence(Enum):
    """How much speaks for the present baud rate."""

    NONE = auto()
    LIKELY = auto()
    PROVEN = auto()


class BaudRateSearch:
    """Chooses among one or two baud rates; `baud_rate` is the one to listen at.

    Durations are in seconds of listening. The methods that report what happened return True when they changed
    `baud_rate`; the counts of bytes must then begin again. With one baud rate nothing changes.
    """

    def __init__(self, *baud_rates: int, longest_silence: float = LONGEST_SILENCE) -> None:
        self.baud_rate = baud_rates[0]
        self.tried = [self.baud_rate]
        """The baud rates at which no telegram was found, or the one at which the last was."""
        self._baud_rates = baud_rates
        self._longest_silence = longest_silence
        self._confidence = Confidence.NONE
        self._without_telegram = (
            0.0  # seconds at this baud rate since anything of a telegram arrived
        )

    def telegram_found(self) -> None:
        """A whole telegram arrived."""
        self._confidence = Confidence.PROVEN
        self._without_telegram = 0.0
        self.tried = [self.baud_rate]

    def bytes_arrived(
        self, seconds: float, unexplained: int, unprintable: int, *, inside_telegram: bool
    ) -> bool:
        """Bytes arrived after `seconds`; so many since the last line of a telegram, so many of those are not text."""
        if unexplained == 0:
            self._without_telegram = 0.0
            return False
        self._without_telegram += seconds
        may_be_text = unprintable <= unexplained * UNPRINTABLE_SHARE
        if unexplained < TOO_MANY_UNEXPLAINED or may_be_text or inside_telegram:
            return False
        if self._confidence is Confidence.NONE or self._waited_too_long:
            return self._change(Confidence.LIKELY)
        return False

    def nothing_arrived(self, seconds: float, unexplained: int) -> bool:
        """The line was silent for `seconds`, after so many bytes since the last line of a telegram."""
        self._without_telegram += seconds
        had_no_telegram = unexplained >= TOO_MANY_UNEXPLAINED
        if had_no_telegram and self._confidence is not Confidence.PROVEN:
            return self._change(Confidence.LIKELY)
        if self._waited_too_long:
            return self._change(Confidence.NONE)
        return False

    @property
    def _waited_too_long(self) -> bool:
        return self._without_telegram > self._longest_silence

    def _change(self, confidence: Confidence) -> bool:
        self._without_telegram = 0.0
        others = [baud_rate for baud_rate in self._baud_rates if baud_rate != self.baud_rate]
        if not others:
            return False
        self.baud_rate = others[0]
        self._confidence = confidence
        if self.baud_rate not in self.tried:
            self.tried.append(self.baud_rate)
        return True
