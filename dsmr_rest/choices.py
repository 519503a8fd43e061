"""What config.ini lets a user choose from: the settings of the line, and the telegram specifications.

Data only, so that reading the settings needs neither the port nor dsmr_parser.
"""

BAUD_RATES = {'115200 8N1': 115200, '115200 7E1': 115200, '9600 7E1': 9600}
"""The baud rate of each line setting: 115200 8N1 since DSMR 4, 9600 7E1 in DSMR 2.2 and 3."""

TIME_ZONE = 'Europe/Amsterdam'
"""The time zone of the meter unless another is set: also that of Belgium, Luxembourg, Austria, Hungary and Sweden."""

SPECIFICATION_NAMES = (
    'V2_2',
    'V3',
    'V4',
    'V5',
    'BELGIUM_FLUVIUS',
    'LUXEMBOURG_SMARTY',
    'MSN',
    'SWEDEN',
    'Q3D',
    'SAGEMCOM_T210_D_R',
    'AUSTRIA_ENERGIENETZE_STEIERMARK',
    'ISKRA_IE',
    'EON_HUNGARY',
)
"""The names of all tables of dsmr_parser, in its order. V3 is another name for V2_2, and
AUSTRIA_ENERGIENETZE_STEIERMARK for SAGEMCOM_T210_D_R."""
