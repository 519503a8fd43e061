"""What dsmr_parser's own parsers make of the telegrams of the simulated meter."""

from copy import deepcopy
from datetime import datetime
from typing import Any

from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import TelegramParser

from dsmr_rest.simulated.telegrams import telegram

SPECIFICATIONS = {
    '5.0': telegram_specifications.V5,
    '4.2': telegram_specifications.V4,
    '2.2': telegram_specifications.V2_2,
    'belgium': telegram_specifications.BELGIUM_FLUVIUS,
    'sweden': telegram_specifications.SWEDEN,
}


def parsed(data: bytes, version: str) -> Any:
    """dsmr_parser's reading of a telegram, with a copy of the specification, since its parsers keep state."""
    return TelegramParser(deepcopy(SPECIFICATIONS[version])).parse(
        data.decode('ascii'), throw_ex=True
    )


def reading(version: str, moment: datetime) -> Any:
    """dsmr_parser's reading of the telegram of a moment."""
    return parsed(telegram(version, moment), version)
