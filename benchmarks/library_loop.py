"""What the library does by itself: SerialReader.read() without end. python -m … DEVICE."""

import sys

from dsmr_parser import telegram_specifications
from dsmr_parser.clients import SERIAL_SETTINGS_V5, SerialReader

for _ in SerialReader(sys.argv[1], dict(SERIAL_SETTINGS_V5), telegram_specifications.V5).read():
    pass
