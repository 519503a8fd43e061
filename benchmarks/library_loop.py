"""What the library costs alone: an endless loop over SerialReader.read().

python -m benchmarks.library_loop DEVICE
"""

import sys

from dsmr_parser import telegram_specifications
from dsmr_parser.clients import SERIAL_SETTINGS_V5, SerialReader

if __name__ == '__main__':
    reader = SerialReader(sys.argv[1], dict(SERIAL_SETTINGS_V5), telegram_specifications.V5)
    for _ in reader.read():
        pass
