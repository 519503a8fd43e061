"""JSON Pointers into documents, and the paths that are suggested for those that lead nowhere."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
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
from tests.conftest import (
    FROM_MEMORY,
    Server,
    is_problem,
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
    assert similar_key('/nothing', ['/ping']) == ''
    assert similar_key('frequency' + ' ' * LONGEST_GUESS, known) == ''


def pointers(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Every JSON Pointer into a document, with the value it refers to."""
    if path:
        yield path, value
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        yield from pointers(item, f'{path}/{key}')


def test_every_value_is_at_its_pointer(served: Server) -> None:
    """A path is a JSON Pointer to any object, number, text, null or list of the reading."""
    document = served.get('/', FROM_MEMORY).json
    everything = list(pointers(document))
    assert len(everything) > 100
    with closing(http.client.HTTPConnection('127.0.0.1', served.port)) as connection:
        for path, value in everything:
            connection.request('GET', path, headers=FROM_MEMORY)
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())) == (200, value), path


@pytest.mark.parametrize(
    'path',
    [
        '/currentElectricityUsage/', '/currentElectricityUsage/values', '/currentElectricityUsage/value/0',
        '/currentElectricityUsage~1value', '/currentElectricityUsage~0', '/p1MessageHeader/value/__class__',
        '/powerEventFailureLog/buffer/-', '/powerEventFailureLog/buffer/-1', '/powerEventFailureLog/buffer/00',
        '/powerEventFailureLog/buffer/2', '/powerEventFailureLog/buffer/0x', '/powerEventFailureLog/buffer/+0',
        '/powerEventFailureLog/buffer/%C2%B2', '/powerEventFailureLog/buffer/99999999999999999999',
    ],
)  # fmt: skip
def test_a_pointer_to_nothing_is_404(path: str, served: Server) -> None:
    """What does not exist below an existing key is not_found."""
    assert is_problem(served.get(path, FROM_MEMORY), 404, 'not_found')
