"""Backlog: whether the telegrams that a remote port hands over are new, or were held back by the network.

A network that was interrupted delivers afterwards, one after the other, all that was sent meanwhile. It shows in two
ways: nothing arrives although the meter's interval is over, and then more than one telegram arrives without a pause.
So after such a delay a reading is held until the line pauses, and only the last one is handed out.

It is given readings and durations in seconds, and knows neither the port nor the clock.
"""

from dsmr_rest.reading.document import Reading

LATE = 1.5
"""Intervals of the meter after which a remote port is late."""
LEAST_DELAY = 2.0
"""Seconds that it must be late, whatever the interval: networks are not punctual."""


class Backlog:
    """Holds readings back while older ones may still be arriving."""

    def __init__(self) -> None:
        self._is_catching_up = False
        self._held: Reading | None = None

    def bytes_arrived(self, silence: float, interval: float | None) -> None:
        """Bytes arrived after so long a silence from a meter with this interval, None when it is not known yet."""
        if interval is not None and silence > max(LEAST_DELAY, LATE * interval):
            self._is_catching_up = True

    def reading_arrived(self, reading: Reading) -> Reading | None:
        """The reading, if it may be handed out now."""
        if not self._is_catching_up:
            return reading
        self._held = reading
        return None

    def line_paused(self) -> Reading | None:
        """Nothing more has arrived: the reading that was held, if any, is the newest that there is."""
        reading = self._held
        self._held = None
        self._is_catching_up = False
        return reading
