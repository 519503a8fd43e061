"""Which problems have been logged already: a line that garbles its telegrams must not fill the log.

It does not know what a problem is, nor how it is logged.
"""

PROBLEMS_LOGGED = 50
"""Kinds of problem that are logged, once each: a line that garbles its telegrams must not fill the log."""


class ProblemLog:
    """Which kinds of problem have been logged: each is, once, until there are PROBLEMS_LOGGED."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, ...]] = set()

    def add(self, *kind: str) -> bool:
        """Notes a problem of this kind; True when it is to be logged."""
        if kind in self._logged or len(self._logged) >= PROBLEMS_LOGGED:
            return False
        self._logged.add(kind)
        return True
