"""The README and the pages in docs/ are true: commands run, responses are the server's, and tables are the code's."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import suppress
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dsmr_rest.api.routes import HOMEWIZARD_ROUTES, ROUTES
from dsmr_rest.config import Config, MeterSettings, ServerSettings, load
from dsmr_rest.faults import METER_FAULTS, Fault
from dsmr_rest.simulated.meter import SimulatedMeter
from tests.conftest import MISSING_PORT, ROOT, Server, StartServer, free_port, wait_for
from tests.pages import (
    HTTP,
    OPERATIONS,
    PAGES,
    README,
    SETTINGS,
    anchors,
    block,
    blocks,
    section_of,
    without_code,
)
from tests.system_packages import program

MOST_LINES = 150
"""Of the README: a newcomer reads it to the end."""
LONG_LINE = 60
"""Characters. A line of that length that is on two pages says the same thing twice."""
SECTIONS = {'meter': MeterSettings, 'server': ServerSettings}
OTHER_TEXTS = ('CONTRIBUTING.md', 'CHANGELOG.md')


class Example(NamedTuple):
    """A command in a console block, and the output that is shown for it."""

    page: str
    command: str
    output: str


def examples() -> list[Example]:
    shown = []
    for page, text in PAGES.items():
        for code in blocks(text, 'console'):
            for example in re.split(r'^\$ ', code, flags=re.MULTILINE)[1:]:
                command, _, output = example.partition('\n')
                shown.append(Example(page, command, output.strip()))
    return shown


EXAMPLES = examples()


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp('demo'), '--demo', meter={}, server={})
    yield server
    assert server.stop() == 0


def pattern(shown: str) -> str:
    """A pattern for an output like the one that is shown: numbers may differ, and an ellipsis matches anything."""
    number = r'\d+(?:\.\d+)?'
    expected = ''
    for part in re.split(rf'({number}|…)', shown):
        if part == '…':
            expected += '.*'
        elif re.fullmatch(number, part):
            expected += number
        else:
            expected += re.escape(part)
    return expected


def run_with_curl(command: str, server: Server) -> 'subprocess.CompletedProcess[str]':
    """Runs a curl command of a page, silently and with the address of this server."""
    program('curl', 'curl')
    words = command.replace('http://localhost:8080/', server.url).replace('curl ', 'curl -s ')
    return subprocess.run(['bash', '-c', words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    'example', EXAMPLES, ids=lambda example: f'{example.page} {example.command}'
)
def test_a_command_prints_what_is_shown(example: Example, demo: Server) -> None:
    """Each curl command of the pages, run against the demo, prints what is shown for it."""
    output = run_with_curl(example.command, demo).stdout.replace('\r', '').strip()
    assert re.fullmatch(pattern(example.output), output, re.DOTALL), output


def test_each_path_is_described_and_has_a_command() -> None:
    """Every path is on the page about HTTP; those served by default are in the README and are shown with a response."""
    # Only the dashboard requests the others.
    paths = [path for path, route in ROUTES.items() if route.name]
    for path in [*paths, *HOMEWIZARD_ROUTES]:
        assert f'`{path}`' in PAGES[HTTP]
    commands = [example.command for example in EXAMPLES]
    for path in paths:
        assert f'\n| `{path}` | ' in PAGES[README]
        assert any(command.endswith(f'localhost:8080{path}') for command in commands), path


def test_the_readme_is_short() -> None:
    """The README has at most 150 lines."""
    assert len(PAGES[README].splitlines()) <= MOST_LINES


def test_the_checks_run_the_command_of_the_readme() -> None:
    """The command that the README and CONTRIBUTING.md give for the tests is that of scripts/test, to the letter."""
    last_line = (ROOT / 'scripts' / 'test').read_text().splitlines()[-1]
    command = last_line.removesuffix(' "$@"')
    assert command.endswith('pytest')
    for text in (PAGES[README], (ROOT / 'CONTRIBUTING.md').read_text()):
        assert f'\n    {command}\n' in text


def test_the_readme_links_to_every_page() -> None:
    """From the README a reader gets to every page in docs/."""
    for page in PAGES.keys() - {README}:
        assert f']({page})' in section_of(README, 'Read on')


@pytest.mark.parametrize('page', [*PAGES, *OTHER_TEXTS])
def test_links_lead_somewhere(page: str) -> None:
    """Each relative link and picture is a file of the repository; an anchor is that of one heading of its page."""
    file = ROOT / page
    for target in re.findall(r'\]\(([^)\s]+)\)', without_code(file.read_text())):
        if '://' in target:
            continue
        path, _, anchor = target.partition('#')
        linked = file
        if path:
            linked = (file.parent / path).resolve()
        assert linked.is_file(), target
        if anchor:
            assert anchors(linked.read_text()).count(anchor) == 1, target


def test_nothing_is_said_twice() -> None:
    """No long line is on two pages."""
    pages_with_line: Counter[str] = Counter()
    for text in PAGES.values():
        lines = {line.strip() for line in text.splitlines()}
        pages_with_line.update(line for line in lines if len(line) >= LONG_LINE)
    assert {line for line, count in pages_with_line.items() if count > 1} == set()


def test_the_table_of_errors_has_every_fault() -> None:
    """It has the status and code of every fault, and no others."""
    rows = re.findall(r'^\| (\d+) \| \[?`(\w+)`', section_of(HTTP, 'Errors'), re.MULTILINE)
    shown = [(int(status), code) for status, code in rows]
    assert sorted(shown) == sorted((fault.status.value, fault.code) for fault in Fault)


def test_every_fault_of_the_meter_has_advice_to_read() -> None:
    """Each fault for which take_one_reading.py has advice has a section in the troubleshooting guide."""
    guide = re.findall(r'^### `(\w+)`$', section_of(OPERATIONS, 'Troubleshooting'), re.MULTILINE)
    codes = {fault.code for fault in METER_FAULTS}
    assert 'meter_silent' in codes
    assert codes <= set(guide)
    assert set(guide) <= {fault.code for fault in Fault}


def test_the_report_of_one_reading(tmp_path: Path) -> None:
    """The report that the README shows for take_one_reading.py describes the meter as a report of the demo does."""
    (shown,) = blocks(section_of(README, 'Install it on a Raspberry Pi'), '')
    shown_report, _, config_lines = (
        shown.replace('\n   ', '\n').strip().partition('\nconfig.ini:\n')
    )
    command = [sys.executable, str(ROOT / 'take_one_reading.py'), '--demo']
    report = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=tmp_path
    ).stderr.strip()
    assert report.replace('a simulated meter (5.0)', '/dev/ttyUSB0') == shown_report
    config = tmp_path / 'config.ini'
    config.write_text(config_lines)
    assert load(config).meter.specification == 'V5'


def test_a_container_is_healthy_while_the_meter_responds(
    demo: Server, start_server: StartServer
) -> None:
    """The command of HEALTHCHECK succeeds while the meter is responding, and fails when it is not."""
    _, _, command = block(OPERATIONS, 'Monitoring', '').strip().partition(' CMD ')
    assert run_with_curl(command, demo).returncode == 0
    assert run_with_curl(command, start_server(MISSING_PORT)).returncode != 0


def test_the_pages_copy_units_that_exist() -> None:
    """Each unit that a page copies is in the folder systemd, and each unit there is copied by a page."""
    copied = set()
    for text in PAGES.values():
        copied.update(re.findall(r'sudo cp (\S+) /etc/systemd/system/', text))
    assert copied == {str(unit.relative_to(ROOT)) for unit in (ROOT / 'systemd').iterdir()}


def text_of(default: Any) -> str:
    """The default of a setting as config.ini has it."""
    if default is None:
        return ''
    if isinstance(default, bool):
        return {True: 'yes', False: 'no'}[default]
    if isinstance(default, tuple):
        return ' '.join(default)
    if isinstance(default, float):
        return f'{default:g}'
    return str(default)


def test_the_settings_are_the_same_everywhere() -> None:
    """config.ini and the table of docs/settings.md have every setting, with the default of the dataclass."""
    defaults = {}
    for section, kind in SECTIONS.items():
        for setting in fields(kind):
            defaults[section, setting.name] = text_of(setting.default)
    row = r'^\| (meter|server) \| `(\w+)` \| (?:`([^`]*)`)? ?\| '
    rows = re.findall(row, PAGES[SETTINGS], re.MULTILINE)
    assert {(section, name): default for section, name, default in rows} == defaults
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / 'config.ini')
    assert {
        (section, name): text
        for section in parser.sections()
        for name, text in parser.items(section)
    } == defaults
    assert load(ROOT / 'config.ini') == Config()


def test_each_setting_is_explained() -> None:
    """config.ini explains each setting in the line before it, except the second of a pair that is explained as one."""
    lines = (ROOT / 'config.ini').read_text().splitlines()
    unexplained = []
    for before, line in pairwise(lines):
        is_setting = '=' in line and not line.startswith('#')
        if is_setting and not before.startswith('#'):
            unexplained.append(line.split()[0])
    assert unexplained == ['password', 'private_key']


def test_nohup(meter: SimulatedMeter, tmp_path: Path) -> None:
    """The README's nohup command, run in a clone, starts a server that SIGTERM ends."""
    config = tmp_path / 'config.ini'
    port = free_port()
    config.write_text(f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = {port}\n')
    shown = re.search(r'^ *(nohup .*)$', PAGES[README], re.MULTILINE)
    assert shown
    command = (
        shown[1]
        .replace('.venv/bin/python', sys.executable)
        .replace('.py', f'.py --config {config}')
    )
    shell = subprocess.run(
        ['bash', '-c', f'{command} echo $!'], capture_output=True, text=True, check=True, cwd=ROOT
    )
    server = int(shell.stdout)
    try:
        wait_for(lambda: b'currentElectricityUsage' in reading_at(port))
    finally:
        with suppress(ProcessLookupError):  # it did not start
            os.kill(server, signal.SIGTERM)
    wait_for(lambda: not Path(f'/proc/{server}').exists())


def reading_at(port: int) -> bytes:
    """What the server at this port of loopback responds to GET /; nothing while it does not listen."""
    try:
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=10) as response:
            return bytes(response.read())
    except OSError:
        return b''
