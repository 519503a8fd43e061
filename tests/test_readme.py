"""The README is true: its commands run, its answers are what comes back, its tables are the code's."""

import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Server, StartServer, wait_for
from system_packages import program

from dsmr_rest.config import Config, MeterSettings, ServerSettings, load
from dsmr_rest.routes import HOMEWIZARD_ROUTES, ROUTES
from dsmr_rest.simulated_meter import SimulatedMeter

README = (ROOT / 'README.md').read_text()
SECTIONS = {'meter': MeterSettings, 'server': ServerSettings}


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf'^ *```{language}\n(.*?)^ *```$', README, re.DOTALL | re.MULTILINE)


EXAMPLES = [part for block in blocks('console') for part in re.split(r'^\$ ', block, flags=re.MULTILINE)[1:]]
COMMANDS = [(command, shown) for command, _, shown in (example.partition('\n') for example in EXAMPLES)]


@pytest.fixture(scope='module')
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp('demo'), '--demo', meter={}, server={})
    yield server
    assert server.stop() == 0


def pattern(shown: str) -> str:
    """What an answer must look like: numbers may differ, and an ellipsis stands for anything."""
    parts = re.split(r'(\d+(?:\.\d+)?|…)', shown.strip())
    return ''.join(
        '.*' if part == '…' else r'\d+(\.\d+)?' if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )


@pytest.mark.parametrize(('command', 'shown'), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_gives_the_answer_shown(command: str, shown: str, demo: Server) -> None:
    """Each curl of the README, run against the demo, gives what stands behind it."""
    program('curl', 'curl')
    words = command.replace('http://localhost:8080/', demo.url).replace('curl ', 'curl -s ')
    answer = subprocess.run(['bash', '-c', words], capture_output=True, text=True, check=False).stdout
    assert re.fullmatch(pattern(shown), answer.replace('\r', '').strip(), re.DOTALL), answer


def test_each_path_has_a_command() -> None:
    """Every path that is served by default is shown with its answer, and every path stands in the table."""
    commands = '\n'.join(command for command, _ in COMMANDS)
    for path in ROUTES:
        assert re.search(rf'localhost:8080{re.escape(path)}$', commands, re.MULTILINE), path
    for path in [*ROUTES, *HOMEWIZARD_ROUTES]:
        assert f'`{path}`' in README


def test_the_python_example_runs(demo: Server, tmp_path: Path) -> None:
    """The example in Python prints a value with its unit."""
    script = tmp_path / 'example.py'
    script.write_text(blocks('python')[0].replace('http://localhost:8080/', demo.url))
    answer = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r'\d+\.\d+ kW\n', answer)


def text_of(value: Any) -> str:
    """A setting's default as config.ini has it."""
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return ' '.join(value) if isinstance(value, tuple) else f'{value:g}' if isinstance(value, float) else str(value)


def test_the_settings_are_the_same_everywhere() -> None:
    """Each setting stands in config.ini and in the README's table with the default that the dataclass has."""
    defaults = {
        (section, each.name): text_of(each.default) for section, kind in SECTIONS.items() for each in fields(kind)
    }
    rows = re.findall(r'^\| (meter|server) \| `(\w+)` \| (?:`([^`]*)`)? ?\| ', README, re.MULTILINE)
    assert {(section, name): default for section, name, default in rows} == defaults
    parser = ConfigParser(interpolation=None)
    parser.read(ROOT / 'config.ini')
    assert {(section, name): text for section in parser.sections() for name, text in parser.items(section)} == defaults
    assert load(ROOT / 'config.ini') == Config()


def test_each_setting_is_explained() -> None:
    """In config.ini a line of explanation stands before each setting, or before the one it belongs with."""
    lines = (ROOT / 'config.ini').read_text().splitlines()
    bare = [line for before, line in pairwise(lines) if '=' in line and not before.startswith('#')]
    assert [line.split()[0] for line in bare] == ['password', 'private_key']


def test_the_page_of_another_website_may_listen(start_server: StartServer, meter: SimulatedMeter) -> None:
    """With cors_origin a page there may read /stream, as the example in JavaScript does."""
    server = start_server(meter.port, server={'cors_origin': 'https://example.org'})
    assert '/stream' in blocks('html')[0]
    assert server.get('/stream', method='HEAD').headers['Access-Control-Allow-Origin'] == 'https://example.org'


def test_nohup(meter: SimulatedMeter, tmp_path: Path) -> None:
    """The README's nohup line, from a clone's folder, serves, and ends with SIGTERM."""
    program('curl', 'curl')
    line = next(line.strip() for line in README.splitlines() if line.strip().startswith('nohup'))
    (tmp_path / 'config.ini').write_text(f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = 18763\n')
    line = line.replace('.venv/bin/python', sys.executable).replace('.py', f'.py --config {tmp_path / "config.ini"}')
    shell = subprocess.run(['bash', '-c', f'{line} echo $!'], capture_output=True, text=True, check=True, cwd=ROOT)
    url = 'http://127.0.0.1:18763/currentElectricityUsage'
    try:
        wait_for(lambda: subprocess.run(['curl', '-sf', url], capture_output=True, check=False).returncode == 0)
    finally:
        subprocess.run(['kill', shell.stdout.strip()], check=True)
    wait_for(lambda: not Path(f'/proc/{shell.stdout.strip()}').exists())
