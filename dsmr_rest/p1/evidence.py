"""What is known when there is no reading: the facts from which diagnosis.py concludes.

Values only: this module does not know how a fact is found out, nor what follows from it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dsmr_rest.p1.line import LONGEST_SILENCE, LineCounters, LineState


class PortFacts(NamedTuple):
    """What the system says about the port and about who may open it.

    `is_there` when there is something under its name, and `what_else` says what if it is no serial port, such as 'a
    folder'. `group` is the name of the port's group, or its number where it has no name; empty when it is not known.
    `group_may_open` when the port's mode lets that group read and write it.
    """

    is_there: bool = False
    what_else: str = ''
    user: str = 'this user'
    group: str = ''
    group_may_open: bool = True
    user_is_in_group: bool = False
    """According to the group database, which holds for those who log in from now on."""
    group_is_hidden: bool = False
    """The number is not mapped in this user namespace (user_namespaces(7)), as with PrivateUsers=."""


class Evidence(NamedTuple):
    """What is known when a wait for a reading ends without one.

    `seen` is the state of the line now, and `counted` what was counted during the wait, of `waited` seconds. In
    `stalled` seconds of these this program did not run. `line` are the line settings in use, and `users` are the other
    programs that have the port open.
    """

    port: str
    is_remote: bool
    waited: float
    counted: LineCounters
    seen: LineState
    line: str
    stalled: float = 0.0
    users: Sequence[str] = ()
    longest_silence: float = LONGEST_SILENCE


class Loss(NamedTuple):
    """What is known when the open port cannot be read any more; `is_there` when the port itself is still there."""

    port: str
    is_remote: bool
    reason: str
    is_there: bool
    users: Sequence[str] = ()


class Refusal(NamedTuple):
    """What is known when the port cannot be opened: the system's error number and reason, and facts about the port."""

    port: str
    is_remote: bool
    number: int
    reason: str
    facts: PortFacts
    users: Sequence[str] = ()


class KeyFailure(NamedTuple):
    """What is known when the encrypted telegrams of a meter cannot be decrypted.

    `is_text` when the decryption key makes text of them, although no tag or checksum proves it, and `has_tag` when
    their frames have a tag that an authentication key could prove.
    """

    port: str
    has_key: bool
    is_text: bool = False
    has_tag: bool = True
