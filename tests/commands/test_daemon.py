"""dsmr_rest_server.py as a user, a shell or systemd starts and stops it."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.signal_floods import MAIN_WITH_REPORT
from dsmr_rest import __version__
from dsmr_rest.commands.summary import NAME_WIDTH
from dsmr_rest.simulated.meter import SimulatedMeter
from dsmr_rest.simulated.telegrams import VERSIONS
from tests.conftest import (
    MISSING_PORT,
    ROOT,
    SERVER_COMMAND,
    StartServer,
    accepts_connections,
    free_port,
    new_meter,
    running,
    wait_for,
    wait_together,
    write_config,
)
from tests.faulty_meter import PATIENCE
from tests.system_packages import program

KEY = '0123456789abcdef0123456789abcdef'
SECONDS_TO_STOP = 20
"""Ten times what is promised: a busy machine does not keep that."""
SECONDS_TO_CONNECT = 5  # that pyserial waits for a peer
END_SIGNALS = [signal.SIGTERM, signal.SIGINT]


def finished(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that has ended, with its output."""
    surroundings = {**os.environ, 'PYTHONWARNINGS': 'error', **environment}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=surroundings
    )


def output(*options: str) -> str:
    """What the server's command prints when it ends by itself, without a complaint."""
    ended = finished(*SERVER_COMMAND, *options)
    assert (ended.returncode, ended.stderr) == (0, '')
    return ended.stdout


def complaint(*options: str, prefix: tuple[str, ...] = ()) -> str:
    """The line on stderr with which the server refuses to start. `prefix` is a command that starts it."""
    ended = finished(*prefix, *SERVER_COMMAND, *options)
    assert ended.returncode == 2, ended.stderr
    assert not ended.stdout
    assert ended.stderr.count('\n') == 1
    assert ended.stderr.endswith('\n')
    return ended.stderr


def complaint_of_both(*options: str, prefix: tuple[str, ...] = ()) -> str:
    """The line with which the server refuses to start, which is also that of --check."""
    line = complaint(*options, prefix=prefix)
    assert complaint('--check', *options, prefix=prefix) == line
    return line


def without_rights() -> tuple[str, ...]:
    """What to put before a command that must not have the rights of root; other users never have them."""
    if os.geteuid() != 0:
        return ()
    return (program('setpriv', 'util-linux'), '--bounding-set=-all', '--inh-caps=-all')


def telegram(port: int) -> bytes:
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/telegram', timeout=PATIENCE) as response:
        return bytes(response.read())


# The start


@pytest.mark.parametrize(
    ('meter', 'server', 'named'),
    [
        ({'max_age': 'nan'}, {}, 'max_age = nan'),
        ({'prot': '/dev/ttyUSB0'}, {}, 'prot'),
        ({}, {'certificate': 'none.pem', 'private_key': 'none.pem'}, 'none.pem'),
        ({}, {'certificate': 'config.ini', 'private_key': 'config.ini'}, 'private_key = '),
        ({}, {'user': 'me', 'password_file': 'none.txt'}, 'none.txt'),
        ({}, {'port': 8123, 'telegram_port': 8123}, 'telegram_port = 8123'),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(
    meter: dict[str, object], server: dict[str, object], named: str, tmp_path: Path
) -> None:
    """The server does not start with a wrong configuration, and one line says why; --check says the same."""
    assert named in complaint_of_both('--config', write_config(tmp_path, meter, server))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """--config with a file that does not exist ends with status 2 and the name of the file."""
    assert 'none.ini' in complaint_of_both('--config', str(tmp_path / 'none.ini'))


def test_a_decryption_key_is_never_shown(tmp_path: Path) -> None:
    """Even a key that is refused is not shown."""
    line = complaint_of_both('--config', write_config(tmp_path, {'decryption_key': f'{KEY}f'}, {}))
    assert 'decryption_key' in line
    assert KEY not in line


@pytest.mark.parametrize(
    ('host', 'reason'),
    [
        ('192.0.2.1', 'this machine does not have that address'),
        ('[::1]', 'host must be an IP address or a name of this machine'),
        ('two..dots', 'host must be an IP address or a name of this machine'),
    ],
)
def test_a_host_that_the_server_cannot_listen_on_is_refused(
    host: str, reason: str, tmp_path: Path
) -> None:
    """A host that is not an address of this machine, or not a host name, is one line and status 2."""
    line = complaint_of_both('--config', write_config(tmp_path, {}, {'host': host}))
    assert f'[server] host = {host}, port = 0: {reason}' in line


@pytest.mark.parametrize('setting', ['port', 'telegram_port'])
def test_a_port_that_the_user_may_not_have_is_refused(setting: str, tmp_path: Path) -> None:
    """A port below 1024 without the right to it is one line that says which ports can be chosen."""
    first_free = int(Path('/proc/sys/net/ipv4/ip_unprivileged_port_start').read_text())
    if first_free <= 1:
        pytest.skip('every user of this machine may listen on any port')
    config = write_config(tmp_path, {}, {setting: 1})
    line = complaint_of_both('--config', config, prefix=without_rights())
    assert f'{setting} = 1: ' in line
    assert 'choose a port above 1023' in line


def test_an_address_in_use_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    """A second server on the same address ends with one line that names the address."""
    port = start_server(MISSING_PORT).port
    line = complaint('--config', write_config(tmp_path, {}, {'port': port}))
    assert 'in use' in line
    assert str(port) in line


def test_a_telegram_port_in_use_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    """A telegram port that is in use is named in one line."""
    telegram_port = start_server(MISSING_PORT).port
    config = write_config(tmp_path, {}, {'telegram_port': telegram_port})
    line = complaint('--config', config)
    assert f'telegram_port = {telegram_port}' in line
    assert 'in use' in line


def test_one_line_names_the_addresses(tmp_path: Path) -> None:
    """At the start there is one line on stdout, which names port and URL, and none on stderr."""
    config = write_config(tmp_path, {'port': MISSING_PORT, 'decryption_key': KEY}, {})
    Path(config).chmod(0o600)
    with running(
        *SERVER_COMMAND, '--config', config, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        process.terminate()
        rest, errors = process.communicate(timeout=PATIENCE)
    assert MISSING_PORT in line
    assert 'http://127.0.0.1:' in line
    assert rest == errors == ''


def test_an_unwise_setting_is_a_warning(start_server: StartServer) -> None:
    """A configuration that is allowed but unwise is one line of log, and the server starts."""
    server = start_server(MISSING_PORT, meter={'decryption_key': KEY})
    wait_for(lambda: server.log)
    assert server.stop() == 0
    (line,) = server.log.splitlines()
    assert 'chmod o-r' in line
    assert KEY not in line


def test_demo_serves_a_meter_without_hardware(start_server: StartServer) -> None:
    """--demo serves readings of a simulated meter, whatever port the configuration names."""
    server = start_server(
        MISSING_PORT, '--demo', meter={'line': '9600 7E1', 'specification': 'V2_2'}
    )
    response = server.get('/')
    assert response.status == 200
    assert response.json['p1MessageHeader']['value'] == '50'


@pytest.mark.parametrize('version', VERSIONS)
def test_the_demo_can_be_any_simulated_meter(version: str, tmp_path: Path) -> None:
    """--demo VERSION says on stdout that this meter is simulated, and where its dashboard is."""
    options = ['--demo', version, '--config', write_config(tmp_path, {}, {})]
    with running(*SERVER_COMMAND, *options, stdout=subprocess.PIPE) as process:
        assert process.stdout
        served, dashboard = process.stdout.readline(), process.stdout.readline()
        served_url = re.search(r'http://127\.0\.0\.1:\d+/', served)
        assert served_url
        url = f'{served_url[0]}dashboard'
        page = urllib.request.urlopen(url, timeout=PATIENCE)  # noqa: S310 - it is http
        with page as response:
            assert response.status == 200
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert served.startswith(f'serving a simulated meter ({version}) at ')
    assert dashboard.startswith(f'The dashboard is at {url}.')


def test_help_names_the_simulated_meters() -> None:
    """--help has every version that --demo takes."""
    _, _, about_demo = output('--help').partition('read a simulated meter')
    for version in VERSIONS:
        assert version in about_demo


def test_a_demo_that_does_not_exist_is_refused() -> None:
    """--demo with an unknown version ends with status 2 and the versions that there are."""
    ended = finished(*SERVER_COMMAND, '--demo', 'germany')
    assert ended.returncode == 2
    assert f'must be one of: {", ".join(VERSIONS)}' in ended.stderr


def test_a_secret_comes_from_the_credentials_of_systemd(
    start_server: StartServer, tmp_path: Path
) -> None:
    """A secret that config.ini does not contain is read from CREDENTIALS_DIRECTORY (systemd.exec(5))."""
    (tmp_path / 'password').write_text('geheim\n')
    environment = {'CREDENTIALS_DIRECTORY': str(tmp_path)}
    server = start_server(MISSING_PORT, server={'user': 'me'}, environment=environment)
    assert server.get('/nothing').status == 401
    assert server.get('/nothing', {'Authorization': 'Basic bWU6Z2VoZWlt'}).status == 404


def test_keep_open_opens_the_port_at_the_start(
    start_server: StartServer, meter: SimulatedMeter
) -> None:
    """With keep_open the port is open from the start, before any request for a reading."""
    server = start_server(meter.port, meter={'keep_open': 60})
    wait_for(lambda: server.health['ageOfLastReading'] is not None)
    assert server.openings == 1


@pytest.fixture
def port_80() -> Iterator[int]:
    """The port of HTTP, which only one test at a time can have; it comes before the server that listens there."""
    with Path(tempfile.gettempdir(), f'dsmr-test-port-80-{os.getuid()}').open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            socket.create_server(('', 80)).close()
        except PermissionError:
            pytest.skip('port 80 needs more rights: run the tests as root')
        except OSError:
            pytest.skip('port 80 is taken: stop the web server of this machine')
        yield 80


def test_an_announced_meter_is_read_at_the_start(
    port_80: int, start_server: StartServer, meter: SimulatedMeter, tmp_path: Path
) -> None:
    """A server that is announced as a meter reads it without any request, and then starts the announcement."""
    # So that the log shows when it starts.
    (tmp_path / 'zeroconf.py').write_text('raise ImportError')
    server = start_server(
        meter.port,
        server={'host': '', 'port': port_80, 'homewizard_api': 'yes'},
        environment={'PYTHONPATH': str(tmp_path)},
    )
    wait_for(lambda: 'not announced on the network' in server.log)
    assert server.openings == 1


def test_an_announcement_without_a_reading_does_not_delay_the_end(
    port_80: int, start_server: StartServer
) -> None:
    """While an announcement waits for the first reading, SIGTERM ends the server long before its timeout."""
    settings = {'host': '', 'port': port_80, 'homewizard_api': 'yes'}
    server = start_server(MISSING_PORT, server=settings)
    # Nobody but the announcement has asked for a reading.
    wait_for(lambda: 'port_missing' in server.log)
    assert server.stop(SECONDS_TO_STOP) == 0


# The options that only say something


def without_settings_file(folder: Path, option: str) -> str:
    """What the command prints when it and its package are in this folder, without a config.ini beside them."""
    script = folder / 'dsmr_rest_server.py'
    shutil.copy(SERVER_COMMAND[1], script)
    package = 'dsmr_rest'
    shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns('__pycache__'))
    ended = finished(sys.executable, str(script), option)
    assert (ended.returncode, ended.stderr) == (0, '')
    return ended.stdout


def test_the_version() -> None:
    """--version prints the name of the project and its version."""
    assert output('--version') == f'dsmr-rest-server {__version__}\n'


def test_help_names_the_file_with_the_settings(tmp_path: Path) -> None:
    """--help has the path of the default file on a line of its own, and says when there is no such file."""
    lines = output('--help').splitlines()
    assert str(ROOT / 'config.ini') in lines
    assert not any('does not exist' in line for line in lines)
    shown = without_settings_file(tmp_path, '--help')
    assert f'{tmp_path / "config.ini"}\nwhich does not exist' in shown


def test_an_installed_command_has_no_file_of_its_own(tmp_path: Path) -> None:
    """Started from another folder than its script's, it neither names nor reads the config.ini beside its package."""
    command = tmp_path / 'dsmr-rest-server'
    command.write_text('import sys, dsmr_rest_server\nsys.exit(dsmr_rest_server.main())\n')
    environment = {'PYTHONPATH': str(ROOT)}
    shown = finished(sys.executable, str(command), '--help', **environment).stdout
    assert 'config.ini' not in shown
    assert 'Without --config, every setting has its default.' in shown
    report = finished(sys.executable, str(command), '--check', **environment).stdout
    assert facts(report)['settings'].startswith('the defaults')


def facts(report: str) -> dict[str, str]:
    """What --check printed, by the names at the beginning of its lines."""
    *lines, last = report.splitlines()
    assert last.startswith('No mistake was found.')
    return {line[:NAME_WIDTH].strip(): line[NAME_WIDTH:] for line in lines}


def test_check_says_what_the_server_would_do(meter: SimulatedMeter, tmp_path: Path) -> None:
    """--check names the file, the port of the meter and whether it is there, and the URLs; its status is 0."""
    config = write_config(tmp_path, {'port': meter.port}, {'port': 8123})
    report = facts(output('--check', '--config', config))
    assert report['settings'] == config
    assert report['meter'] == f'{meter.port}, which is there now'
    assert report['URLs'] == 'http://127.0.0.1:8123/'
    assert report['who may ask'] == 'every program on this machine'
    config = write_config(tmp_path, {'port': MISSING_PORT}, {})
    report = facts(output('--check', '--config', config))
    assert report['meter'].startswith(f'{MISSING_PORT}, which is not there now')


def test_check_without_a_file_is_about_the_defaults(tmp_path: Path) -> None:
    """Where there is no config.ini, --check says so and reports the defaults."""
    report = facts(without_settings_file(tmp_path, '--check'))
    assert report['settings'] == 'the defaults, because there is no config.ini'
    assert report['URLs'] == f'http://localhost:8080/ http://{socket.gethostname()}:8080/'


def test_check_of_a_demo_is_about_a_simulated_meter(tmp_path: Path) -> None:
    """With --demo, --check reports the server's settings, and a simulated meter instead of [meter]."""
    config = write_config(tmp_path, {'port': MISSING_PORT}, {'port': 8123})
    report = facts(output('--check', '--demo', '--config', config))
    assert report['meter'] == 'a simulated one (5.0)'
    assert 'line' not in report
    assert report['URLs'] == 'http://127.0.0.1:8123/'


@pytest.mark.parametrize(
    ('kind', 'said'),
    [('.', 'a folder'), ('config.ini', 'a file'), ('/dev/null', 'another kind of device')],
)
def test_check_finds_a_port_that_is_no_serial_port(kind: str, said: str, tmp_path: Path) -> None:
    """A folder, a file or another device as [meter] port is a mistake for --check, with status 2."""
    port = tmp_path / kind
    ended = finished(
        *SERVER_COMMAND, '--check', '--config', write_config(tmp_path, {'port': port}, {})
    )
    *_, last = ended.stdout.splitlines()
    assert f'{port}, which is {said}, not a serial port' in ended.stdout
    assert last == f'One mistake was found: [meter] port is {said}, not a serial port.'
    assert (ended.returncode, ended.stderr) == (2, '')


def test_check_may_be_read_in_part() -> None:
    """When the reader of its output has ended, as `head -1` does, --check has status 0 and no complaint."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [*SERVER_COMMAND, '--check'], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b'')


def test_check_shows_no_secret(tmp_path: Path) -> None:
    """Keys and the password are reported as set; neither they nor a part of them is shown."""
    (tmp_path / 'key').write_text(f'{KEY[::-1]}\n')
    server = {'host': '', 'user': 'me', 'password': 'geheim'}
    keys = {'decryption_key': KEY, 'authentication_key_file': 'key'}
    config = write_config(tmp_path, keys, server)
    text = output('--check', '--config', config)
    report = facts(text)
    assert report['keys'] == 'decryption_key and authentication_key are set'
    assert report['who may ask'] == ('everyone on the network with the user name and the password')
    assert report['warning']
    for secret in (KEY, KEY[::-1], 'geheim'):
        assert secret[:6] not in text


def test_check_leaves_a_running_server_alone(
    start_server: StartServer, meter: SimulatedMeter
) -> None:
    """The settings of a server that is running can be checked: its ports in use are no mistake, and it goes on."""
    server = start_server(meter.port, server={'port': free_port(), 'telegram_port': free_port()})
    config = server.log_file.with_name('config.ini')
    report = facts(output('--check', '--config', str(config)))
    assert report['URLs'] == server.url
    assert str(server.telegram_port) in report['telegram_port']
    assert server.openings == 0
    assert server.get('/telegram').status == 200


def test_check_opens_no_port(meter: SimulatedMeter, tmp_path: Path) -> None:
    """--check neither opens the serial port nor listens nor binds a TCP socket."""
    trace = tmp_path / 'trace'
    config = write_config(tmp_path, {'port': meter.port}, {'port': 8123, 'telegram_port': 8124})
    calls = 'trace=open,openat,socket,bind,listen'
    strace = [program('strace', 'strace'), '-f', '-e', calls, '-o', str(trace)]
    report = finished(*strace, *SERVER_COMMAND, '--check', '--config', config)
    assert report.returncode == 0
    made = trace.read_text()
    assert 'config.ini' in made
    assert 'bind(' in made
    device = str(Path(meter.port).resolve())
    assert meter.port not in made and device not in made
    assert 'listen(' not in made
    assert 'SOCK_STREAM' not in made


# The end


@pytest.mark.parametrize('number', END_SIGNALS)
def test_a_signal_ends_it_with_status_0(number: signal.Signals, start_server: StartServer) -> None:
    """SIGTERM and SIGINT end it at once although requests are waiting, which get 503 stopping."""
    with new_meter(interval=30) as meter:
        server = start_server(meter.port)
        assert server.process.stdout
        with ThreadPoolExecutor(8) as pool:
            waiting = wait_together(server, pool, 8)
            server.process.send_signal(number)
            assert server.process.wait(SECONDS_TO_STOP) == 0
            responses = [future.result() for future in waiting]
        assert [(response.status, response.json['code']) for response in responses] == [
            (503, 'stopping')
        ] * 8
        assert all('Retry-After' in response.headers for response in responses)
        assert server.process.stdout.read() == '', 'more than one line on stdout'
        server.process.stdout.close()


@pytest.mark.parametrize('number', END_SIGNALS)
def test_a_signal_ends_it_while_the_port_is_being_opened(
    number: signal.Signals, start_server: StartServer
) -> None:
    """A peer that does not accept a connection delays neither the end nor the responses."""
    with socket.socket() as peer, ThreadPoolExecutor(1) as pool:
        peer.bind(('127.0.0.1', 0))
        peer.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for (
            filler
        ) in fillers:  # they fill the backlog, and then the system does not accept connections
            filler.setblocking(False)
            filler.connect_ex(peer.getsockname())
        server = start_server('socket://{}:{}'.format(*peer.getsockname()))
        assert server.process.stdout
        waiting = pool.submit(server.get, '/')
        wait_for(lambda: server.waiters == 1)
        server.process.send_signal(number)
        assert server.process.wait(SECONDS_TO_CONNECT - 1) == 0
        assert waiting.result().json['code'] == 'stopping'
        server.process.stdout.close()
        for filler in fillers:
            filler.close()


def modules_in(importtime: str) -> set[str]:
    """The modules that were loaded, according to what Python's option -X importtime writes."""
    return {line.split()[-1] for line in importtime.splitlines()}


def test_the_start_loads_only_what_the_settings_need(tmp_path: Path) -> None:
    """Until its line on stdout the server has loaded what it needs then, and not what only some servers need."""
    config = write_config(tmp_path, {'port': MISSING_PORT}, {})
    log = tmp_path / 'log'
    command = [sys.executable, '-X', 'importtime', SERVER_COMMAND[1], '--config', config]
    with (
        log.open('w') as output,
        running(*command, stdout=subprocess.PIPE, stderr=output) as process,
    ):
        assert process.stdout
        assert 'http' in process.stdout.readline()
        loaded = modules_in(log.read_text())
    assert 'dsmr_rest.http.server' in loaded
    of_python_itself = modules_in(finished(sys.executable, '-X', 'importtime', '-c', '').stderr)
    by_the_server = loaded - of_python_itself
    assert not by_the_server & {
        'dsmr_rest.api.metrics',
        'dsmr_rest.commands.summary',
        'dsmr_rest.discovery',
        'dsmr_rest.p1.decryption',
        'dsmr_rest.simulated',
        'dsmr_rest.telegram_server',
        'hashlib',
        'hmac',
        'pickle',
    }


def test_a_signal_ends_it_right_after_the_start(tmp_path: Path) -> None:
    """From the line on stdout on, SIGTERM ends the server with status 0."""
    config = write_config(tmp_path, {'port': MISSING_PORT}, {})
    for _ in range(3):
        with running(*SERVER_COMMAND, '--config', config, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert 'http' in process.stdout.readline()
            process.terminate()
            assert process.wait(SECONDS_TO_STOP) == 0


@pytest.mark.parametrize('lines', range(1, 3))
def test_a_flood_of_signals_ends_it_once(lines: int, meter: SimulatedMeter, tmp_path: Path) -> None:
    """SIGTERM and SIGINT without a pause, from the first line of main() or while serving: status 0 and no output."""
    config = write_config(tmp_path, {'port': meter.port}, {})
    command = [sys.executable, '-c', MAIN_WITH_REPORT, str(ROOT), '--config', config]
    for _ in range(10):
        with running(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            for _ in range(lines):
                assert process.stdout.readline()
            while process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
        assert (process.returncode, errors) == (0, '')


# While it runs


@pytest.mark.parametrize('options', [['--verbose'], []])
def test_requests_are_logged_only_with_verbose(
    start_server: StartServer, meter: SimulatedMeter, options: list[str]
) -> None:
    """--verbose logs client, method, path and status of every request; without it requests have no line."""
    server = start_server(meter.port, *options, server={'user': 'me', 'password': 'geheim'})
    assert server.get('/telegram', {'Authorization': 'Basic bWU6Z2VoZWlt'}).status == 200
    assert server.get('/nothing', method='HEAD').status == 401
    assert server.only_response('GET\r\n\r\n').status == 400
    if options:
        wait_for(lambda: 'no request: 400' in server.log)
    assert server.stop() == 0
    requests = [
        '127.0.0.1: GET /telegram: 200',
        '127.0.0.1: HEAD /nothing: 401',
        '127.0.0.1: no request: 400',
    ]
    if not options:
        requests = []
    lines = [line.split(' ', 2)[2] for line in server.log.splitlines()]
    assert [line for line in lines if line.startswith('127.0.0.1')] == requests
    assert 'geheim' not in server.log
    assert 'bWU6' not in server.log


def test_it_survives_the_end_of_its_shell(meter: SimulatedMeter, tmp_path: Path) -> None:
    """With nohup, in the background and its three streams on /dev/null, it survives SIGHUP and serves."""
    port = free_port()
    config = write_config(tmp_path, {'port': meter.port}, {'port': port})
    script = 'nohup "$0" "$@" </dev/null >/dev/null 2>&1 & echo $!; wait $!'
    with running(
        'sh', '-c', script, *SERVER_COMMAND, '--config', config, stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout
        server = int(shell.stdout.readline())
        try:
            wait_for(lambda: accepts_connections(port))
            os.kill(server, signal.SIGHUP)
            assert telegram(port).startswith(b'/')
        finally:
            os.kill(server, signal.SIGTERM)
        assert shell.wait(PATIENCE) == 0


def test_a_full_disk_does_not_keep_it_from_serving(meter: SimulatedMeter, tmp_path: Path) -> None:
    """When stdout and stderr cannot be written, like nohup.out on a full disk, it serves nevertheless."""
    port = free_port()
    config = write_config(tmp_path, {'port': meter.port}, {'port': port})
    with (
        Path('/dev/full').open('w') as full,
        running(*SERVER_COMMAND, '--verbose', '--config', config, stdout=full, stderr=full),
    ):
        wait_for(lambda: accepts_connections(port))
        assert telegram(port).startswith(b'/')


def test_it_needs_no_writable_folder(meter: SimulatedMeter, tmp_path: Path) -> None:
    """Started in a folder that nobody can write to, not even root, it serves."""
    port = free_port()
    config = write_config(tmp_path, {'port': meter.port}, {'port': port})
    with running(
        *SERVER_COMMAND,
        '--config',
        config,
        stdout=subprocess.DEVNULL,
        cwd='/proc',
        env={'HOME': '/proc'},
    ):
        wait_for(lambda: accepts_connections(port))
        assert telegram(port).startswith(b'/')


def test_a_forbidden_port_is_reported_at_once(meter: SimulatedMeter) -> None:
    """Without the rights to the port the response is 503 port_denied, with the command that grants them."""
    Path(meter.port).chmod(0)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(Path(folder), {'port': meter.port}, {'port': port})
        with running(
            *without_rights(), *SERVER_COMMAND, '--config', config, stdout=subprocess.DEVNULL
        ):
            wait_for(lambda: accepts_connections(port))
            with pytest.raises(urllib.request.HTTPError) as caught:
                telegram(port)
            with caught.value as response:
                body = response.read().decode()
    assert response.status == 503
    assert '"port_denied"' in body
    assert 'usermod' in body
