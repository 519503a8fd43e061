"""The README is true: its commands run, its responses are the server's, and its tables are those of the code."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import suppress
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Server, StartServer, free_port, wait_for
from system_packages import program

from dsmr_rest.config import Config, MeterSettings, ServerSettings, load
from dsmr_rest.routes import HOMEWIZARD_ROUTES, ROUTES
from dsmr_rest.simulated_meter import SimulatedMeter

README = (ROOT / 'README.md').read_text()
SECTIONS = {'meter': MeterSettings, 'server': ServerSettings}


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf'^ *```{language}\n(.*?)^ *```$', README, re.DOTALL | re.MULTILINE)


def examples() -> dict[str, str]:
    """The commands in the README's console blocks, each with the output that is shown for it."""
    shown = {}
    for block in blocks('console'):
        for example in re.split(r'^\$ ', block, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition('\n')
            shown[command] = output.strip()
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


@pytest.mark.parametrize('command', EXAMPLES)
def test_a_command_prints_what_is_shown(command: str, demo: Server) -> None:
    """Each curl command of the README, run against the demo, prints what is shown for it."""
    program('curl', 'curl')
    words = command.replace('http://localhost:8080/', demo.url).replace('curl ', 'curl -s ')
    output = subprocess.run(
        ['bash', '-c', words], capture_output=True, text=True, check=False
    ).stdout
    assert re.fullmatch(pattern(EXAMPLES[command]), output.replace('\r', '').strip(), re.DOTALL), (
        output
    )


def test_each_path_is_in_the_table_and_has_a_command() -> None:
    """Every path is in the README's table, and every path that is served by default is shown with its response."""
    for path in [*ROUTES, *HOMEWIZARD_ROUTES]:
        assert f'`{path}`' in README
    for path in ROUTES:
        assert any(command.endswith(f'localhost:8080{path}') for command in EXAMPLES), path


def test_the_python_example_runs(demo: Server, tmp_path: Path) -> None:
    """The example in Python prints a value and its unit."""
    script = tmp_path / 'example.py'
    script.write_text(blocks('python')[0].replace('http://localhost:8080/', demo.url))
    output = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True
    ).stdout
    assert re.fullmatch(r'\d+\.\d+ kW\n', output)


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
    """config.ini and the README's table have every setting, with the default of the dataclass."""
    defaults = {}
    for section, kind in SECTIONS.items():
        for setting in fields(kind):
            defaults[section, setting.name] = text_of(setting.default)
    rows = re.findall(r'^\| (meter|server) \| `(\w+)` \| (?:`([^`]*)`)? ?\| ', README, re.MULTILINE)
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


def test_the_javascript_example_may_listen(
    start_server: StartServer, meter: SimulatedMeter
) -> None:
    """A page of the website in cors_origin may read /stream, as the example in JavaScript does."""
    server = start_server(meter.port, server={'cors_origin': 'https://example.org'})
    assert '/stream' in blocks('html')[0]
    assert (
        server.get('/stream', method='HEAD').headers['Access-Control-Allow-Origin']
        == 'https://example.org'
    )


def test_nohup(meter: SimulatedMeter, tmp_path: Path) -> None:
    """The README's nohup command, run in a clone, starts a server that SIGTERM ends."""
    config = tmp_path / 'config.ini'
    port = free_port()
    config.write_text(f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = {port}\n')
    shown = re.search(r'^ *(nohup .*)$', README, re.MULTILINE)
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
