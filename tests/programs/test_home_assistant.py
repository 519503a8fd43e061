"""A real Home Assistant reads this server in each way that docs/integrations.md names.

scripts/home_assistant installs one and runs these tests. They go through its dialogues as its web page does.
"""

import json
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from dsmr_rest.simulated.house import DUTCH
from dsmr_rest.simulated.telegrams import telegram
from tests.conftest import Server, StartServer, free_port, new_meter, wait_for
from tests.faulty_meter import FaultyMeter
from tests.programs.test_integrations import accepts, broker, recipe, replaced, running
from tests.system_packages import program

START_TIME = 300.0
"""Seconds in which Home Assistant starts on a busy machine: it installs what it lacks."""
LONGEST_UNTRUTH = 60.0
"""Seconds after which no value of a lost meter may be shown."""
LONGEST_RECOVERY = 120.0
"""Seconds, much longer than the 30 s that Home Assistant may pause between two attempts to connect."""
NO_CERTIFICATES = {'set_ca_cert': 'off', 'set_client_cert': False}
"""The answers in the dialogue for MQTT about a broker without TLS."""
NO_VALUE = ('unavailable', 'unknown')
"""States without a value. The DSMR integration shows the second between connecting again and the first telegram."""

EXPECTED = {
    'sensor.power_by_rest': ('currentElectricityUsage', 1),
    'sensor.power_used': ('currentElectricityUsage', 1),
    'sensor.electricity_used_tariff_1': ('electricityUsedTariff1', 1),
    'sensor.gas': ('hourlyGasMeterReading', 1),
    'sensor.p1_meter_power': ('currentElectricityUsage', 1000),
    'sensor.p1_meter_energy_import_tariff_1': ('electricityUsedTariff1', 1),
    'sensor.gas_meter_gas': ('hourlyGasMeterReading', 1),
    'sensor.electricity_meter_power_consumption': ('currentElectricityUsage', 1),
    'sensor.electricity_meter_energy_consumption_tarif_1': ('electricityUsedTariff1', 1),
    'sensor.gas_meter_gas_consumption': ('hourlyGasMeterReading', 1),
}
"""The key of the reading that each sensor of Home Assistant shows, and what its number is multiplied by. By the recipe
for REST, that for MQTT (three), the integration HomeWizard (three), the integration DSMR (three)."""


class HomeAssistant:
    """A running Home Assistant, as its first user sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._token = ''

    def log_in(self) -> None:
        """Creates the first user, as the first visit to its web page does."""
        user = {'name': 'Test', 'username': 'test', 'password': secrets.token_hex()}
        client = {'client_id': self.url}
        created = self.call(
            'api/onboarding/users', json.dumps({**user, **client, 'language': 'en'}).encode()
        )
        grant = {'grant_type': 'authorization_code', 'code': created['auth_code']}
        self._token = self.call('auth/token', urlencode({**client, **grant}).encode())[
            'access_token'
        ]

    def call(self, path: str, data: bytes | None = None) -> Any:
        """The JSON of a response; `data` is sent with POST, as a form when it is not JSON."""
        headers = {}
        if self._token:
            headers['Authorization'] = f'Bearer {self._token}'
        if data is not None and data.startswith(b'{'):
            headers['Content-Type'] = 'application/json'
        request = Request(self.url + path, data, headers)  # noqa: S310 - it is http
        try:
            with urlopen(request, timeout=START_TIME) as response:  # noqa: S310 - as above
                return json.load(response)
        except HTTPError as error:
            pytest.fail(f'{path}: {error.code} {error.read().decode()}')

    def set_up(self, integration: str, answers: Mapping[str, object]) -> str:
        """Goes through the dialogue that adds an integration, which has one page. Returns the id of the new entry."""
        flows = 'api/config/config_entries/flow'
        page = self.call(flows, json.dumps({'handler': integration}).encode())
        if page['type'] == 'menu':
            page = self.call(
                f'{flows}/{page["flow_id"]}', json.dumps({'next_step_id': 'broker'}).encode()
            )
        result = self.call(f'{flows}/{page["flow_id"]}', json.dumps(answers).encode())
        assert result['type'] == 'create_entry', result
        return str(result['result']['entry_id'])

    def set_options(self, entry: str, answers: Mapping[str, object]) -> None:
        """Goes through the dialogue of an entry's options, which has one page."""
        flows = 'api/config/config_entries/options/flow'
        page = self.call(flows, json.dumps({'handler': entry}).encode())
        result = self.call(f'{flows}/{page["flow_id"]}', json.dumps(answers).encode())
        assert result['type'] == 'create_entry', result

    def states(self) -> dict[str, str]:
        """The state of each sensor of the test that there is."""
        shown = {item['entity_id']: item['state'] for item in self.call('api/states')}
        return {name: state for name, state in shown.items() if name in EXPECTED}

    def wait_until(
        self, is_right: Callable[[str, str], bool], seconds: float = LONGEST_RECOVERY
    ) -> None:
        """Returns when all sensors have a state that is right; `is_right` gets a sensor and its state."""
        wrong: dict[str, str] = {}

        def all_are_right() -> bool:
            states = {**dict.fromkeys(EXPECTED, 'missing'), **self.states()}
            wrong.clear()
            wrong.update(
                (name, state) for name, state in states.items() if not is_right(name, state)
            )
            return not wrong

        try:
            wait_for(all_are_right, seconds)
        except AssertionError:
            pytest.fail(f'after {seconds} s: {wrong}')


@contextmanager
def home_assistant(configuration: str) -> Iterator[HomeAssistant]:
    """A Home Assistant with this configuration.yaml, besides what it needs itself.

    The environment names the command that starts it, and the folder that is the root of its file system.
    """
    command = os.environ.get('DSMR_HOME_ASSISTANT', '')
    if not command:
        pytest.skip('no Home Assistant: run scripts/home_assistant')
    root = Path(os.environ.get('DSMR_HOME_ASSISTANT_ROOT', '/'))
    port = free_port()
    with tempfile.TemporaryDirectory(dir=root / 'tmp') as name:
        folder = Path(name)
        (folder / 'configuration.yaml').write_text(
            f'http: {{server_host: 127.0.0.1, server_port: {port}}}\n'
            f'api:\nauth:\nconfig:\nonboarding:\n{configuration}'
        )
        words = [*shlex.split(command), '-c', str(Path('/') / folder.relative_to(root))]
        with running(*words, folder=folder):
            wait_for(lambda: accepts(port), START_TIME)
            started = HomeAssistant(f'http://127.0.0.1:{port}/')

            def is_ready() -> bool:
                with suppress(OSError, HTTPError):
                    return bool(started.call('api/onboarding'))
                return False

            wait_for(is_ready, START_TIME)
            started.log_in()
            yield started


@pytest.fixture
def constant() -> Iterator[FaultyMeter]:
    """A meter that sends the same telegram every second, from a night without sun."""
    sent = telegram('5.0', datetime(2024, 1, 15, 2, tzinfo=DUTCH))
    with new_meter(interval=1, source=lambda: sent) as simulated:
        yield simulated


def configuration(server: Server) -> str:
    """The recipes for configuration.yaml, with the address of this server. Two sensors must not have one name."""
    rest = replaced(
        recipe('Home Assistant: REST sensor', 'yaml'),
        {
            'http://raspberrypi.local:8080/': server.url,
            'name: Power used': 'name: Power by REST',
        },
    )
    return rest + recipe('MQTT', 'yaml')


def mqtt_loop(server: Server, broker_port: int) -> str:
    """The recipe that publishes readings, with the addresses of this test."""
    addresses = {
        'http://raspberrypi.local:8080/': server.url,
        '-h broker.local': f'-h 127.0.0.1 -p {broker_port}',
    }
    return replaced(recipe('MQTT', 'sh'), addresses)


def test_every_way_shows_right_values_and_no_old_ones(
    start_server: StartServer, constant: FaultyMeter, tmp_path: Path
) -> None:
    """Each sensor shows the meter's value, none within 60 s of the loss of meter or server, and again after it."""
    program('mosquitto_pub', 'mosquitto-clients')
    settings = {'port': free_port(), 'telegram_port': free_port(), 'homewizard_api': 'yes'}
    server = start_server(constant.port, server=settings)
    reading = server.get().json
    broker_port = free_port()
    publishing = tmp_path / 'publishing'
    publishing.mkdir()

    def shows_the_reading(sensor: str, state: str) -> bool:
        key, factor = EXPECTED[sensor]
        is_number = re.fullmatch(r'\d+(\.\d+)?', state)
        return bool(is_number) and float(state) == pytest.approx(reading[key]['value'] * factor)

    def shows_nothing(_sensor: str, state: str) -> bool:
        return state in NO_VALUE

    with (
        broker(tmp_path / 'broker', broker_port),
        running('sh', '-c', mqtt_loop(server, broker_port), folder=publishing),
        home_assistant(configuration(server)) as shown,
    ):
        shown.set_up(
            'mqtt', {'broker': '127.0.0.1', 'port': broker_port, 'other_settings': NO_CERTIFICATES}
        )
        shown.set_up('homewizard', {'ip_address': f'127.0.0.1:{server.port}'})
        dsmr = shown.set_up(
            'dsmr',
            {'port': f'socket://127.0.0.1:{server.telegram_port}', 'dsmr_version': '5'},
        )
        shown.wait_until(shows_the_reading)
        shown.set_options(dsmr, {'time_between_update': 0})
        shown.wait_until(shows_the_reading)
        constant.unplug()
        shown.wait_until(shows_nothing, LONGEST_UNTRUTH)
        constant.plug_in()
        shown.wait_until(shows_the_reading)
        assert server.stop() == 0
        shown.wait_until(shows_nothing, LONGEST_UNTRUTH)
        start_server(constant.port, server=settings)
        shown.wait_until(shows_the_reading)
