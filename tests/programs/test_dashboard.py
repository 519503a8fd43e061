"""/dashboard as people see it: in a real Chromium, live from a server whose meter is on a pseudo-terminal."""

import itertools
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import pytest

from dsmr_rest.api.dashboard.files import FILES
from tests.conftest import MISSING_PORT, Server, StartServer, hush, new_meter, serving, wait_for
from tests.dashboard_page import (
    DESKTOP,
    NARROWEST,
    NO_SELENIUM,
    PHONE,
    SECTIONS,
    Bar,
    OpenPage,
    Page,
    plain,
)
from tests.faulty_meter import PATIENCE, FaultyMeter
from tests.system_packages import npm_file
from tests.telegrams import from_lines

if sys.platform != 'linux':
    pytest.skip('Chromium is driven as Debian has it', allow_module_level=True)

pytest.importorskip('selenium', reason=NO_SELENIUM)

from benchmarks.screenshot import emulate

AXE = 'axe-core/axe.min.js'
LEAST_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3 (AA)."""

CONTRASTS = """
const rgba = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
const ground = node => { while (node) { const found = getComputedStyle(node).backgroundColor;
  if ((rgba(found)[3] ?? 1) === 1) return found; node = node.parentElement; } };
return [...document.body.querySelectorAll('*')].filter(node => node.getClientRects().length && node.tagName !== 'SCRIPT'
  && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())).map(node => {
    const style = getComputedStyle(node), inSvg = node.namespaceURI.endsWith('svg');
    const [a, b] = [light(rgba(inSvg ? style.fill : style.color)), light(rgba(ground(node)))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), node.textContent];
  });
"""


def sending(*lines: str, checksum: bool = True) -> Callable[[], bytes]:
    """A meter that repeats these lines."""
    data = from_lines(*lines, checksum=checksum)
    return lambda: data


def requests_to(server: Server) -> int:
    """How many requests the server had before this one."""
    counts = server.health['counters']['requestsByStatus']
    return sum(counts.values())


def test_the_browser_requests_nothing_else_and_keeps_nothing(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """Under its own policy the page works without complaint, requests its files and the stream, and stores nothing."""
    server = start_server(meter.port)
    requests_before = requests_to(server)
    page = open_page(server)
    wait_for(lambda: page.points > 10)  # time enough for other requests
    names = page.run("return performance.getEntriesByType('resource').map(({name}) => name)")
    of_the_page = {
        f'{server.url}dashboard/{name}' for name in FILES if not name.startswith('texts/')
    }
    of_its_language = {f'{server.url}dashboard/texts/en.json'}
    assert set(names) <= of_the_page | of_its_language | {f'{server.url}stream'}
    of_this_test = 1
    page_and_stream = 2
    files = len(of_the_page | of_its_language)
    assert requests_to(server) == requests_before + page_and_stream + files + of_this_test
    assert page.run('return [localStorage.length, sessionStorage.length, document.cookie]') == [
        0,
        0,
        '',
    ]
    assert page.complaints == []
    elsewhere = f'http://localhost:{server.port}/health'
    page.browser.execute_async_script(f"fetch('{elsewhere}').finally(arguments[0])")
    assert 'Content Security Policy' in str(page.complaints)


def test_values_change_and_the_plot_grows(start_server: StartServer, open_page: OpenPage) -> None:
    """Every telegram changes the headline, in words and by sign, and the plot; the console stays empty."""
    using, delivering = itertools.cycle(range(1200, 1240)), itertools.cycle(range(-640, -600))
    watts = using

    def source() -> bytes:
        now = next(watts)
        return from_lines(
            f'1-0:1.7.0({max(0, now) / 1000:06.3f}*kW)',
            f'1-0:2.7.0({max(0, -now) / 1000:06.3f}*kW)',
            '1-0:1.8.1(1*kWh)',
        )

    with new_meter(interval=0.1, source=source) as meter:
        page = open_page(start_server(meter.port))
        wait_for(lambda: re.fullmatch(r'Using 1\.2\d\d kW', page.text('headline')))
        few = wait_for(lambda: page.points)
        assert not page.text('signed')
        watts = delivering
        wait_for(lambda: re.fullmatch(r'Delivering 0\.6\d\d kW', page.text('headline')))
        assert re.match(r'Net \u22120\.6\d\d kW', page.text('signed'))
        wait_for(lambda: page.points > few + 40)
        assert re.search(
            r'Lowest \u22120\.6\d\d kW, highest 1\.2\d\d kW since \d\d:\d\d\.',
            page.text('plot-text'),
        )
        assert page.text('state') == 'Live'
        assert page.complaints == []


def test_a_lost_meter_is_reported_until_it_is_back(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """Without its meter the page reports why, and dims old values and states their age, until the meter is back."""
    with new_meter(interval=0.2) as meter:
        page = open_page(start_server(meter.port))
        page.await_text('state', 'Live')
        fresh = page.colour
        meter.unplug()
        page.await_text('trouble', 'The serial port ')
        assert page.text('state') == 'Meter lost'
        assert 'Meter lost' in page.text('spoken')
        assert page.text('amount')
        assert page.colour != fresh
        wait_for(
            lambda: re.search('values below were received [2-9] seconds ago', page.text('trouble'))
        )
        meter.plug_in()
        page.await_text('state', 'Live')
        assert not page.text('trouble')
        assert page.colour == fresh
        assert page.curve.count('M') == 2  # with a gap
        assert page.complaints == []


def test_a_stopped_server_is_reported_until_it_is_back(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """Without its server the page reports that, and is live again when the server is back."""
    server = start_server(meter.port)
    page = open_page(server)
    page.await_text('state', 'Live')
    assert server.stop() == 0
    page.await_text('trouble', 'Server cannot be reached')
    assert page.text('amount')
    assert 'stale' in page.run('return document.body.className')
    start_server(meter.port, server={'port': server.port})
    page.await_text('state', 'Live')


def test_a_refused_stream_is_reported_and_requested_again(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """When all streams are taken the page shows the server's reason, and is live as soon as one is free."""
    server = start_server(meter.port, server={'max_streams': 1})
    with socket.create_connection(('127.0.0.1', server.port), 10) as other:
        other.sendall(b'GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
        assert other.recv(65536).startswith(b'HTTP/1.1 200')
        page = open_page(server)
        page.await_text('trouble', 'The server already has too many connections.')
        assert page.text('state') == 'Server refuses the stream'
    page.await_text('state', 'Live')


def test_a_password_in_the_address_is_enough(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """A page whose address contains the password is live, and learns why a stream is refused."""
    settings: dict[str, object] = {'user': 'me', 'password': 'secret', 'max_streams': 0}
    server = start_server(meter.port, server=settings)
    page = open_page(server, address='me:secret@127.0.0.1')
    page.await_text('trouble', 'The server already has too many connections.')
    assert server.stop() == 0
    start_server(meter.port, server={**settings, 'port': server.port, 'max_streams': 1})
    page.await_text('state', 'Live')


def seconds_of(age: str) -> int:
    """The age that the page shows; 0 when it is from just now."""
    match = re.fullmatch(r'Received (\d+) seconds ago', age)
    if match is None:
        return 0
    return int(match[1])


def test_the_age_counts_up(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """The age of the reading increases until the next telegram."""
    page = open_page(start_server(meter.port, meter={'timeout': PATIENCE}))
    page.await_text('age', 'Received just now')
    hush(meter)
    first = wait_for(lambda: seconds_of(page.text('age')))
    wait_for(lambda: seconds_of(page.text('age')) > first)
    assert page.text('state') == 'Live'


def test_the_age_does_not_need_clocks_that_agree(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """The age counts from arrival, whatever the server's clock says, and includes a connection's delay."""
    hush(meter)
    page = open_page(start_server(meter.port))
    ages = """return [-3600, -3600, 86400, 86390].map(ahead => {
        page.showReading({}, Date.now() / 1000 + ahead + .5);
        return document.getElementById('age').innerText; });"""
    assert [plain(age) for age in page.call(ages)] == [
        *['Received just now'] * 3,
        'Received 10 seconds ago',
    ]


BARE = (
    '1-0:1.8.1(000123.456*kWh)',
    '1-0:1.8.2(000234.567*kWh)',
    '1-0:1.7.0(0001.19*kW)',
    '1-0:2.7.0(0000.00*kW)',
)
SWEDISH = (
    *(
        '1-0:1.8.0(00006619.795*kWh)',
        '1-0:2.8.0(00000012.000*kWh)',
        '1-0:3.8.0(00003137.803*kVArh)',
    ),
    *('1-0:4.8.0(00000269.488*kVArh)', '1-0:1.7.0(0000.000*kW)', '1-0:2.7.0(0000.345*kW)'),
    *(
        '1-0:21.7.0(0000.000*kW)',
        '1-0:22.7.0(0000.345*kW)',
        '1-0:23.7.0(0000.000*kVAr)',
        '1-0:32.7.0(231.5*V)',
    ),
)
IN_WATTS = (
    *(
        '1-0:0.0.0*255(0272031312565)',
        '1-0:1.8.0*255(00052185.7825309*kWh)',
        '1-0:2.8.0*255(00019949.3221493*kWh)',
    ),
    *('1-0:21.7.0*255(000747.85*W)', '1-0:1.7.0*255(002124.86*W)', '1-0:96.5.5*255(80)'),
)
HEAT = (
    '1-3:0.2.8(50)',
    '0-0:1.0.0(220208231051W)',
    '0-1:24.1.0(004)',
    '0-1:24.2.1(220208231051W)(46.720*GJ)',
)
NULLS = (
    *(
        '1-3:0.2.8(50)',
        '0-0:1.0.0(632525252525W)',
        '0-0:96.14.0()',
        '1-0:1.8.1(000123.456*kWh)',
        '1-0:2.7.0(00.000*kW)',
    ),
    *('0-1:24.1.0()', '0-1:24.2.1(632525252525W)(00001.500*m3)'),
    *('0-2:24.1.0(003)', '0-2:24.2.1(700101010000W)(00000000)'),
)
LUXEMBOURGISH = (
    *('1-3:0.2.8(42)', '1-0:1.8.0(000300.000*kWh)', '1-0:1.7.0(01.190*kW)'),
    *('1-0:1.8.1(000123.456*kWh)', '1-0:1.8.2(000176.544*kWh)', '0-0:96.14.0(0002)'),
)


@dataclass(frozen=True)
class Odd:
    """A meter that sends little: its lines, and what the page shows of them."""

    lines: tuple[str, ...]
    sections: set[str]
    headline: str
    among: tuple[str, ...]
    since: str = ''
    checksum: bool = field(default=True, kw_only=True)


ODD = {
    'bare': Odd(
        BARE,
        {'since', 'plot', 'totals'},
        'Using 1.190 kW',
        ('Tariff 1 123.456', 'Tariff 2 234.567'),
        'Used 0.000 kWh',
    ),
    'swedish': Odd(
        SWEDISH,
        {'since', 'plot', 'totals', 'phases'},
        'Delivering 0.345 kW',
        ('Total 6,619.795 12.000',),
        'Used 0.000 kWh Delivered 0.000 kWh',
    ),
    'luxembourgish': Odd(
        LUXEMBOURGISH,
        {'since', 'plot', 'totals'},
        'Using 1.190 kW',
        ('Tariff 1 123.456', 'Tariff 2 (active) 176.544', 'Total 300.000'),
        'Used 0.000 kWh',
    ),
    'watts': Odd(
        IN_WATTS,
        {'since', 'plot', 'totals', 'phases'},
        'Using 2.125 kW',
        ('L1 0.748 kW',),
        'Used 0.000 kWh Delivered 0.000 kWh',
        checksum=False,
    ),
    'heat': Odd(
        HEAT,
        {'since', 'devices'},
        'No power in the reading',
        ('Heat 46.720 GJ 8 Feb 23:10',),
        'Heat 0.000 GJ',
    ),
    'nulls': Odd(
        NULLS,
        {'since', 'totals', 'devices'},
        'No power in the reading',
        ('Unknown device 1.500 m³',),
        'Used 0.000 kWh Unknown device 0.000 m³',
    ),
}


@pytest.mark.parametrize('name', ODD)
def test_an_odd_meter_shows_what_it_has(
    name: str, start_server: StartServer, open_page: OpenPage
) -> None:
    """The page shows what the meter sends, and no section, number or name for anything else."""
    odd = ODD[name]
    source = sending(*odd.lines, checksum=odd.checksum)
    with new_meter(interval=0.2, source=source) as meter:
        page = open_page(start_server(meter.port))
        page.await_text('state', 'Live')
        assert page.shown == odd.sections
        assert page.text('headline') == odd.headline
        everything = ' '.join(page.text(section) for section in SECTIONS)
        for text in odd.among:
            assert text in everything
        assert page.text('since').removeprefix('Since this page was opened').strip() == odd.since
        assert not re.search('NaN|undefined|null|Infinity', everything)
        assert page.zero_line_shows == ('plot' in odd.sections)
        assert page.complaints == []


def test_a_belgian_meter_shows_its_peaks(start_server: StartServer, open_page: OpenPage) -> None:
    """The page shows the peaks of this and 13 past months, gas, water, phases, and which tariff is active."""
    with new_meter('belgium', interval=0.2) as meter:
        server = start_server(meter.port)
        page = open_page(server)
        page.await_text('state', 'Live')
        reading = server.get('/').json
        assert page.shown == set(SECTIONS)
        month = reading['belgiumMaximumDemandMonth']['value']
        assert f'This month {month:.3f} kW' in page.text('demand')
        page.open_details('demand')
        assert len(page.browser.find_elements('css selector', '#demand details tbody tr')) == 13
        oldest = reading['belgiumMaximumDemand13Months'][0]
        occurred = datetime.fromisoformat(oldest['occurred'])
        # The oldest is of last year, or of December before it.
        in_words = f'{occurred.day} {occurred:%b %Y %H:%M}'.replace('Sep', 'Sept')
        assert f'{oldest["value"]:.3f} kW {in_words}' in page.text('demand')
        gas, water = (device['mbusMeterReading']['value'] for device in reading['mbusDevices'])
        assert re.search(f'Gas {gas:,.3f} m³ .* Water {water:,.3f} m³', page.text('devices'))
        active = {1: 'Day', 2: 'Night'}[int(reading['electricityActiveTariff']['value'])]
        assert f'{active} (active)' in page.text('totals')
        assert re.search(r'L3 \u2212?\d\.\d{3} kW 2\d\d\.\d V \d+\.\d\d A', page.text('phases'))


DUTCH = (
    *('1-3:0.2.8(50)', '0-0:1.0.0(261102121034W)', '0-0:96.14.0(0002)', '1-0:1.7.0(00.680*kW)'),
    *('1-0:1.8.1(006619.795*kWh)', '1-0:1.8.2(000234.567*kWh)', '0-1:24.1.0(003)'),
    '0-1:24.2.1(261102121000W)(01234.500*m3)',
)


@dataclass(frozen=True)
class Reader:
    """The languages of a reader's browser, and what the page of a Dutch meter then shows."""

    languages: str
    language: str
    headline: str
    totals: str
    gas: str
    age: str


READERS = {
    'Dutch': Reader(
        'nl-NL,nl,en',
        'nl',
        'Verbruik 0,680 kW',
        'Dal 6.619,795 Normaal (actief) 234,567',
        'Gas 1.234,500 m³ 2 nov 12:10',
        'Zojuist ontvangen',
    ),
    'Belgian': Reader(
        'fr-BE,fr,nl',
        'fr',
        'Consommation 0,680 kW',
        'Heures creuses 6 619,795 Heures pleines (en cours) 234,567',
        'Gaz 1 234,500 m³ 2 nov. 12:10',
        'Reçu à l\u2019instant',
    ),
    'Austrian': Reader(
        'de-AT,de',
        'de',
        'Bezug 0,680 kW',
        'Niedertarif 6 619,795 Hochtarif (aktiv) 234,567',
        'Gas 1 234,500 m³ 2. Nov. 12:10',
        'Gerade eben empfangen',
    ),
    'Slovak': Reader(
        'sk-SK,sk,en-US,en',
        'en',
        'Using 0,680 kW',
        'Low 6 619,795 Normal (active) 234,567',
        'Gas 1 234,500 m³ 2. 11. 2026 12:10',
        'Received just now',
    ),
    'Estonian': Reader(
        'et-EE,et',
        'en',
        'Using 0,680 kW',
        'Low 6619,795 Normal (active) 234,567',
        'Gas 1234,500 m³ 02.11.26 12:10',
        'Received just now',
    ),
    'with a tag that Intl refuses': Reader(
        'en-US@posix,nl-NL',
        'nl',
        'Verbruik 0,680 kW',
        'Dal 6.619,795 Normaal (actief) 234,567',
        'Gas 1.234,500 m³ 2 nov 12:10',
        'Zojuist ontvangen',
    ),
    'Luxembourgish': Reader(
        'lb,de-LU,fr-LU',
        'de',
        'Bezug 0,680 kW',
        'Niedertarif 6.619,795 Hochtarif (aktiv) 234,567',
        'Gas 1.234,500 m³ 2. Nov. 12:10',
        'Gerade eben empfangen',
    ),
}


@pytest.fixture(scope='module')
def dutch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose meter repeats DUTCH."""
    with (
        new_meter(interval=0.2, source=sending(*DUTCH)) as meter,
        serving(tmp_path_factory.mktemp('dutch'), meter) as server,
    ):
        yield server


@pytest.mark.parametrize('name', READERS)
def test_the_page_is_in_the_readers_language(name: str, dutch: Server, open_page: OpenPage) -> None:
    """Texts are in the first language that the page has; numbers and dates are written as in the reader's first."""
    reader = READERS[name]
    page = open_page(dutch, reader.languages)
    wait_for(lambda: 'm³' in page.text('devices'))
    assert page.language == reader.language
    assert page.text('headline') == reader.headline
    assert reader.totals in page.text('totals')
    assert reader.gas in page.text('devices')
    page.await_text('age', reader.age)
    assert page.complaints == []


TARIFFS = {
    'nl-NL': (('Dal', 'Normaal'), ('Dag', 'Nacht')),
    'fr-BE': (('Heures creuses', 'Heures pleines'), ('Jour', 'Nuit')),
    'de-AT': (('Niedertarif', 'Hochtarif'), ('Tag', 'Nacht')),
    'en-GB': (('Low', 'Normal'), ('Day', 'Night')),
}
"""The names of tariffs 1 and 2 by language: of a Dutch and of a Belgian meter."""


@pytest.mark.parametrize('version', ['2.2', '4.2', '5.0', 'belgium'])
def test_tariffs_have_the_names_of_their_country(
    version: str, start_server: StartServer, open_page: OpenPage
) -> None:
    """Dutch meters, of every version, count low as 1 and normal as 2; Belgian meters count day as 1 and night as 2."""
    with new_meter(version, interval=0.2) as meter:
        server = start_server(meter.port)
        for languages, (dutch, belgian) in TARIFFS.items():
            page = open_page(server, languages)
            expected = dutch
            if version == 'belgium':
                expected = belgian
            page.await_text('totals', expected[0])
            names = page.run(
                "return [...document.querySelectorAll('#totals tbody th')].map(cell => cell.textContent)"
            )
            assert tuple(plain(name).partition(' (')[0] for name in names) == expected
            active = int(server.get('/').json['electricityActiveTariff']['value'])
            assert '(' in names[active - 1]
            assert '(' not in names[2 - active]


def test_a_problem_is_in_the_readers_language(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """The page reports a problem in the reader's language; behind "more" is the server's own sentence, in English."""
    page = open_page(start_server(MISSING_PORT), 'nl-NL,nl')
    page.await_text('trouble', 'De seriële poort is niet gevonden.')
    assert page.text('state') == 'Geen gegevens van de meter'
    assert 'De seriële poort is niet gevonden.' in page.text('spoken')
    assert MISSING_PORT not in page.text('spoken')
    assert MISSING_PORT not in page.text('trouble')
    page.open_details('trouble')
    assert MISSING_PORT in page.text('trouble-detail')
    assert page.run("return document.getElementById('trouble-detail').lang") == 'en'
    assert page.browser.title == 'Geen gegevens van de meter \u2013 Slimme meter'


def test_a_problem_without_a_sentence_is_in_the_servers_words(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """A problem for which a language has no sentence yet is reported in the words of the server, which are shown."""
    hush(meter)
    page = open_page(start_server(meter.port), 'fr-BE')
    page.await_text('word', 'En attente')
    page.call("page.setProblem('lost', {code: 'something_new', detail: 'the meter is on fire'});")
    assert page.text('trouble-reason') == 'Le serveur donne cette raison :'
    assert page.text('trouble-detail') == 'the meter is on fire'


class House:
    """A Belgian house whose counters and demand a test sets; source() makes its meter's next telegram."""

    def __init__(self) -> None:
        self.day, self.night, self.delivered, self.gas = 100.0, 200.0, 50.0, 10.0
        self.demand, self.peak = 1.0, 4.0

    def source(self) -> bytes:
        return from_lines(
            '0-0:96.1.4(50217)',
            f'1-0:1.8.1({self.day:010.3f}*kWh)',
            f'1-0:1.8.2({self.night:010.3f}*kWh)',
            f'1-0:2.8.1({self.delivered:010.3f}*kWh)',
            f'1-0:1.4.0({self.demand:06.3f}*kW)',
            f'1-0:1.6.0(261101001500W)({self.peak:06.3f}*kW)',
            '0-1:24.1.0(003)',
            f'0-1:24.2.1(261102121000W)({self.gas:09.3f}*m3)',
        )


def test_it_adds_up_what_is_used_since_it_was_opened(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """The page shows what both tariffs, delivery and gas have counted since then; another meter's count starts anew."""
    house = House()
    with new_meter('belgium', interval=0.2, source=house.source) as meter:
        page = open_page(start_server(meter.port))
        page.await_text('since', 'Used 0.000 kWh Delivered 0.000 kWh Gas 0.000 m³')
        house.day, house.night, house.delivered, house.gas = 100.25, 200.125, 51.5, 10.75
        page.await_text('since', 'Used 0.375 kWh Delivered 1.500 kWh Gas 0.750 m³')
        house.gas = 3.0
        page.await_text('since', 'Used 0.375 kWh Delivered 1.500 kWh Gas 0.000 m³')
        house.gas = 3.5
        page.await_text('since', 'Gas 0.500 m³')
        page.browser.refresh()
        page.await_text('since', 'Used 0.000 kWh Delivered 0.000 kWh Gas 0.000 m³')


def test_a_bar_shows_this_quarter_hour_beside_the_months_peak(
    start_server: StartServer, open_page: OpenPage
) -> None:
    """The bar is as long as the month's peak; beyond that it has another colour, and a mark for the peak."""
    house = House()
    with new_meter('belgium', interval=0.2, source=house.source) as meter:
        page = open_page(start_server(meter.port), 'nl-BE,nl')
        page.await_text('quarter', 'Kwartierpiek tot nu toe 1,000 kW Maandpiek 4,000 kW')
        below = page.bar
        assert below is not None
        assert below == Bar(0.2, 0, '1,000 kW, Maandpiek 4,000 kW', below.colour)
        house.demand = 5.0
        page.await_text('quarter', '5,000 kW Hoger dan de maandpiek van 4,000 kW')
        above = page.bar
        assert above is not None
        assert above == Bar(1, 0.8, '5,000 kW, Hoger dan de maandpiek van 4,000 kW', above.colour)
        assert above.colour != below.colour
        house.demand = house.peak = 0.0
        page.await_text('quarter', '0,000 kW Maandpiek 0,000 kW')
        assert page.bar == Bar(0, 0, '0,000 kW, Maandpiek 0,000 kW', below.colour)


def test_a_demand_without_a_peak_has_no_bar(start_server: StartServer, open_page: OpenPage) -> None:
    """A Belgian meter that sends no month's peak shows the demand alone."""
    source = sending('0-0:96.1.4(50217)', '1-0:1.4.0(01.500*kW)')
    with new_meter(interval=0.2, source=source) as meter:
        page = open_page(start_server(meter.port))
        page.await_text('quarter', 'Quarter-hour peak so far 1.500 kW')
        assert page.bar is None
        assert page.shown == {'quarter'}
        assert page.complaints == []


def test_the_plot_starts_at_the_left(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """A curve of a few points begins at the left edge and grows; it reaches the right edge after a minute."""
    page = open_page(start_server(meter.port), width=DESKTOP)
    wait_for(lambda: page.points >= 3)
    begin, end = page.curve_ends
    assert begin == pytest.approx(0, abs=0.01)
    assert 0 < end < 0.5
    wait_for(lambda: page.curve_ends[1] > end + 0.03)
    assert page.curve_ends[0] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(('seconds', 'begin'), [(90, 0), (1200, -60 / 900)])
def test_the_plot_covers_what_there_is(
    seconds: int, begin: float, start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """The curve fills the plot from its first point to now; after 15 minutes its older part is out of sight."""
    hush(meter)
    page = open_page(start_server(meter.port), width=DESKTOP)
    page.call(f"""const now = Date.now() / 1000;
        for (let ago = {seconds}; ago >= 0; ago -= 10)
            page.showReading({{currentElectricityUsage: {{value: 1, unit: 'kW'}}}}, now - ago);""")
    assert page.curve_ends == pytest.approx((begin, 1), abs=0.02)
    labels = page.run(
        "return [...document.querySelectorAll('#axes text')].map(node => node.textContent)"
    )
    times = [label for label in labels if ':' in label]
    assert 2 <= len(times) <= 12
    assert len(set(times)) == len(times)


def test_text_stays_text(start_server: StartServer, open_page: OpenPage) -> None:
    """Markup in a problem or a reading is shown as text."""
    page = open_page(start_server('/dev/<b>none</b>'))
    page.await_text('trouble', 'The serial port was not found.')
    page.open_details('trouble')
    assert '/dev/<b>none</b>' in page.text('trouble')
    page.call("""page.showReading({mbusDevices: [{channelId: 1, mbusDeviceType: {value: 3, unit: null},
        mbusMeterReading: {datetime: '<i>2024-01-01</i>', value: 1, unit: '<b>m3</b>'}}]}, 1e9)""")
    assert '1.000 <b>m3</b>' in page.text('devices')
    assert not page.browser.find_elements('css selector', 'b, i')


@pytest.mark.parametrize(
    ('theme', 'languages'),
    [('light', 'nl-BE'), ('light', 'fr-BE'), ('dark', 'de-AT'), ('dark', 'en-GB')],
)
def test_it_fits_a_phone_and_is_legible(
    theme: str, languages: str, start_server: StartServer, open_page: OpenPage
) -> None:
    """In both themes, live and lost, 360 px are wide enough and all text has a contrast of at least 4.5."""
    with new_meter('belgium', interval=0.2) as meter:
        page = open_page(start_server(meter.port), languages)
        emulate(page.browser, PHONE, prefers_color_scheme=theme, prefers_reduced_motion='reduce')
        wait_for(lambda: page.points)
        assert page.run(f"return matchMedia('(prefers-color-scheme: {theme})').matches")
        assert (
            page.run("return getComputedStyle(document.getElementById('power')).transitionDuration")
            == '0s'
        )
        page.open_details('demand')
        check_width_and_contrast(page)
        meter.unplug()
        page.await_text('trouble', '.')
        page.open_details('trouble')
        check_width_and_contrast(page)


def check_width_and_contrast(page: Page) -> None:
    wide, room = page.run(
        'const e = document.documentElement; return [e.scrollWidth, e.clientWidth]'
    )
    assert wide <= room == PHONE
    contrasts = page.run(CONTRASTS)
    assert len(contrasts) > 50
    assert min(contrasts)[0] >= LEAST_CONTRAST, min(contrasts)


def property_of(node: dict[str, Any], name: str) -> str:
    return str(node.get(name, {}).get('value', ''))


def test_a_screen_reader_finds_everything(start_server: StartServer, open_page: OpenPage) -> None:
    """The accessibility tree has all landmarks, a heading for every section, and names for tables and the plot."""
    with new_meter('belgium', interval=0.2) as meter:
        page = open_page(start_server(meter.port))
        page.await_text('state', 'Live')
        tree = page.browser.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']
    nodes = [
        (node['role']['value'], property_of(node, 'name'), node)
        for node in tree
        if not node['ignored']
    ]
    roles = [role for role, *_ in nodes]
    landmarks = ('banner', 'main', 'contentinfo', 'navigation', 'status')
    assert {landmark: roles.count(landmark) for landmark in landmarks} == dict.fromkeys(
        landmarks, 1
    )
    assert roles.count('heading') == 1 + roles.count('region') == 9
    assert (roles.count('table'), roles.count('rowheader')) == (5, 4 + 3 + 2 + 2 + 2)
    named = {'region', 'table', 'navigation', 'link', 'meter', 'DisclosureTriangle'}
    assert all(name for role, name, _ in nodes if role in named)
    ((name, plot),) = [(name, node) for role, name, node in nodes if role in {'img', 'image'}]
    assert name.startswith('Net power')
    assert property_of(plot, 'description').startswith('Lowest')


def test_announcements_are_rare(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """A screen reader announces the first reading, and none that follows within half a minute."""
    page = open_page(start_server(meter.port))
    wait_for(lambda: re.fullmatch(r'(Using|Delivering) \d+\.\d{3} kW', page.text('spoken')))
    page.run("""window.changes = 0; new MutationObserver(seen => window.changes += seen.length)
        .observe(document.getElementById('spoken'), {childList: true, characterData: true, subtree: true})""")
    before = page.points
    wait_for(lambda: page.points > before + 10)
    assert page.run('return window.changes') == 0


class View(NamedTuple):
    """A meter, and who looks at it: the languages, the width of the screen, and the colour scheme."""

    version: str
    languages: str
    width: int
    theme: str


VIEWS = (
    View('belgium', 'nl-BE', DESKTOP, 'light'),
    View('5.0', 'de-AT', DESKTOP, 'dark'),
    View('belgium', 'fr-BE', NARROWEST, 'light'),
    View('sweden', 'en-GB', PHONE, 'dark'),
    View('sweden', 'sv-SE', DESKTOP, 'light'),
)


@pytest.mark.parametrize('view', VIEWS)
def test_axe_finds_nothing(view: View, start_server: StartServer, open_page: OpenPage) -> None:
    """axe-core finds nothing to improve in the page, live or without its meter."""
    axe = npm_file(AXE).read_text(encoding='utf-8')
    with new_meter(view.version, interval=0.2) as meter:
        page = open_page(start_server(meter.port), view.languages, view.width)
        emulate(
            page.browser,
            view.width,
            prefers_color_scheme=view.theme,
            prefers_reduced_motion='reduce',
        )
        wait_for(lambda: page.points > 2)
        page.run("document.querySelectorAll('details').forEach(node => { node.open = true; })")
        page.run(axe)
        assert axe_violations(page) == []
        meter.unplug()
        wait_for(lambda: page.text('trouble'))
        assert axe_violations(page) == []
        assert page.complaints == []


def axe_violations(page: Page) -> list[Any]:
    """The rules that the page breaks, each with the elements that break it. Most rules have something to check."""
    result = page.browser.execute_async_script('axe.run().then(arguments[0])')
    assert len(result['passes']) > 20
    return [(rule['id'], [node['html'] for node in rule['nodes']]) for rule in result['violations']]
