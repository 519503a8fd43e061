"""The files for a container, without building one: .ci/container does that."""

import re
from typing import Any

import yaml

from dsmr_rest.config import Config
from tests.conftest import ROOT
from tests.pages import OPERATIONS, section_of

CONTAINERFILE = (ROOT / 'Containerfile').read_text()
CONFIG_THERE = '/etc/dsmr-rest-server/config.ini'


def service() -> dict[str, Any]:
    """The one service of compose.yaml."""
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / 'compose.yaml').read_text())[
        'services'
    ]
    (only,) = services.values()
    return only


def test_the_service_has_no_privileges() -> None:
    """compose.yaml gives the container its device and nothing else: a read-only root and no capability."""
    settings = service()
    assert settings['read_only'] is True
    assert settings['cap_drop'] == ['ALL']
    assert settings['security_opt'] == ['no-new-privileges:true']
    assert not settings.keys() & {'privileged', 'cap_add', 'network_mode', 'pid', 'user'}


def test_the_device_is_the_port_of_the_settings() -> None:
    """The cable appears in the container under the name that config.ini has by default, also in the documentation."""
    port = Config().meter.port
    (device,) = service()['devices']
    assert device.endswith(f':{port}')
    assert f':{port} ' in section_of(OPERATIONS, 'Container')


def test_the_settings_are_where_the_image_reads_them() -> None:
    """The mounted file, in compose.yaml and in the documentation, is the one that the image's command names."""
    (mounted,) = service()['volumes']
    assert mounted == f'./config.ini:{CONFIG_THERE}:ro'
    assert mounted in section_of(OPERATIONS, 'Container')
    assert f'"--config", "{CONFIG_THERE}"]' in CONTAINERFILE


def test_the_build_sees_what_it_copies() -> None:
    """Each file that the Containerfile copies is let through by .containerignore, and exists."""
    allowed = (ROOT / '.containerignore').read_text().split()
    copied: list[str] = []
    for names in re.findall(r'^COPY (?!--from)(.+) \S+$', CONTAINERFILE, re.MULTILINE):
        copied += names.split()
    assert 'dsmr_rest' in copied
    for name in copied:
        assert f'!{name}' in allowed
        assert (ROOT / name).exists()
