"""Items and lines in their places: the meter's own, the devices', and those without a name."""

from typing import Any

import pytest

from dsmr_rest.reading.combination import Combination, NamedItem

ITEM = {'value': 1.0, 'unit': 'kWh'}
OTHER = {'value': 2.0, 'unit': 'kWh'}


def by_form(groups: list[str]) -> dict[str, Any]:
    """An item that shows which groups it was made of."""
    return {'groups': groups}


def combined(lines: list[str], *named: NamedItem) -> Combination:
    """All lines in their places."""
    combination = Combination(lines)
    for item in named:
        combination.add(item)
    combination.add_others(by_form)
    return combination


def test_each_line_has_one_place() -> None:
    """A line with a name is under its key, every other line under its code, and none is in both."""
    lines = ['1-0:1.8.1(1)', '1-0:9.9.9(2)(3)', '0-1:24.2.1(4)', '0-1:24.9.0(5)']
    first = NamedItem(0, None, 'energy', ITEM)
    third = NamedItem(2, 1, 'reading', OTHER)
    assert combined(lines, first, third).document(0.0) == {
        'energy': ITEM,
        'otherObjects': {'1-0:9.9.9': {'groups': ['2', '3']}},
        'mbusDevices': [
            {
                'channelId': 1,
                'reading': OTHER,
                'otherObjects': {'0-1:24.9.0': {'groups': ['5']}},
            }
        ],
    }


def test_the_last_line_of_a_name_has_its_key() -> None:
    """The lines before it are under their codes, and an item of a device does not replace one of the meter."""
    lines = ['1-0:1.8.1(1)', '1-0:1.8.1(2)', '0-1:1.8.1(3)']
    named = [NamedItem(0, None, 'energy', ITEM), NamedItem(1, None, 'energy', OTHER)]
    assert combined(lines, *named, NamedItem(2, 1, 'energy', ITEM)).document(0.0) == {
        'energy': OTHER,
        'otherObjects': {'1-0:1.8.1': {'groups': ['1']}},
        'mbusDevices': [{'channelId': 1, 'energy': ITEM}],
    }


@pytest.mark.parametrize('whole_is', [0, 1])
def test_a_part_does_not_replace_the_whole(whole_is: int) -> None:
    """Of two channels the lower one has the name, in whichever order they come, and the other is under its code."""
    lines = ['1-1:1.8.0(2)', '1-1:1.8.0(2)']
    lines[whole_is] = '1-0:1.8.0(1)'
    items = [OTHER, OTHER]
    items[whole_is] = ITEM
    named = [NamedItem(index, None, 'energy', item) for index, item in enumerate(items)]
    assert combined(lines, *named).document(0.0) == {
        'energy': ITEM,
        'otherObjects': {'1-1:1.8.0': {'groups': ['2']}},
    }


def test_a_code_that_comes_three_times_has_a_list_of_three() -> None:
    """None of them is lost, and they are in telegram order."""
    document = combined(['1-0:9.9.9(1)', '1-0:9.9.9(2)', '1-0:9.9.9(3)']).document(0.0)
    items = [{'groups': ['1']}, {'groups': ['2']}, {'groups': ['3']}]
    assert document == {'otherObjects': {'1-0:9.9.9': items}}


@pytest.mark.parametrize(
    ('lines', 'channels'),
    [
        (['0-2:96.3.10(0)'], []),  # a switch without a device, as in Luxembourg
        (['0-2:24.4.0(0)'], []),
        (['0-2:96.3.10(0)', '0-2:24.1.0(003)'], [2]),
        (['0-2:96.3.10(0)', '0-2:96.1.0()'], [2]),
        (['0-2:24.2.3(5.5)'], [2]),
        (['0-0:24.1.0(003)'], []),
    ],
)
def test_a_device_is_where_something_says_what_it_is(lines: list[str], channels: list[int]) -> None:
    """The lines of a channel without type, number and reading are with those of the meter."""
    document = combined(lines).document(0.0)
    devices = document.get('mbusDevices', [])
    assert [device['channelId'] for device in devices] == channels
    shown = [*document.get('otherObjects', {})]
    for device in devices:
        shown += device['otherObjects']
    assert shown == [line.partition('(')[0] for line in lines]


def test_what_has_no_groups_or_no_code_is_not_understood() -> None:
    """Its code is named, as far as it is one."""
    lines = ['1-0:1.8.1', '1-0:1.8.2(1', '1-0:Jane(1)', '1-0:1.8.3(1)']
    combination = combined(lines)
    assert combination.not_understood == ['1-0:1.8.1', '1-0:1.8.2', '1-0:']
    assert combination.document(0.0) == {'otherObjects': {'1-0:1.8.3': {'groups': ['1']}}}


def test_an_item_that_is_not_whole_leaves_the_line_under_its_code() -> None:
    """What the item does not have is not lost."""
    item = NamedItem(0, None, 'limit', ITEM, is_whole=False)
    assert combined(['1-1:31.4.0(1)(2)'], item).document(0.0) == {
        'limit': ITEM,
        'otherObjects': {'1-1:31.4.0': {'groups': ['1', '2']}},
    }
