"""Trouble: a log line when a trouble begins and one when it is over, however often it is met in between."""

import logging
import threading
import time

log = logging.getLogger(__name__)

CALM = 60.0
"""Seconds without the trouble after which it is over: a shortage comes and goes with each client."""


class Trouble:
    """A trouble with a line for its beginning and one for its end. For any thread."""

    def __init__(self, begins: str, ends: str, *, calm: float = CALM) -> None:
        self._begins = begins
        self._ends = ends
        self._calm = calm
        self._lock = threading.Lock()  # guards _last_met
        self._last_met: float | None = None  # monotonic; None while all is well

    def met(self) -> None:
        """Notes the trouble."""
        with self._lock:
            is_news = self._last_met is None
            self._last_met = time.monotonic()
        if is_news:
            log.warning('%s', self._begins)

    def not_met(self) -> None:
        """Notes that what the trouble prevents has succeeded."""
        is_over = False
        with self._lock:
            if self._last_met is not None:
                is_over = time.monotonic() - self._last_met >= self._calm
            if is_over:
                self._last_met = None
        if is_over:
            log.warning('%s', self._ends)
