"""The places of those that follow the meter: how many clients may, and how many of each kind do."""

import threading
from collections import Counter

STREAMS = 'streams'
TELEGRAM_CLIENTS = 'telegram clients'
"""The kinds of clients that follow the meter: over /stream, and over [server] telegram_port."""


class FollowerPlaces:
    """A number of places that clients of several kinds share. For any thread."""

    def __init__(self, count: int) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()  # guards _taken
        self._taken: Counter[str] = Counter()

    def take(self, kind: str) -> bool:
        """Takes a place for a client of this kind; False when there is none. Does not wait."""
        if not self._free.acquire(blocking=False):
            return False
        with self._lock:
            self._taken[kind] += 1
        return True

    def leave(self, kind: str) -> None:
        """Gives back a place that was taken for a client of this kind."""
        with self._lock:
            self._taken[kind] -= 1
        self._free.release()

    def taken(self, kind: str) -> int:
        """How many clients of this kind have a place."""
        with self._lock:
            return self._taken[kind]
