"""Tally: counts by name, such as the errors by their code. It does not know what is counted."""

import threading
from collections import Counter


class Tally:
    """Counts by name, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _counts
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Counts one more of this name."""
        with self._lock:
            self._counts[name] += 1

    def counts(self) -> dict[str, int]:
        """All counts so far, in the order of their names."""
        with self._lock:
            return dict(sorted(self._counts.items()))
