"""Whole hostile telegrams through every output: a bad line costs its own value, and no output fails.

In this process through framing, reading and all formats; then through a real server on a pseudo-terminal, and through
take_one_reading.py.
"""

import http.client
import itertools
import json
import queue
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families

from dsmr_rest.api import homewizard
from dsmr_rest.api.metrics import exposition
from dsmr_rest.p1.line import LineCounters
from dsmr_rest.p1.proof import Prover
from dsmr_rest.reading.document import Reading, possible_keys, render
from dsmr_rest.reading.quantities import GAS_COPIES
from dsmr_rest.reading.specification import Chooser
from dsmr_rest.reading.times import is_date
from dsmr_rest.simulated.meter import PseudoTerminal
from dsmr_rest.simulated.telegrams import VERSIONS, with_checksum
from take_one_reading import describe, mask
from tests.conftest import (
    ROOT,
    ClientResponse,
    Server,
    StartServer,
    new_meter,
    wait_for,
    write_config,
)
from tests.hostile_telegrams import BAD_GROUPS, SPECIFICATIONS, hostile_telegrams
from tests.telegrams import from_lines, of_version, usable_readings

OPENMETRICS = 'application/openmetrics-text;version=1.0.0'
LINE = '115200 8N1'
LOCAL_TIME = re.compile(r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d(:\d\d)?"')
TWELVE_DIGITS = re.compile('[0-9]{12}$')
PERSONAL = re.compile('quipmentIdentifier|erial[nN]umber|LogicalDeviceName|extMessage')
"""In the keys that take_one_reading --mask hides."""

Samples = dict[str, float]
"""Values by name and labels."""


def refuse(text: str) -> NoReturn:
    pytest.fail(f'{text} is not JSON')


def strict(data: bytes) -> Any:
    """JSON as a strict client reads it: without NaN and Infinity."""
    return json.loads(data, parse_constant=refuse)


def samples(families: Iterable[Metric]) -> Samples:
    """The samples as a parser of the exposition format reads them."""
    found: Samples = {}
    for family in families:
        for sample in family.samples:
            name = f'{sample.name}{sorted(sample.labels.items())}'
            assert name not in found, 'a sample is there twice'
            found[name] = sample.value
    return found


def in_text_format(body: bytes) -> Samples:
    return samples(text_families(body.decode()))


def in_openmetrics(body: bytes) -> Samples:
    return samples(openmetrics_families(body.decode()))  # type: ignore[no-untyped-call]  # it has no types


def exposed(reading: Reading, accept: str = '') -> bytes:
    """The body of a scrape, with all labels."""
    body, _ = exposition(
        reading,
        0.0,
        LineCounters(),
        errors={},
        responses={},
        telegram_clients=0,
        accept=accept,
        identifiers=True,
    )
    return body


def check_formats(reading: Reading) -> None:
    """Every format of the reading is what its readers accept."""
    assert strict(reading.json) == strict(reading.line) == reading.document
    assert set(reading.document) <= possible_keys()
    assert in_text_format(exposed(reading)) == in_openmetrics(exposed(reading, OPENMETRICS))
    fields = homewizard.data(reading)
    assert strict(render(fields)) == fields
    assert None not in fields.values()
    check_gas(reading)
    check_values(reading)


def check_gas(reading: Reading) -> None:
    """The gas meter at the top of the document is one of mbusDevices."""
    measured = [device.measured for device in reading.devices if device.kind_name == 'gas']
    gas = reading.document.get('hourlyGasMeterReading')
    assert gas in [*measured, None]


def check_values(reading: Reading) -> None:
    """No time is served as a number, and of what has no name each line is there in one of the three forms."""
    for key, item in items_of(reading.document):
        if key == 'otherObjects':
            for other in others_of(item):
                assert set(other) in ({'value', 'unit'}, {'datetime', 'value', 'unit'}, {'groups'})
        elif isinstance(item, dict) and item.get('unit', '') is None:
            assert not is_time(item['value'])


def is_time(value: Any) -> bool:
    """Whether a number has twelve digits that are a date."""
    if not isinstance(value, int | float):
        return False
    return bool(TWELVE_DIGITS.match(f'{value:012.0f}')) and is_date(f'{value:012.0f}')


def others_of(objects: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The items of otherObjects, also those of a code that came more than once."""
    for item in objects.values():
        if isinstance(item, list):
            yield from item
        else:
            yield item


def check_masked_others(objects: Mapping[str, Any]) -> None:
    """Of the texts of otherObjects no letter and digit is left."""
    for item in others_of(objects):
        texts = [*item.get('groups', [])]
        if isinstance(item.get('value'), str):
            texts += [item['value'], item['unit'] or '']
        assert not re.search(r'[^\W_X]', ' '.join(texts))


def check_report(reading: Reading) -> None:
    """What take_one_reading says of the reading is printable, and --mask leaves nothing of what is personal."""
    for masked in (False, True):
        for line in describe(reading, LINE, masked=masked):
            assert line.isascii() and line.isprintable()
    masked_document = mask(reading.document)
    assert strict(render(masked_document)) == masked_document
    for key, item in items_of(masked_document):
        if key == 'otherObjects':
            check_masked_others(item)
        elif PERSONAL.search(key):
            assert not re.search(r'[^\W_X]', f'{item["value"]} {item["unit"]}'.replace('None', ''))


def items_of(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The items of the meter and of its devices, by their keys."""
    for key, item in document.items():
        if key != 'mbusDevices':
            yield key, item
    for device in document.get('mbusDevices', []):
        yield from device.items()


ZONES = st.sampled_from(['Europe/Amsterdam'] * 3 + ['Europe/Helsinki', 'Australia/Sydney', 'UTC'])


@cache
def chooser_of(specification: str, time_zone: str = 'Europe/Amsterdam') -> Chooser:
    """Each is used for many telegrams, as that of a server."""
    return Chooser(specification, time_zone)


@settings(deadline=None, max_examples=800, derandomize=True)
@given(hostile_telegrams(), SPECIFICATIONS, ZONES, st.booleans())
def test_a_hostile_telegram_has_every_format_or_no_reading(
    data: bytes, specification: str, time_zone: str, encrypted: bool
) -> None:
    """Whatever a telegram contains, no format of it fails, and each is what its readers accept."""
    chooser = chooser_of(specification, time_zone)
    for reading in usable_readings(data, chooser, encrypted=encrypted):
        check_formats(reading)
        check_report(reading)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(hostile_telegrams(), SPECIFICATIONS)
def test_the_time_zone_changes_nothing_but_times(data: bytes, specification: str) -> None:
    """In another zone the meter has the same values under the same names."""
    choosers = [chooser_of(specification, zone) for zone in ('Europe/Amsterdam', 'Asia/Kolkata')]
    dutch, indian = (usable_readings(data, chooser) for chooser in choosers)
    for one, other in zip(dutch, indian, strict=True):
        assert without_times(one) == without_times(other)
        assert one.not_understood == other.not_understood


def without_times(reading: Reading) -> Any:
    """The document without times, and without the copies of the gas meter in use, which depends on times."""
    items = {key: item for key, item in reading.document.items() if key not in GAS_COPIES}
    text = json.dumps(items)
    return json.loads(LOCAL_TIME.sub('null', text))


# One bad line

DECIDES_NAMES = re.compile(r'\d-\d:(0\.2\.8|96\.1\.4)\(')
"""Of the line with the version, which the choice of the specification depends on."""
BEGINS_A_TELEGRAM = re.compile(r'/[A-Za-z]{3}\d')
"""An identification, with which the next telegram begins: a telegram that was cut short ran into it."""
DEPENDS_ON_OTHERS = ('total_power', 'active_power', 'active_current')
"""Fields of HomeWizard that are made of several lines: without one of these they are left out, or without a sign."""


def lines_of(version: str) -> list[str]:
    """The lines of a simulated telegram, header first; the gas reading of DSMR 2.2 is one line with the line before."""
    text, _, _ = of_version(version).decode('latin-1').rpartition('!')
    return re.split(r'\r\n(?!\()', text)[:-1]


VERSIONS_LINES = {version: lines_of(version) for version in VERSIONS}


def whole(version: str, lines: list[str]) -> bytes:
    text = ''.join(f'{line}\r\n' for line in lines)
    if VERSIONS[version].checksum:
        return with_checksum(text)
    return f'{text}!\r\n'.encode('latin-1')


@st.composite
def with_one_bad_line(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """The code of a line, the telegram without that line, and the telegram in which its groups are bad."""
    version = draw(st.sampled_from([*VERSIONS]))
    lines = VERSIONS_LINES[version]
    replaceable = [line for line in lines if '(' in line and not DECIDES_NAMES.match(line)]
    line = draw(st.sampled_from(replaceable))
    code, _, _ = line.partition('(')
    index = lines.index(line)
    bad_line = code + draw(BAD_GROUPS.filter(lambda groups: not BEGINS_A_TELEGRAM.search(groups)))
    before, after = lines[:index], lines[index + 1 :]
    return code, whole(version, before + after), whole(version, [*before, bad_line, *after])


def values_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The items of the meter, and those of its devices with their channels."""
    values = {key: item for key, item in document.items() if key != 'mbusDevices'}
    for device in document.get('mbusDevices', []):
        for key, item in device.items():
            values[f'{device["channelId"]} {key}'] = item
    return values


@st.composite
def with_one_more_line(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """The code of a line without a name, a simulated telegram without this line, and one with it."""
    version = draw(st.sampled_from([*VERSIONS]))
    lines = VERSIONS_LINES[version]
    code = draw(st.sampled_from(['1-0:99.9.9', '0-0:96.50.68', '1-0:1.8.1*01', '0-9:15.7.0']))
    begin_with_bracket = BAD_GROUPS.filter(lambda groups: groups.startswith('('))
    line_groups = draw(
        begin_with_bracket.filter(lambda groups: not BEGINS_A_TELEGRAM.search(groups))
    )
    place = draw(st.integers(1, len(lines)))
    more = [*lines[:place], code + line_groups, *lines[place:]]
    return code, whole(version, lines), whole(version, more)


def has_wrong_parity(data: bytes) -> bool:
    """Whether a telegram has no checksum, and so must not have bytes of eight bits."""
    return data.endswith(b'!\r\n') and not data.isascii()


@settings(deadline=None, max_examples=300, derandomize=True)
@given(with_one_more_line())
def test_a_line_without_a_name_is_served_or_named(example: tuple[str, bytes, bytes]) -> None:
    """Whatever its groups are, it is in otherObjects or not understood, and changes no other value."""
    code, without_line, with_line = example
    assume(not has_wrong_parity(with_line))
    (expected,) = usable_readings(without_line, chooser_of('auto'))
    (reading,) = usable_readings(with_line, chooser_of('auto'))
    document = dict(reading.document)
    others = document.pop('otherObjects', {})
    assert code in [*others, *reading.not_understood]
    assert document == {
        key: item for key, item in expected.document.items() if key != 'otherObjects'
    }


@settings(deadline=None, max_examples=300, derandomize=True)
@given(with_one_bad_line())
def test_a_bad_line_costs_no_value_of_another(example: tuple[str, bytes, bytes]) -> None:
    """With a bad line every value of the other lines is the same, in JSON, in metrics and for HomeWizard."""
    code, without_line, with_bad_line = example
    assume(not has_wrong_parity(with_bad_line))
    (expected,) = usable_readings(without_line, chooser_of('auto'))
    (reading,) = usable_readings(with_bad_line, chooser_of('auto'))
    assert values_of(expected.document).items() <= values_of(reading.document).items()
    fields = homewizard.data(reading)
    for field, value in homewizard.data(expected).items():
        if not field.startswith(DEPENDS_ON_OTHERS) and field != 'external':
            assert fields[field] == value
    # The labels of a device's reading have its type, and those of the meter its identifier.
    if ':24.1.0' not in code:
        shown, still_shown = in_text_format(exposed(expected)), in_text_format(exposed(reading))
        labels = ('dsmr_meter_info', 'dsmr_mbus_info')
        values = {name: value for name, value in shown.items() if not name.startswith(labels)}
        assert values.items() <= still_shown.items()


# A server

WITHOUT_SHRINKING = (Phase.generate,)
"""A failure that takes seconds would be tried again for minutes."""
ALL_OUTPUTS = {'homewizard_api': 'yes', 'metrics_identifiers': 'yes'}
LOG = re.compile(rb'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [ -~]+\n)*')
"""Whole lines without control characters; a traceback has lines that do not begin with a time."""
FROM_MEMORY = {'Cache-Control': 'max-age=60'}
FROM_THE_LINE = {'Cache-Control': 'no-cache'}
EACH_LEAF = 7
"""One of so many values is asked for by its JSON Pointer."""
DEADLINE = 120
"""Seconds: far more than a busy machine needs."""
MOST_RESENDINGS = 24
"""A minute or two on a machine that is busy with other work."""
SHORTEST_RESENDING_PAUSE, LONGEST_RESENDING_PAUSE = 0.25, 5.0
"""Seconds after which a telegram is sent again: to confirm itself, or because a server that was stalled discards it."""


def leaves(value: Any, pointer: str = '') -> Iterator[tuple[str, Any]]:
    """The values of a document that are neither objects nor lists, by their JSON Pointers."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f'{pointer}/{key}')
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f'{pointer}/{index}')
    else:
        yield pointer, value


def send(terminal: PseudoTerminal, data: bytes) -> None:
    """Puts bytes on the line, as fast as the server takes them."""
    while data:
        taken = wait_for(partial(terminal.write, data))
        data = data[taken:]


class MeterAndServer:
    """A meter whose telegrams a test makes, a server that reads it, and a stream that keeps its port open."""

    def __init__(
        self, terminal: PseudoTerminal, server: Server, events: 'queue.Queue[bytes]'
    ) -> None:
        self._terminal = terminal
        self._events = events
        self.server = server

    def send_until_served(self, data: bytes, reading: Reading) -> list[bytes]:
        """Sends a telegram until the stream has its reading; returns the events that the stream had before."""
        earlier: list[bytes] = []
        pause = SHORTEST_RESENDING_PAUSE
        for _ in range(MOST_RESENDINGS):
            send(self._terminal, data)
            with suppress(queue.Empty):
                while (event := self._events.get(timeout=pause)) != reading.line:
                    earlier.append(event)
                return earlier
            pause = min(2 * pause, LONGEST_RESENDING_PAUSE)
        pytest.fail(f'{data!r} is not served')

    def check_outputs(self, reading: Reading) -> None:
        """Every path responds with this reading, which is the last one."""
        with closing(
            http.client.HTTPConnection('127.0.0.1', self.server.port, timeout=DEADLINE)
        ) as client:

            def body(path: str, accept: str = '*/*') -> bytes:
                client.request('GET', path, headers={**FROM_MEMORY, 'Accept': accept})
                response = client.getresponse()
                received = response.read()
                assert response.status == 200, (path, received)
                return received

            assert strict(body('/')) == reading.document
            for pointer, value in [*leaves(reading.document)][::EACH_LEAF]:
                assert strict(body(pointer)) == value
            for path in ('/telegram', '/api/v1/telegram'):
                assert body(path) == reading.telegram
            assert in_text_format(body('/metrics'))['dsmr_up[]'] == 1
            assert in_openmetrics(body('/metrics', OPENMETRICS))['dsmr_up[]'] == 1
            assert re.fullmatch('[0-9a-f]{12}', strict(body('/api'))['serial'])
            assert strict(body('/api/v1/data')) == homewizard.data(reading)
            health = strict(body('/health'))
            assert health['linesNotUnderstood'] == [*reading.not_understood]


class Expectation:
    """What a server may make of telegrams, of which it remembers whose meter sends a checksum."""

    def __init__(self) -> None:
        self._chooser = Chooser()
        self._prover = Prover()

    def first_and_later(self, data: bytes) -> tuple[list[Reading], list[Reading]]:
        """The readings of these bytes when they arrive once more, and those of each time after that.

        A telegram without a checksum is served the first time only, if one with a checksum from its meter follows it.
        """
        first, later = (usable_readings(data, self._chooser, prover=self._prover) for _ in range(2))
        return first, later


def check_log(server: Server) -> None:
    """The log has no traceback and nothing that a terminal would obey."""
    log = server.log_file.read_bytes()
    assert LOG.fullmatch(log), log


@contextmanager
def events_of(server: Server) -> Iterator['queue.Queue[bytes]']:
    """The data of the events of a stream, as they arrive."""
    events: queue.Queue[bytes] = queue.Queue()

    def collect(stream: BinaryIO) -> None:
        for line in stream:
            if line.startswith(b'data: '):
                events.put(line.removeprefix(b'data: ').rstrip(b'\n'))

    with server.connect() as client, client.makefile('rb') as stream:
        client.settimeout(None)
        client.sendall(b'GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n')
        thread = threading.Thread(target=collect, args=(stream,))
        thread.start()
        try:
            yield events
        finally:
            client.shutdown(socket.SHUT_RDWR)
            thread.join()


def numbered_telegram(number: int) -> bytes:
    return from_lines('1-3:0.2.8(50)', '1-0:1.7.0(00.355*kW)', f'0-0:96.13.0({number:08})')


def test_a_server_serves_every_output_of_hostile_telegrams(start_server: StartServer) -> None:
    """A telegram that can be read is served by every path, one that cannot costs nobody the next one; no log is lost.

    With each there is a request that waits for a telegram: its response is the first one that can be read.
    """
    numbers = itertools.count()
    expectation = Expectation()
    with ExitStack() as stack:
        terminal = stack.enter_context(closing(PseudoTerminal()))
        server = start_server(terminal.name, meter={'max_age': 3600}, server=ALL_OUTPUTS)
        pool = stack.enter_context(ThreadPoolExecutor())
        events = stack.enter_context(events_of(server))
        line = MeterAndServer(terminal, server, events)

        @settings(deadline=None, max_examples=100, derandomize=True, phases=WITHOUT_SHRINKING)
        @given(hostile_telegrams())
        def check(data: bytes) -> None:
            first, later = expectation.first_and_later(data)
            next_telegram = numbered_telegram(next(numbers))
            _, (next_reading,) = expectation.first_and_later(next_telegram)
            waiting = pool.submit(server.get, '/', FROM_THE_LINE)
            wait_for(lambda: server.waiters == 2)
            if later:
                line.send_until_served(data, later[-1])
                line.check_outputs(later[-1])
            else:
                send(terminal, data)
            earlier = line.send_until_served(next_telegram, next_reading)
            together, _ = expectation.first_and_later(data + next_telegram)
            readable = {reading.line for reading in [*first, *together]}
            assert set(earlier) <= readable
            response = waiting.result(DEADLINE)
            assert response.status == 200
            assert strict(response.body) in [
                reading.document for reading in [*first, *later, next_reading]
            ]
            line.check_outputs(next_reading)
            check_log(server)

        check()


def test_telegrams_that_cannot_be_read_have_a_truthful_fault(start_server: StartServer) -> None:
    """While no telegram can be read, a request gets 504 with what is wrong with them; the log says when that is over.

    That line of the log contains the header line of a hostile telegram.
    """
    faults = {'checksum_failed', 'line_garbled', 'telegram_incomplete'}
    chooser = Chooser()
    expectation = Expectation()
    hostile = hostile_telegrams()
    unusable = hostile.filter(lambda data: not usable_readings(data, chooser))
    usable = hostile.filter(lambda data: usable_readings(data, chooser))
    with closing(PseudoTerminal()) as terminal, ThreadPoolExecutor() as pool:
        server = start_server(
            terminal.name, meter={'timeout': 1, 'keep_open': 3600}, server=ALL_OUTPUTS
        )
        wait_for(lambda: server.openings == 1)

        def response_meanwhile(data: bytes) -> ClientResponse:
            waiting = pool.submit(server.get)
            wait_for(lambda: server.waiters == 1 or waiting.done())
            send(terminal, data)
            return waiting.result(DEADLINE)

        def response_to(data: bytes) -> ClientResponse:
            """The response to a request during which these bytes arrive, however long they take."""
            while True:
                response = response_meanwhile(data)
                if response.status == 200 or strict(response.body)['code'] != 'meter_silent':
                    return response

        @settings(deadline=None, max_examples=5, derandomize=True, phases=WITHOUT_SHRINKING)
        @given(unusable, usable)
        def check(bad: bytes, good: bytes) -> None:
            expectation.first_and_later(bad)
            _, later = expectation.first_and_later(good)
            assume(later)
            times_back = server.log.count('meter back')
            response = response_to(bad)
            assert response.status == 504
            assert strict(response.body)['code'] in faults
            assert server.get('/metrics', {'Prefer': 'wait=0'}).status == 200
            wait_for(lambda: response_to(good).status == 200)
            wait_for(lambda: server.log.count('meter back') > times_back)
            check_log(server)

        check()


# The set-up test


def run_take_one_reading(
    folder: Path, port: str, *options: str
) -> 'subprocess.CompletedProcess[bytes]':
    settings_file = write_config(folder, {'port': port, 'line': LINE}, {})
    command = [sys.executable, str(ROOT / 'take_one_reading.py'), '--config', settings_file]
    return subprocess.run(
        [*command, *options], capture_output=True, timeout=2 * DEADLINE, check=False
    )


def test_take_one_reading_reads_hostile_telegrams(tmp_path: Path) -> None:
    """A hostile telegram, or the sound one after it, is printed as strict JSON, and stderr has nothing but text."""
    sound = numbered_telegram(0)

    @settings(deadline=None, max_examples=10, derandomize=True, phases=WITHOUT_SHRINKING)
    @given(hostile_telegrams(), st.booleans())
    def check(data: bytes, masked: bool) -> None:
        # The script opens the port in the middle of a telegram, which may make two of one.
        documents = [
            reading.document for reading in usable_readings(data + sound, chooser_of('auto'))
        ]
        options: list[str] = []
        if masked:
            options.append('--mask')
            documents = [mask(document) for document in documents]
        with new_meter(interval=0, source=itertools.cycle([data, sound]).__next__) as meter:
            result = run_take_one_reading(tmp_path, meter.port, *options)
        assert result.returncode == 0, result.stderr
        assert strict(result.stdout) in documents
        assert re.fullmatch(rb'[ -~\n]+', result.stderr)
        assert b'Traceback' not in result.stderr

    check()
