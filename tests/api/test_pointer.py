"""JSON Pointers into documents, and the paths that are suggested for those that lead nowhere."""

from typing import Any

import pytest

from dsmr_rest.api.pointer import (
    LONGEST_GUESS,
    NothingThereError,
    keys_of,
    path_of,
    similar_key,
    value_at,
)

DOCUMENT = {
    'currentElectricityUsage': {'value': 0.355, 'unit': 'kW'},
    'mbusDevices': [{'channelId': 1}, {'channelId': 2}],
    'a/b~c': None,
}


@pytest.mark.parametrize(
    ('path', 'value'),
    [
        ('/currentElectricityUsage', {'value': 0.355, 'unit': 'kW'}),
        ('/currentElectricityUsage/value', 0.355),
        ('/mbusDevices/1/channelId', 2),
        ('/a~1b~0c', None),
        ('/a%2Fb~0c', None),
    ],
)
def test_a_pointer_leads_to_its_value(path: str, value: Any) -> None:
    """Keys and indexes lead to a value; ~1 is a slash and ~0 a tilde in a key (RFC 6901 4)."""
    assert value_at(DOCUMENT, keys_of(path)) == value


@pytest.mark.parametrize(
    ('path', 'meant'),
    [
        ('/currentElectricityUsage/', '/currentElectricityUsage'),
        ('/currentElectricityUsage/Value', '/currentElectricityUsage/value'),
        ('/mbusDevices/0/chanelId', '/mbusDevices/0/channelId'),
        ('/a~1b~0C', '/a~1b~0c'),
        ('/currentElectricityUsage/quite-different', ''),
        ('/currentElectricityUsage/value/0', ''),
        ('/mbusDevices/2', ''),
        ('/mbusDevices/00', ''),
        ('/mbusDevices/-', ''),
    ],
)
def test_a_pointer_to_nothing_says_what_was_meant(path: str, meant: str) -> None:
    """A slash at the end, another case or a missing letter lead to the path that was meant; other mistakes to none."""
    with pytest.raises(NothingThereError) as raised:
        value_at(DOCUMENT, keys_of(path))
    assert raised.value.meant == meant


def test_keys_must_be_utf_8() -> None:
    """A key that is not UTF-8 when it is decoded leads nowhere."""
    with pytest.raises(NothingThereError):
        keys_of('/%ff')


def test_the_path_of_keys_leads_to_them() -> None:
    """path_of() escapes what keys_of() unescapes."""
    keys = ['a/b', 'c~d', '~1', '']
    assert keys_of(path_of(keys)) == keys


def test_only_similar_keys_are_similar() -> None:
    """Case does not matter; a key that is long or quite different is similar to none."""
    known = ['frequency', 'textMessage']
    assert similar_key('FREQUENCY', known) == 'frequency'
    assert similar_key('textMesage', known) == 'textMessage'
    assert similar_key('gas', known) == ''
    assert similar_key('frequency' + ' ' * LONGEST_GUESS, known) == ''
