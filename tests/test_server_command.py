"""dsmr_rest_server.py as a user, a shell or systemd starts and ends it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, StartServer, free_port, new_meter, wait_for, wait_together

from dsmr_rest.simulated_meter import SimulatedMeter

SERVER = [sys.executable, str(ROOT / 'dsmr_rest_server.py')]
KEY = '0123456789abcdef0123456789abcdef'
SECONDS_TO_STOP = 2
SECONDS_TO_CONNECT = 5  # that pyserial gives a peer


def config(folder: Path, port: str = '/dev/serial/none', meter: str = '', server: str = 'port = 0') -> str:
    """A config.ini; the path of it."""
    file = folder / 'config.ini'
    file.write_text(f'[meter]\nport = {port}\n{meter}\n[server]\nhost = 127.0.0.1\n{server}\n')
    return str(file)


def refused(*options: str) -> str:
    """What the server, which does not start, says on stderr: one line."""
    ended = subprocess.run([*SERVER, *options], capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2, ended.stderr
    assert not ended.stdout
    assert ended.stderr.count('\n') == 1 and ended.stderr.endswith('\n')
    return ended.stderr


def telegram(port: int) -> bytes:
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/telegram', timeout=10) as answer:
        return bytes(answer.read())


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(('127.0.0.1', port), timeout=5):
        return True
    return False


@contextmanager
def running(*command: str, **options: Any) -> Iterator['subprocess.Popen[str]']:
    """A process that does not outlive the block."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ('settings', 'named'),
    [
        ({'meter': 'max_age = nan'}, 'max_age = nan'),
        ({'meter': 'prot = /dev/ttyUSB0'}, 'prot'),
        ({'server': 'port = 0\ncertificate = none.pem\nprivate_key = none.pem'}, 'none.pem'),
    ],
)
def test_a_wrong_setting_is_one_line_and_status_2(settings: dict[str, str], named: str, tmp_path: Path) -> None:
    """The server does not start on a configuration that is not right, and says in one line why."""
    assert named in refused('--config', config(tmp_path, **settings))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """--config with a file that is not there ends with status 2 and the file's name."""
    assert 'none.ini' in refused('--config', str(tmp_path / 'none.ini'))


def test_a_decryption_key_is_never_shown(tmp_path: Path) -> None:
    """Not even a key that is refused is shown."""
    complaint = refused('--config', config(tmp_path, meter=f'decryption_key = {KEY}f'))
    assert 'decryption_key' in complaint and KEY not in complaint


@pytest.mark.parametrize(
    'host',
    [
        '192.0.2.1',
        '[::1]',
        'two..dots',
    ],
)
def test_a_host_that_cannot_be_listened_on_is_refused(host: str, tmp_path: Path) -> None:
    """A host that is no address of this machine, or no name at all, is one line and status 2."""
    file = config(tmp_path)
    Path(file).write_text(Path(file).read_text().replace('127.0.0.1', host))
    refused('--config', file)


def test_an_address_in_use_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    """A second server on the same address is told so in one line that names the address."""
    port = start_server('/dev/serial/none').port
    complaint = refused('--config', config(tmp_path, server=f'port = {port}'))
    assert 'in use' in complaint
    assert str(port) in complaint


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(number: signal.Signals, start_server: StartServer) -> None:
    """SIGTERM and SIGINT end it within 2 s, while requests wait: they get 503 stopping."""
    with new_meter(interval=30) as meter:
        server = start_server(meter.port)
        assert server.process.stdout
        with ThreadPoolExecutor(8) as pool:
            waiting = wait_together(server, pool, 8)
            server.process.send_signal(number)
            assert server.process.wait(SECONDS_TO_STOP) == 0
            replies = [each.result() for each in waiting]
        assert [(reply.status, reply.json['code']) for reply in replies] == [(503, 'stopping')] * 8
        assert all('Retry-After' in reply.headers for reply in replies)
        assert server.process.stdout.read() == '', 'more than one line on stdout'
        server.process.stdout.close()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_the_port_is_being_opened(number: signal.Signals, start_server: StartServer) -> None:
    """A peer that takes no connection holds up neither the end nor the answers."""
    with socket.socket() as peer, ThreadPoolExecutor(1) as pool:
        peer.bind(('127.0.0.1', 0))
        peer.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:  # what the backlog holds; behind it the system answers nobody
            each.setblocking(False)
            each.connect_ex(peer.getsockname())
        server = start_server('socket://{}:{}'.format(*peer.getsockname()))
        assert server.process.stdout
        waiting = pool.submit(server.get, '/')
        wait_for(lambda: server.health['waitingRequests'] == 1)
        server.process.send_signal(number)
        assert server.process.wait(SECONDS_TO_CONNECT - 1) == 0
        assert waiting.result().json['code'] == 'stopping'
        server.process.stdout.close()
        for each in fillers:
            each.close()


def test_a_signal_ends_it_at_any_moment_of_the_start(tmp_path: Path) -> None:
    """From the line that says it serves on, SIGTERM gives status 0."""
    for _ in range(3):
        with running(*SERVER, '--config', config(tmp_path), stdout=subprocess.PIPE) as process:
            assert process.stdout and 'http' in process.stdout.readline()
            process.terminate()
            assert process.wait(SECONDS_TO_STOP) == 0


def test_demo_serves_a_meter_without_hardware(start_server: StartServer) -> None:
    """--demo answers with readings of a simulated meter, whatever port the configuration names."""
    server = start_server('/dev/serial/none', '--demo', meter={'line': '9600 7E1', 'specification': 'V2_2'})
    reply = server.get('/')
    assert reply.status == 200
    assert reply.json['p1MessageHeader']['value'] == '50'


def test_one_line_with_the_addresses_it_serves(tmp_path: Path) -> None:
    """The start is one line on stdout, which names port and URL, and none on stderr."""
    file = config(tmp_path, meter=f'decryption_key = {KEY}')
    Path(file).chmod(0o600)
    with running(*SERVER, '--config', file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        line = process.stdout.readline()
        process.terminate()
        rest, errors = process.communicate(timeout=10)
    assert '/dev/serial/none' in line and 'http://127.0.0.1:' in line
    assert rest == errors == ''


RUN_AND_REPORT_THE_FIRST_LINE = """
import signal, sys
sys.path.insert(0, sys.argv.pop(1))
import dsmr_rest_server
block = signal.pthread_sigmask
def block_and_report(*arguments):
    block(*arguments)
    print('signals are blocked', flush=True)
signal.pthread_sigmask = block_and_report
sys.exit(dsmr_rest_server.main())
"""


@pytest.mark.parametrize('lines', range(1, 3))
def test_a_flood_of_signals_ends_it_once(lines: int, meter: SimulatedMeter, tmp_path: Path) -> None:
    """SIGTERM and SIGINT without a pause, from the first line of main() or while it serves: status 0 and no word."""
    command = [sys.executable, '-c', RUN_AND_REPORT_THE_FIRST_LINE, str(ROOT), '--config', config(tmp_path, meter.port)]
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


@pytest.mark.parametrize('verbose', [True, False])
def test_requests_are_logged_only_when_asked_for(
    start_server: StartServer, meter: SimulatedMeter, *, verbose: bool
) -> None:
    """--verbose logs client, method, path and status of each request, otherwise there is no such line."""
    server = start_server(meter.port, *(['--verbose'] if verbose else []), server={'user': 'me', 'password': 'geheim'})
    assert server.get('/telegram', {'Authorization': 'Basic bWU6Z2VoZWlt'}).status == 200
    assert server.get('/nothing', method='HEAD').status == 401
    assert server.stop() == 0
    for words in ('127.0.0.1', 'GET /telegram', '200'), ('127.0.0.1', 'HEAD /nothing', '401'):
        assert any(all(word in line for word in words) for line in server.log.splitlines()) == verbose
    assert 'geheim' not in server.log and 'bWU6' not in server.log


def test_it_lives_on_behind_nohup(meter: SimulatedMeter, tmp_path: Path) -> None:
    """With nohup, in the background, its three streams on /dev/null, it survives SIGHUP and serves."""
    port = free_port()
    file = config(tmp_path, meter.port, server=f'port = {port}')
    script = 'nohup "$0" "$@" </dev/null >/dev/null 2>&1 & echo $!; wait $!'
    with running('sh', '-c', script, *SERVER, '--config', file, stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        server = int(shell.stdout.readline())
        try:
            wait_for(lambda: listens(port))
            os.kill(server, signal.SIGHUP)
            assert telegram(port).startswith(b'/')
        finally:
            os.kill(server, signal.SIGTERM)
        assert shell.wait(10) == 0


def test_a_full_disk_does_not_keep_it_from_serving(meter: SimulatedMeter, tmp_path: Path) -> None:
    """When stdout and stderr take no byte, as nohup.out on a full disk, it serves nevertheless."""
    port = free_port()
    file = config(tmp_path, meter.port, server=f'port = {port}')
    with (
        Path('/dev/full').open('w') as full,
        running(*SERVER, '--verbose', '--config', file, stdout=full, stderr=full),
    ):
        wait_for(lambda: listens(port), 5)
        assert telegram(port).startswith(b'/')


def test_it_needs_no_folder_to_write_in(meter: SimulatedMeter, tmp_path: Path) -> None:
    """Started where nobody can write, not even root, it serves."""
    port = free_port()
    file = config(tmp_path, meter.port, server=f'port = {port}')
    with running(*SERVER, '--config', file, stdout=subprocess.DEVNULL, cwd='/proc', env={'HOME': '/proc'}):
        wait_for(lambda: listens(port))
        assert telegram(port).startswith(b'/')


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which('setpriv'), reason='needs root, to give its rights up')
def test_a_forbidden_port_is_told_at_once(meter: SimulatedMeter) -> None:
    """Without the rights to the port the answer is 503 port_denied, with the command that gives them."""
    Path(meter.port).chmod(0)
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = config(Path(folder), meter.port, server=f'port = {port}')
        without_rights = ['setpriv', '--bounding-set=-all', '--inh-caps=-all']
        with running(*without_rights, *SERVER, '--config', file, stdout=subprocess.DEVNULL):
            wait_for(lambda: listens(port))
            with pytest.raises(urllib.request.HTTPError) as caught:
                telegram(port)
            with caught.value as answer:
                body = answer.read().decode()
    assert answer.status == 503
    assert '"port_denied"' in body and 'usermod' in body
