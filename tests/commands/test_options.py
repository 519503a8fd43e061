"""What both commands have in common: options, the file with the settings, and the simulated meter."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dsmr_rest import __version__
from dsmr_rest.commands import options
from dsmr_rest.commands.options import (
    DEMO_VERSION,
    common_arguments,
    configuration,
    settings_file,
    with_simulated_meter,
)
from dsmr_rest.config import Config, ConfigError, MeterSettings
from dsmr_rest.simulated.telegrams import VERSIONS
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests are not started by systemd with credentials."""
    monkeypatch.delenv('CREDENTIALS_DIRECTORY', raising=False)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """--version ends the command after one line."""
    with pytest.raises(SystemExit) as ended:
        common_arguments('x').parse_args(['--version'])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f'dsmr-rest-server {__version__}\n'


@pytest.mark.parametrize(
    ('arguments', 'version'),
    [([], None), (['--demo'], DEMO_VERSION)] + [(['--demo', name], name) for name in VERSIONS],
)
def test_the_demo_is_any_simulated_meter(arguments: list[str], version: str | None) -> None:
    """--demo alone is the usual meter, with a version that one, and without --demo there is none."""
    assert common_arguments('x').parse_args(arguments).demo == version


def test_another_demo_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A version that no simulated meter has is refused with all that there are."""
    with pytest.raises(SystemExit) as ended:
        common_arguments('x').parse_args(['--demo', '6.0'])
    assert ended.value.code == 2
    assert 'must be one of: ' + ', '.join(VERSIONS) in capsys.readouterr().err


def test_a_named_file_is_the_settings_file(tmp_path: Path) -> None:
    """--config names the file, whose settings are read."""
    file = tmp_path / 'my.ini'
    file.write_text('[meter]\nport = /dev/ttyUSB7\n')
    arguments = common_arguments('x').parse_args(['--config', str(file)])
    assert settings_file(arguments) == file
    assert configuration(arguments).meter.port == '/dev/ttyUSB7'


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """A file that is named and missing is an error, not a reason for defaults."""
    arguments = common_arguments('x').parse_args(['--config', str(tmp_path / 'missing.ini')])
    with pytest.raises(ConfigError, match=r'missing\.ini'):
        configuration(arguments)


def test_the_file_beside_the_script_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --config the file is config.ini beside the script that was started."""
    monkeypatch.setattr(sys, 'argv', [str(ROOT / 'dsmr_rest_server.py')])
    arguments = common_arguments('x').parse_args([])
    assert settings_file(arguments) == ROOT / 'config.ini'


def test_the_help_says_when_the_file_beside_the_script_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has the path of the file that would be read, and what holds as long as there is none."""
    monkeypatch.setattr(options, 'SCRIPTS', tmp_path)
    monkeypatch.setattr(sys, 'argv', [str(tmp_path / 'dsmr_rest_server.py')])
    shown = common_arguments('x').format_help()
    assert f'{tmp_path}/config.ini\nwhich does not exist now' in shown
    assert settings_file(common_arguments('x').parse_args([])) is None


def test_an_installed_command_has_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A command that was started from elsewhere has no file, and every setting has its default."""
    monkeypatch.setattr(sys, 'argv', [str(tmp_path / 'dsmr-rest-server')])
    (tmp_path / 'config.ini').write_text('[meter]\nport = /dev/other\n')
    arguments = common_arguments('x').parse_args([])
    assert settings_file(arguments) is None
    assert configuration(arguments) == Config()


def test_the_simulated_meter_replaces_the_port() -> None:
    """The settings get the port of a meter that is there until the stack ends, and no settings of another line."""
    meter = MeterSettings(port='/dev/mine', line='9600 7E1', time_zone='UTC', timeout=5.0)
    config = Config(meter=meter)
    with ExitStack() as stack:
        with_meter = with_simulated_meter(config, '5.0', stack)
        assert Path(with_meter.meter.port).exists()
        assert (with_meter.meter.line, with_meter.meter.specification) == ('auto', 'auto')
        assert with_meter.meter.time_zone == 'Europe/Amsterdam'
        assert with_meter.meter.timeout == 5.0
        assert with_meter.server == config.server
    assert not Path(with_meter.meter.port).exists()
