"""A telegram as a value: what proved it, and how that is told."""

import json

from dsmr_rest.reading.telegram import Proof, Telegram
from tests.conftest import ROOT

DESCRIPTION = json.loads((ROOT / 'dsmr_rest' / 'api' / 'openapi.json').read_text())


def test_each_proof_is_described() -> None:
    """The description of /health has every proof by the word that it is told with, and no other."""
    described = DESCRIPTION['components']['schemas']['Health']['properties']['verifiedBy']['enum']
    assert set(described) == {proof.value for proof in Proof} | {None}


def test_a_telegram_is_as_it_was_sent_unless_it_is_said() -> None:
    """Changed line ends are the exception, and two telegrams with the same content are the same."""
    telegram = Telegram(b'/TST5\r\n!\r\n', Proof.NOTHING)
    assert not telegram.has_changed_line_ends
    assert telegram == Telegram(b'/TST5\r\n!\r\n', Proof.NOTHING, has_changed_line_ends=False)
