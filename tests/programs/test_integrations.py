"""The recipes in docs/integrations.md and the units in systemd/, run with the programs that they are for."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import jinja2
import pytest
import yaml

from dsmr_rest.simulated.house import DUTCH
from dsmr_rest.simulated.telegrams import telegram
from tests.conftest import MISSING_PORT, ROOT, Server, StartServer, free_port, new_meter, wait_for
from tests.faulty_meter import FaultyMeter
from tests.pages import INTEGRATIONS, PAGES, block
from tests.programs.test_service import INSTALLED, MOST_EXPOSED, UNIT, analyze, values
from tests.system_packages import program

MQTT_UNIT = ROOT / 'systemd' / 'dsmr-mqtt.service'
TEMPLATE = ROOT / 'systemd' / 'dsmr-rest-server@.service'
TOPIC = 'dsmr/reading'
STATUS_TOPIC = 'dsmr/status'
READY = 'ready'
"""A message of the tests, and its topic: once the subscriber receives it, it misses nothing."""
START_TIME = 30.0
"""Seconds in which a program starts, or connects again after its pause, on a busy machine."""


def recipe(heading: str, language: str) -> str:
    """The code block in this language in the section of docs/integrations.md with this heading."""
    return block(INTEGRATIONS, heading, language)


def replaced(text: str, replacements: Mapping[str, object]) -> str:
    """The text with its hosts, ports and folders replaced by those of the test; each must be in the text."""
    for shown, actual in replacements.items():
        assert shown in text, shown
        text = text.replace(shown, str(actual))
    return text


@contextmanager
def running(*command: object, folder: Path) -> Iterator[None]:
    """A program and all that it starts. Its output goes to a file in this folder."""
    with (
        (folder / 'output').open('a') as output,
        subprocess.Popen(
            list(map(str, command)),
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def accepts(port: int) -> bool:
    """Whether something listens at this port of loopback."""
    try:
        socket.create_connection(('127.0.0.1', port), 5).close()
    except OSError:
        return False
    return True


class Subscriber:
    """The messages that mosquitto_sub has received."""

    def __init__(self, file: Path, broker_port: int) -> None:
        self._file = file
        self.broker_port = broker_port

    @property
    def lines(self) -> list[str]:
        complete, _, _ = self._file.read_text().rpartition('\n')
        return complete.splitlines()

    @property
    def messages(self) -> list[str]:
        """Those that the recipe has published."""
        return [line for line in self.lines if line != READY]

    def next_message(self) -> str:
        """The first message that arrives from now on."""
        count = len(self.messages)
        wait_for(lambda: len(self.messages) > count, START_TIME)
        return self.messages[count]


@contextmanager
def broker(folder: Path, port: int) -> Iterator[None]:
    """A Mosquitto at this port of loopback."""
    folder.mkdir(exist_ok=True)
    configuration = folder / 'mosquitto.conf'
    configuration.write_text(f'listener {port} 127.0.0.1\nallow_anonymous true\n')
    with running(program('mosquitto', 'mosquitto'), '-c', configuration, folder=folder):
        wait_for(lambda: accepts(port), START_TIME)
        yield


@contextmanager
def subscribed(topic: str, port: int, folder: Path) -> Iterator[Subscriber]:
    """A subscriber of this topic that misses nothing, at the broker at this port, and that has what is retained."""
    folder.mkdir()
    mosquitto_sub = program('mosquitto_sub', 'mosquitto-clients')
    mosquitto_pub = program('mosquitto_pub', 'mosquitto-clients')
    options = ['-h', '127.0.0.1', '-p', str(port)]
    publish = [mosquitto_pub, *options, '-t', READY, '-m', READY]
    with running(mosquitto_sub, *options, '-t', topic, '-t', READY, folder=folder):
        received = Subscriber(folder / 'output', port)

        def is_ready() -> bool:
            subprocess.run(publish, check=True, timeout=START_TIME)
            return READY in received.lines

        wait_for(is_ready, START_TIME)
        yield received


@pytest.fixture
def subscriber(tmp_path: Path) -> Iterator[Subscriber]:
    """A subscriber of the topic of the recipes, at a broker of its own."""
    port = free_port()
    with (
        broker(tmp_path / 'broker', port),
        subscribed(TOPIC, port, tmp_path / 'subscriber') as received,
    ):
        yield received


@pytest.fixture
def constant() -> Iterator[FaultyMeter]:
    """A meter that sends the same telegram, from a night without sun, again and again."""
    sent = telegram('5.0', datetime(2024, 1, 15, 2, tzinfo=DUTCH))
    with new_meter(interval=0.2, source=lambda: sent) as simulated:
        yield simulated


def is_reading(line: str) -> bool:
    """Whether a line is the JSON of one reading."""
    document = json.loads(line)
    return isinstance(document, dict) and 'currentElectricityUsage' in document


def readings(subscriber: Subscriber) -> list[str]:
    """The published messages; each must be one reading."""
    published = subscriber.messages
    for message in published:
        assert is_reading(message), message
    return published


def mqtt_loop(server: Server, subscriber: Subscriber) -> str:
    """The recipe's loop, with the hosts and ports of this test."""
    program('curl', 'curl')
    hosts = {
        'http://raspberrypi.local:8080/': server.url,
        '-h broker.local': f'-h 127.0.0.1 -p {subscriber.broker_port}',
    }
    return replaced(recipe('MQTT', 'sh'), hosts)


def test_readings_are_published_before_and_after_a_restart_of_the_server(
    start_server: StartServer, meter: FaultyMeter, subscriber: Subscriber, tmp_path: Path
) -> None:
    """The MQTT loop publishes one reading per message, and continues after the server was stopped and started again."""
    settings = {'port': free_port()}
    server = start_server(meter.port, server=settings)
    with running('sh', '-c', mqtt_loop(server, subscriber), folder=tmp_path):
        assert is_reading(subscriber.next_message())
        assert server.stop() == 0
        start_server(meter.port, server=settings)
        assert is_reading(subscriber.next_message())
        before = len(readings(subscriber))
        wait_for(lambda: len(readings(subscriber)) >= before + 5)


def test_readings_are_published_after_a_restart_of_the_broker(
    start_server: StartServer, meter: FaultyMeter, tmp_path: Path
) -> None:
    """The MQTT loop publishes to a broker that starts after it."""
    mosquitto_sub = program('mosquitto_sub', 'mosquitto-clients')
    received = tmp_path / 'received'
    received.mkdir()
    subscriber = Subscriber(received / 'output', free_port())
    server = start_server(meter.port)
    with running('sh', '-c', mqtt_loop(server, subscriber), folder=tmp_path):
        wait_for(lambda: 'refused' in (tmp_path / 'output').read_text(), START_TIME)
        options = ['-h', '127.0.0.1', '-p', str(subscriber.broker_port), '-t', TOPIC]
        for folder in (tmp_path / 'first', tmp_path / 'second'):
            with (
                broker(folder, subscriber.broker_port),
                running(mosquitto_sub, *options, folder=received),
            ):
                assert is_reading(subscriber.next_message())


def test_problems_are_not_published(
    start_server: StartServer, meter: FaultyMeter, subscriber: Subscriber, tmp_path: Path
) -> None:
    """When the stream reports a problem, the MQTT loop publishes nothing, and then readings again."""
    server = start_server(meter.port)
    watched = tmp_path / 'stream'
    watched.mkdir()
    with (
        running('sh', '-c', mqtt_loop(server, subscriber), folder=tmp_path),
        running('curl', '-sN', f'{server.url}stream', folder=watched),
    ):
        subscriber.next_message()
        meter.unplug()
        wait_for(lambda: 'event: problem' in (watched / 'output').read_text())
        meter.plug_in()
        subscriber.next_message()
    assert readings(subscriber)


def mqtt_units_command(server: Server, subscriber: Subscriber) -> str:
    """The command of dsmr-mqtt.service, with the hosts and ports of this test."""
    # A line that ends in a backslash goes on in the next one (systemd.syntax(7)).
    joined = MQTT_UNIT.read_text().replace('\\\n', ' ')
    (command,) = re.findall(r'^ExecStart=(.*)$', joined, re.MULTILINE)
    hosts = {
        'http://localhost:8080/': server.url,
        '-h broker.local': f'-h 127.0.0.1 -p {subscriber.broker_port}',
    }
    _, _, script = shlex.split(replaced(command, hosts))
    return script


@pytest.mark.parametrize('script_of', [mqtt_loop, mqtt_units_command])
def test_a_subscriber_knows_whether_readings_arrive(
    script_of: Callable[[Server, Subscriber], str],
    start_server: StartServer,
    meter: FaultyMeter,
    subscriber: Subscriber,
    tmp_path: Path,
) -> None:
    """The status is online while readings are published, else offline; whoever subscribes later has both at once."""
    program('curl', 'curl')
    settings = {'port': free_port()}
    server = start_server(meter.port, server=settings)
    script = script_of(server, subscriber)
    port = subscriber.broker_port
    with subscribed(STATUS_TOPIC, port, tmp_path / 'status') as status:

        def becomes(expected: str) -> None:
            wait_for(lambda: status.messages[-1:] == [expected], START_TIME)

        process = subprocess.Popen(['sh', '-c', script], start_new_session=True)
        try:
            becomes('online')
            meter.unplug()
            becomes('offline')
            meter.plug_in()
            becomes('online')
            assert server.stop() == 0
            becomes('offline')
            start_server(meter.port, server=settings)
            becomes('online')
            subscriber.next_message()
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # as if its machine had disappeared
            process.wait()
        becomes('offline')
    assert readings(subscriber)
    for topic, kept in ((TOPIC, readings(subscriber)[-1]), (STATUS_TOPIC, 'offline')):
        with subscribed(topic, port, tmp_path / f'later {topic[5:]}') as later:
            assert later.messages == [kept]


def test_home_assistants_sensors_show_the_values_of_a_reading(
    start_server: StartServer, meter: FaultyMeter, subscriber: Subscriber, tmp_path: Path
) -> None:
    """Each template of the recipe for Home Assistant renders its value of a message, in the unit that it names."""
    server = start_server(meter.port)
    sensors = yaml.safe_load(recipe('MQTT', 'yaml'))['mqtt']['sensor']
    with running('sh', '-c', mqtt_loop(server, subscriber), folder=tmp_path):
        reading = json.loads(subscriber.next_message())
    templates = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    shown = {}
    for sensor in sensors:
        assert sensor['state_topic'] == TOPIC
        assert sensor['availability_topic'] == STATUS_TOPIC
        value = templates.from_string(sensor['value_template']).render(value_json=reading)
        shown[sensor['name']] = (float(value), sensor['unit_of_measurement'].replace('³', '3'))

    def measured(key: str) -> tuple[float, str]:
        return reading[key]['value'], reading[key]['unit']

    assert shown == {
        'Power used': measured('currentElectricityUsage'),
        'Electricity used, tariff 1': measured('electricityUsedTariff1'),
        'Gas': measured('hourlyGasMeterReading'),
    }


def test_home_assistants_rest_sensor_shows_the_value_of_its_resource(
    start_server: StartServer, constant: FaultyMeter
) -> None:
    """The REST sensor requests a path that exists, renders its value, names its unit, and says when there is none."""
    server = start_server(constant.port)
    (sensor,) = yaml.safe_load(recipe('Home Assistant: REST sensor', 'yaml'))['sensor']
    (path,) = re.findall(r'^http://raspberrypi\.local:8080(/.*)$', sensor['resource'])
    item = server.get(path, timeout=sensor['timeout']).json
    problem = start_server(MISSING_PORT).get(path).json
    templates = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=True)
    value = templates.from_string(sensor['value_template'])
    is_available = templates.from_string(sensor['availability'])
    used = server.get().json['currentElectricityUsage']
    shown = value.render(value_json=item)
    assert (float(shown), sensor['unit_of_measurement']) == (used['value'], used['unit'])
    assert is_available.render(value_json=item) == 'True'
    # An empty value would be refused, and the sensor would keep the last one.
    assert float(value.render(value_json=problem)) == 0
    assert is_available.render(value_json=problem) == 'False'


def test_the_python_example_prints_a_value_and_its_unit(
    start_server: StartServer, meter: FaultyMeter, tmp_path: Path
) -> None:
    """The example in Python prints the power and its unit."""
    server = start_server(meter.port)
    script = tmp_path / 'example.py'
    script.write_text(
        replaced(recipe('Python', 'python'), {'http://raspberrypi.local:8080/': server.url})
    )
    output = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True
    ).stdout
    assert re.fullmatch(r'\d+\.\d+ kW\n', output)


def test_history_is_one_file_per_day(
    start_server: StartServer, meter: FaultyMeter, tmp_path: Path
) -> None:
    """The history recipe appends each reading to the file of the day, and to another file from the next day on."""
    program('curl', 'curl')
    settings = {'port': free_port()}
    server = start_server(meter.port, server=settings)
    folder, programs = tmp_path / 'history', tmp_path / 'bin'
    folder.mkdir()
    programs.mkdir()
    day = tmp_path / 'day'
    day.write_text('2026-12-31')
    # The real date command, on the day that the test has written.
    date = programs / 'date'
    date.write_text(f'#!/bin/sh\nexec {program("date", "coreutils")} -d "$(cat {day})" "$@"\n')
    date.chmod(0o755)
    loop = replaced(
        recipe('History in files', 'sh'), {'http://raspberrypi.local:8080/': server.url}
    )

    def lines(name: str) -> list[str]:
        file = folder / name
        if not file.exists():
            return []
        complete, _, _ = file.read_text().rpartition('\n')
        return complete.splitlines()

    with running('env', f'PATH={programs}:{os.environ["PATH"]}', 'sh', '-c', loop, folder=folder):
        wait_for(lambda: len(lines('readings-2026-12-31.jsonl')) > 2, START_TIME)
        next_day = tmp_path / 'next day'
        next_day.write_text('2027-01-01')
        next_day.replace(day)
        wait_for(lambda: len(lines('readings-2027-01-01.jsonl')) > 2, START_TIME)
        assert server.stop() == 0
        written = len(lines('readings-2027-01-01.jsonl'))
        start_server(meter.port, server=settings)
        wait_for(lambda: len(lines('readings-2027-01-01.jsonl')) > written + 2, START_TIME)
    for name in ('readings-2026-12-31.jsonl', 'readings-2027-01-01.jsonl'):
        for line in lines(name):
            assert is_reading(line), line
    assert len(list(folder.glob('*.jsonl'))) == 2


def test_curl_takes_the_password_from_a_file(
    start_server: StartServer, meter: FaultyMeter, tmp_path: Path
) -> None:
    """A recipe whose curl has the option and the file that the page names reads from a server with a password."""
    program('curl', 'curl')
    server = start_server(meter.port, server={'user': 'smart', 'password': 'meter'})
    option, line = re.findall(
        r'add `(--netrc-file) FILE`.*?contains\n`(machine .*)`', PAGES[INTEGRATIONS]
    )[0]
    credentials = tmp_path / 'netrc'
    credentials.write_text(
        replaced(line, {'raspberrypi.local': '127.0.0.1', 'USER': 'smart', 'PASSWORD': 'meter'})
    )
    with_password = {
        'http://raspberrypi.local:8080/': server.url,
        'curl ': f'curl {option} {credentials} ',
    }
    loop = replaced(recipe('History in files', 'sh'), with_password)
    folder = tmp_path / 'history'
    folder.mkdir()

    def written() -> list[str]:
        lines: list[str] = []
        for file in folder.glob('readings-*.jsonl'):
            lines += file.read_text().splitlines(keepends=True)
        return lines

    with running('sh', '-c', loop, folder=folder):
        wait_for(lambda: len(written()) > 1, START_TIME)
    assert is_reading(written()[0])


def test_victoria_metrics_returns_what_the_server_returns(
    start_server: StartServer, constant: FaultyMeter, tmp_path: Path
) -> None:
    """VictoriaMetrics, started as in the recipe with the recipe for Prometheus, has the values of `/`."""
    server = start_server(constant.port)
    port = free_port()
    scrapes = replaced(
        recipe('Prometheus', 'yaml'), {'raspberrypi.local:8080': f'127.0.0.1:{server.port}'}
    )
    (tmp_path / 'prometheus.yml').write_text(f'global:\n  scrape_interval: 1s\n{scrapes}')
    command = shlex.split(recipe('VictoriaMetrics', 'sh'))
    command[0] = program('victoria-metrics', 'victoria-metrics')
    # As in Prometheus, the newest samples are returned: by default they are held back for 30 s.
    command += [f'-httpListenAddr=127.0.0.1:{port}', '-search.latencyOffset=1s']

    def value(expression: str) -> Any:
        with urlopen(
            f'http://127.0.0.1:{port}/api/v1/query?query={quote(expression)}', timeout=20
        ) as response:
            result = json.load(response)['data']['result']
        if not result:
            return None
        (sample,) = result
        return float(sample['value'][1])

    with running(*command, folder=tmp_path):
        wait_for(lambda: accepts(port), START_TIME)
        total_power = 'dsmr_power_used_watts{job="smart-meter"}'
        wait_for(lambda: value(total_power) is not None, START_TIME)
        reading = server.get().json
        kilowatts = reading['currentElectricityUsage']['value']
        assert kilowatts > 0
        assert value(total_power) == pytest.approx(1000 * kilowatts)
        kilowatt_hours = reading['electricityUsedTariff1']['value']
        assert value('dsmr_electricity_used_kwh_total{tariff="1"}') == pytest.approx(kilowatt_hours)


def test_socat_makes_a_serial_port_of_the_telegram_port(
    start_server: StartServer, meter: FaultyMeter, tmp_path: Path
) -> None:
    """A program that reads serial ports gets telegrams from the port that the recipe's socat command makes."""
    telegram_port = free_port()
    start_server(meter.port, server={'telegram_port': telegram_port})
    link = tmp_path / 'ttyP1'
    actual = {
        '/dev/ttyP1': link,
        'raspberrypi.local:2001': f'127.0.0.1:{telegram_port}',
        ',mode=660,group=dialout': ',mode=600',
    }
    loop = replaced(recipe('Programs that need a serial port', 'sh'), actual)
    _, in_the_loop, _ = loop.strip().splitlines()
    command = shlex.split(in_the_loop)
    command[0] = program('socat', 'socat')
    with running(*command, folder=tmp_path):
        wait_for(link.exists)
        reader = start_server(str(link), meter={'line': '115200 8N1'})
        assert is_reading(reader.get().body.decode())


@pytest.fixture(params=['house', 'office'])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An instance of the template, as if the server were installed in this folder."""
    text = TEMPLATE.read_text().replace(f'{INSTALLED}/.venv/bin/python', sys.executable)
    unit = tmp_path / f'dsmr-rest-server@{request.param}.service'
    unit.write_text(text.replace(INSTALLED, str(ROOT)))
    return unit


def test_systemd_finds_no_mistake_in_an_instance(instance: Path) -> None:
    """`systemd-analyze verify` has no complaints about an instance of the template."""
    verified = analyze('verify', instance)
    assert (verified.returncode, verified.stdout) == (0, '')


def test_systemd_finds_no_mistake_in_the_mqtt_unit() -> None:
    """`systemd-analyze verify` has no complaints about dsmr-mqtt.service, and the unit is hardly exposed."""
    verified = analyze('verify', MQTT_UNIT)
    assert (verified.returncode, verified.stdout) == (0, '')
    report = analyze('security', '--offline=true', MQTT_UNIT).stdout
    level = re.search(r'Overall exposure level for \S+: (\d+\.\d)', report)
    assert level, report
    assert float(level[1]) < MOST_EXPOSED, report


def without_differences(unit: Path) -> list[str]:
    """The settings of a unit except those that an instance has of its own."""
    own = ('#', 'Description=', 'ExecStart=')
    return [line for line in unit.read_text().splitlines() if not line.startswith(own)]


def test_an_instance_is_as_confined_as_the_single_server() -> None:
    """The template has the settings of the unit for one meter; only the description and the command differ."""
    assert without_differences(TEMPLATE) == without_differences(UNIT)


def test_each_instance_serves_its_own_meter(tmp_path: Path) -> None:
    """The commands of two instances serve the meters that their files name."""
    (shown,) = values(TEMPLATE, 'ExecStart')
    folder = {
        f'{INSTALLED}/.venv/bin/python': sys.executable,
        INSTALLED: ROOT,
        '/etc/dsmr-rest-server': tmp_path,
    }
    command = replaced(shown, folder)
    versions = {'house': '5.0', 'office': '4.2'}
    served = {}
    for name, version in versions.items():
        port = free_port()
        with new_meter(version, interval=0.2) as meter:
            settings = f'[meter]\nport = {meter.port}\n[server]\nhost = 127.0.0.1\nport = {port}\n'
            (tmp_path / f'{name}.ini').write_text(settings)
            with running(*shlex.split(command.replace('%i', name)), folder=tmp_path):
                wait_for(partial(accepts, port), START_TIME)
                with urlopen(
                    f'http://127.0.0.1:{port}/p1MessageHeader/value', timeout=20
                ) as response:
                    served[name] = json.load(response)
    assert served == {'house': '50', 'office': '42'}
