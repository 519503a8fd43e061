"""The devices of the document: their kind, number and reading under the names of every table."""

from typing import Any

import pytest

from dsmr_rest.reading.mbus import KINDS, mbus_device

READING = {'datetime': '2024-01-15T10:30:00+01:00', 'value': 1.5, 'unit': 'm3'}


def of(**items: Any) -> dict[str, Any]:
    """An item of mbusDevices; a bare value gets the unit null."""
    device: dict[str, Any] = {'channelId': 2}
    for key, item in items.items():
        if isinstance(item, dict):
            device[key] = item
        else:
            device[key] = {'value': item, 'unit': None}
    return device


@pytest.mark.parametrize(
    'device',
    [
        of(deviceType='03', equipmentIdentifierGas='4731', gasMeterReading=READING),
        of(deviceType=3, equipmentIdentifierGas='4731', hourlyGasMeterReading=READING),
        of(mbusDeviceType=3, mbusEquipmentIdentifier='4731', mbusMeterReading=READING),
    ],
)
def test_the_names_of_every_table_are_known(device: dict[str, Any]) -> None:
    """Type, number and reading are found whatever their table calls them."""
    found = mbus_device(device)
    assert (found.channel, found.kind, found.own_number, found.measured) == (2, 3, '4731', READING)
    assert (found.kind_name, found.homewizard_type) == ('gas', 'gas_meter')


@pytest.mark.parametrize(
    ('kind', 'name', 'homewizard_type'),
    [(4, 'heat', 'heat_meter'), (7, 'water', 'water_meter'), (2, 'electricity', ''), (99, 'type 99', ''),
     (None, 'unknown', ''), ('x', 'unknown', ''), ('0' * 5000 + '7', 'water', 'water_meter')],
)  # fmt: skip
def test_a_kind_has_a_name(kind: Any, name: str, homewizard_type: str) -> None:
    """A kind that is not known is named by its number, and what is no kind is unknown."""
    found = mbus_device(of(mbusDeviceType=kind))
    assert (found.kind_name, found.homewizard_type) == (name, homewizard_type)
    assert found.kind in {*KINDS, 99, None}


@pytest.mark.parametrize(
    ('reading', 'number', 'is_read'),
    [
        (READING, '4731', True),
        (READING | {'value': 0.0}, '4731', True),
        (READING, '', True),
        (READING | {'value': 0.0}, '', False),
        (READING | {'value': 0.0}, '000000', False),
        (READING | {'value': None}, '4731', False),
        (READING | {'datetime': None}, '4731', False),
        (READING | {'datetime': '1970-01-01T00:00:00+01:00'}, '4731', False),
    ],
)
def test_a_removed_or_unread_device_has_no_reading(
    reading: dict[str, Any], number: str, is_read: bool
) -> None:
    """A reading without time or value, and a zero without a number, were never measured."""
    device = of(mbusDeviceType=3, mbusEquipmentIdentifier=number, mbusMeterReading=reading)
    assert (mbus_device(device).measured is not None) is is_read


def test_a_device_without_identifier_may_have_counted_nothing_yet() -> None:
    """Its zero is a reading: only an identifier that is there and empty shows that a device was removed."""
    zero = READING | {'value': 0.0}
    assert mbus_device(of(mbusDeviceType=3, mbusMeterReading=zero)).measured == zero


def test_the_other_objects_of_a_device_are_kept() -> None:
    """A valve, and lines without a name; not the channel, the type and the reading."""
    others = {'0-2:24.9.0': {'value': 'ON', 'unit': None}}
    device = of(mbusDeviceType=3, mbusMeterReading=READING, mbusValvePosition=1)
    found = mbus_device(device | {'otherObjects': others})
    assert found.others == {
        'mbusValvePosition': {'value': 1, 'unit': None},
        'otherObjects': others,
    }
    assert found.own_number == ''


def test_objects_without_a_name_are_found_by_their_codes() -> None:
    """A device of which the table of its meter has no names is known by its type, number and reading all the same."""
    others = {
        '0-2:24.1.0': {'value': '003', 'unit': None},
        '0-2:96.1.1': {'value': '4731', 'unit': None},
        '0-2:24.2.1': READING,
        '0-2:24.4.0': {'value': '1', 'unit': None},
    }
    found = mbus_device({'channelId': 2, 'otherObjects': others})
    assert (found.kind, found.own_number, found.measured) == (3, '4731', READING)
    assert [*found.others['otherObjects']] == ['0-2:96.1.1', '0-2:24.4.0']


@pytest.mark.parametrize('item', [{'groups': ['1', '2']}, [READING, READING]])
def test_what_has_no_single_value_is_not_the_reading(item: Any) -> None:
    """Groups of another form, and a code that comes twice, are not taken for the reading."""
    found = mbus_device({'channelId': 2, 'otherObjects': {'0-2:24.2.1': item}})
    assert found.measured is None


def test_a_name_comes_before_a_code() -> None:
    """What has a name is what the line says."""
    others = {'0-2:24.1.0': {'value': '007', 'unit': None}}
    assert mbus_device(of(mbusDeviceType=3) | {'otherObjects': others}).kind == 3
