r"""Text that is safe to show: what a meter or a client sent must not control a terminal or forge a line of the log.

The one place where such text is escaped, for the log and for take_one_reading alike.
"""

import logging
import re

_NOT_PRINTABLE = re.compile('[^ -~]')


def printable(text: str) -> str:
    r"""The text with \xhh for every character that is not printable ASCII."""
    return _NOT_PRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code_point = ord(character)
    return f'\\x{code_point:02x}'


class PrintableFormatter(logging.Formatter):
    """Formats log records whose message may contain such text. Tracebacks keep their lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 the name is logging's
        message = printable(record.message)
        record.message = message
        return super().formatMessage(record)
