"""Text that is safe to show on a terminal and in a log."""

import logging
import sys

from hypothesis import given, strategies

from dsmr_rest.printable import PrintableFormatter, printable


def test_what_is_printable_stays_and_everything_else_is_escaped() -> None:
    """Control characters of every kind are shown by their codes."""
    text = 'meter back \x1b[31m\r\x9b\x7f\xe9 100 %'
    assert printable(text) == r'meter back \x1b[31m\x0d\x9b\x7f\xe9 100 %'


@given(strategies.text())
def test_any_text_becomes_printable_ascii(text: str) -> None:
    """Whatever a text contains, what is shown of it is printable ASCII, and printable ASCII stays as it is."""
    shown = printable(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert printable(shown) == shown


def record(message: str, *arguments: object, fails: bool = False) -> logging.LogRecord:
    """A record of the log, with the traceback of an error if something fails."""
    info = None
    if fails:
        try:
            int('not a number')
        except ValueError:
            info = sys.exc_info()
    return logging.LogRecord('name', logging.WARNING, 'file', 1, message, arguments, info)


def test_a_message_is_one_line_of_the_log() -> None:
    """Arguments of a message can neither begin a new line nor control the terminal."""
    formatter = PrintableFormatter('at noon: %(message)s')
    line = formatter.format(record('meter back: %s', '/ISK5\r\nFORGED\x1b[2J'))
    assert line == r'at noon: meter back: /ISK5\x0d\x0aFORGED\x1b[2J'


def test_a_traceback_keeps_its_lines() -> None:
    """The lines of a traceback, which this program makes, are lines of the log."""
    formatter = PrintableFormatter('%(message)s')
    lines = formatter.format(record('failed', fails=True)).splitlines()
    assert lines[0] == 'failed'
    assert lines[1].startswith('Traceback')
    assert len(lines) > 3
