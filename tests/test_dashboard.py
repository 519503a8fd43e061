"""/dashboard as people see it: in a real Chromium, live from a server whose meter is on a pseudo-terminal."""

import itertools
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Server, StartServer, hush, new_meter, wait_for
from faulty_meter import FaultyMeter
from system_packages import program
from telegrams import from_lines

from dsmr_rest.dashboard import dashboard_page
from dsmr_rest.mbus import KINDS

if sys.platform != 'linux':
    pytest.skip('Chromium is driven as Debian has it', allow_module_level=True)

pytest.importorskip(
    'selenium', reason='selenium drives the browser: pip install -r requirements-dev.txt'
)

from selenium import webdriver

from benchmarks.screenshot import chromium, emulate

PHONE = 360
SECTIONS = ('plot', 'phases', 'totals', 'devices', 'demand')
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


class Page:
    """The dashboard in a browser, as it is seen."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def text(self, name: str) -> str:
        """What the element of that id shows, in one line."""
        return ' '.join(self.browser.find_element('id', name).text.split())

    def await_text(self, name: str, text: str, seconds: float = 15) -> None:
        wait_for(lambda: text in self.text(name), seconds)

    @property
    def shown(self) -> set[str]:
        """The visible sections, of those that depend on the reading."""
        return {name for name in SECTIONS if self.browser.find_element('id', name).is_displayed()}

    @property
    def curve(self) -> str:
        """The path of the plot's curve."""
        return str(self.run("return document.querySelector('.curve').getAttribute('d') || ''"))

    @property
    def points(self) -> int:
        """How many points the plot's curve has."""
        return len(re.findall('[ML]', self.curve))

    @property
    def colour(self) -> str:
        """The colour of the headline's number."""
        return str(self.run("return getComputedStyle(document.getElementById('amount')).color"))

    @property
    def zero_line_shows(self) -> bool:
        """Whether the plot's zero line lies within the plot."""
        script = """const zero = document.querySelector('.zero');
            if (!zero) return false;
            const [line, plot] = [zero, zero.closest('svg')].map(node => node.getBoundingClientRect());
            return plot.top <= line.top && line.bottom <= plot.bottom;"""
        return bool(self.run(script))

    @property
    def complaints(self) -> list[Any]:
        """What the browser's console shows."""
        return list(self.browser.get_log('browser'))  # type: ignore[no-untyped-call]


OpenPage = Callable[[Server], Page]


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium, which takes seconds to start."""
    programs = program('chromium', 'chromium'), program('chromedriver', 'chromium-driver')
    started = chromium(tmp_path_factory.mktemp('chromium'), *programs)
    yield started
    started.quit()


@pytest.fixture
def open_page(browser: webdriver.Chrome) -> Iterator[OpenPage]:
    """Opens the dashboard of a server on a phone."""

    def start(server: Server) -> Page:
        emulate(browser, PHONE, prefers_reduced_motion='reduce')
        browser.get(f'http://127.0.0.1:{server.port}/dashboard')
        return Page(browser)

    yield start
    browser.get('about:blank')  # ends the page's stream
    browser.get_log('browser')  # type: ignore[no-untyped-call]


def sending(*lines: str, checksum: bool = True) -> Callable[[], bytes]:
    """A meter that repeats these lines."""
    data = from_lines(*lines, checksum=checksum)
    return lambda: data


def test_the_page_is_small_and_self_contained(
    start_server: StartServer, meter: FaultyMeter
) -> None:
    """The dashboard is one file under 40 kB without external references, and cannot turn text into markup."""
    reply = start_server(meter.port).get('/dashboard')
    page = reply.body.decode()
    assert len(reply.body) < 40_000
    assert "default-src 'none'" in reply.headers['Content-Security-Policy']
    assert re.findall(r'https?:[^\'" ]*', page) == ['http://www.w3.org/2000/svg']
    assert not re.search(
        r'\bsrc\s*=|@import|url\((?!#)|innerHTML|outerHTML|insertAdjacentHTML|document\.write', page
    )
    assert set(re.findall(r'href="([^"]*)"', page)) == {'data:,', './', 'telegram', 'health'}


def test_the_page_knows_the_kinds_of_mbus_devices() -> None:
    """The names of M-Bus device types in the page are those of the package."""
    (kinds,) = re.findall(r'^const KINDS = (.*);', dashboard_page().decode(), re.MULTILINE)
    assert json.loads(kinds) == {
        str(number): kind.name.capitalize() for number, kind in KINDS.items()
    }


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
        assert re.match(r'Net \+1\.2\d\d kW', page.text('signed'))
        watts = delivering
        wait_for(lambda: re.fullmatch(r'Delivering 0\.6\d\d kW', page.text('headline')))
        assert re.match(r'Net \u22120\.6\d\d kW', page.text('signed'))
        wait_for(lambda: page.points > few + 40)
        assert re.search(
            r'Lowest \u22120\.6\d\d kW, highest 1\.2\d\d kW in the last minute',
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
        page.await_text('trouble', 'check the cable')
        assert page.text('state') == 'Meter lost'
        assert 'Meter lost' in page.text('spoken')
        assert page.text('amount')
        assert page.colour != fresh
        wait_for(lambda: re.search('values below are [2-9] s old', page.text('trouble')))
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
        page.await_text('trouble', 'max_streams')
        assert page.text('state') == 'Server refuses the stream'
    page.await_text('state', 'Live')


def test_the_age_counts_up(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """The age of the reading increases until the next telegram."""
    page = open_page(start_server(meter.port))
    page.await_text('age', 'Received 0 s ago')
    hush(meter)
    page.await_text('age', 'Received 3 s ago')
    assert page.text('state') == 'Live'


def test_the_age_does_not_need_clocks_that_agree(
    start_server: StartServer, open_page: OpenPage, meter: FaultyMeter
) -> None:
    """The age counts from arrival, whatever the server's clock says, and includes a connection's delay."""
    hush(meter)
    page = open_page(start_server(meter.port))
    ages = """return [-3600, -3600, 86400, 86390].map(ahead => {
        showReading({}, Date.now() / 1000 + ahead + .5); return document.getElementById('age').textContent; });"""
    assert page.run(ages) == [*['Received 0 s ago'] * 3, 'Received 10 s ago']


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
ODD = {
    'bare': (BARE, {'plot', 'totals'}, 'Using 1.190 kW', 'Tariff 2 234.567'),
    'swedish': (
        SWEDISH,
        {'plot', 'totals', 'phases'},
        'Delivering 0.345 kW',
        'Total 6619.795 12.000',
    ),
    'watts': (IN_WATTS, {'plot', 'totals', 'phases'}, 'Using 2.125 kW', 'L1 0.748 kW'),
    'heat': (HEAT, {'devices'}, 'No power in the reading', 'Heat 46.720 GJ 2022-02-08 23:10'),
    'nulls': (NULLS, {'totals', 'devices'}, 'No power in the reading', 'Unknown device 1.500 m³'),
}


@pytest.mark.parametrize('name', ODD)
def test_an_odd_meter_shows_what_it_has(
    name: str, start_server: StartServer, open_page: OpenPage
) -> None:
    """The page shows what the meter sends, and no section, number or name for anything else."""
    lines, sections, headline, among = ODD[name]
    with new_meter(interval=0.2, source=sending(*lines, checksum=name != 'watts')) as meter:
        page = open_page(start_server(meter.port))
        page.await_text('state', 'Live')
        assert page.shown == sections
        assert page.text('headline') == headline
        everything = ' '.join(page.text(section) for section in SECTIONS)
        assert among in everything
        assert not re.search('NaN|undefined|null|Infinity', everything)
        assert page.zero_line_shows == ('plot' in sections)
        assert page.complaints == []


def test_a_belgian_meter_shows_its_peaks(start_server: StartServer, open_page: OpenPage) -> None:
    """The page shows average demand, the peaks of this and 13 past months, gas, water, phases and the active tariff."""
    with new_meter('belgium', interval=0.2) as meter:
        server = start_server(meter.port)
        page = open_page(server)
        page.await_text('state', 'Live')
        reading = server.get('/').json
        assert page.shown == set(SECTIONS)
        assert (
            f'Peak this month {reading["belgiumMaximumDemandMonth"]["value"]:.3f} kW'
            in page.text('demand')
        )
        page.browser.find_element('css selector', 'summary').click()
        assert len(page.browser.find_elements('css selector', 'details tbody tr')) == 13
        peak = reading['belgiumMaximumDemand13Months'][0]
        assert (
            f'{peak["occurred"][:7]} {peak["value"]:.3f} kW {peak["occurred"][:10]}'
            in page.text('demand')
        )
        gas, water = (device['mbusMeterReading']['value'] for device in reading['mbusDevices'])
        assert re.search(f'Gas {gas:.3f} m³ .* Water {water:.3f} m³', page.text('devices'))
        assert f'Tariff {int(reading["electricityActiveTariff"]["value"])}, active' in page.text(
            'totals'
        )
        assert re.search(r'L3 \u2212?\d\.\d{3} kW 2\d\d\.\d V \d+\.\d\d A', page.text('phases'))


def test_text_stays_text(start_server: StartServer, open_page: OpenPage) -> None:
    """Markup in a problem or a reading is shown as text."""
    page = open_page(start_server('/dev/<b>none</b>'))
    page.await_text('trouble', '/dev/<b>none</b>')
    page.run("""showReading({mbusDevices: [{channelId: 1, mbusDeviceType: {value: 3, unit: null},
        mbusMeterReading: {datetime: '<i>2024-01-01</i>', value: 1, unit: '<b>m3</b>'}}]}, 1e9)""")
    assert '1.000 <b>m3</b>' in page.text('devices')
    assert not page.browser.find_elements('css selector', 'b, i')


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_it_fits_a_phone_and_is_legible(
    theme: str, start_server: StartServer, open_page: OpenPage
) -> None:
    """In both themes, live and lost, 360 px are wide enough and all text has a contrast of at least 4.5."""
    with new_meter('belgium', interval=0.2) as meter:
        page = open_page(start_server(meter.port))
        emulate(page.browser, PHONE, prefers_color_scheme=theme, prefers_reduced_motion='reduce')
        page.await_text('state', 'Live')
        assert page.run(f"return matchMedia('(prefers-color-scheme: {theme})').matches")
        assert (
            page.run("return getComputedStyle(document.getElementById('power')).transitionDuration")
            == '0s'
        )
        page.browser.find_element('css selector', 'summary').click()
        check_width_and_contrast(page)
        meter.unplug()
        page.await_text('trouble', 'check the cable')
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
    assert roles.count('heading') == 1 + roles.count('region') == 7
    assert (roles.count('table'), roles.count('rowheader')) == (4, 3 + 2 + 2 + 3)
    named = {'region', 'table', 'navigation', 'link', 'DisclosureTriangle'}
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
