"""How the product and its tests are laid out: where one looks for something, it is."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.distribution import LONGEST, TOGETHER

PRODUCT = ROOT / 'dsmr_rest'
MODULES = [path for path in sorted(PRODUCT.rglob('*.py')) if not path.stem.startswith('__')]
PACKAGES = sorted(PRODUCT.glob('*/__init__.py'))
MOST_ENTRIES = 15
"""Of the folder of the product: whoever lists it sees the architecture."""


def docstring(module: Path) -> str:
    return ast.get_docstring(ast.parse(module.read_text())) or ''


@pytest.mark.parametrize('module', MODULES, ids=lambda path: path.relative_to(PRODUCT).as_posix())
def test_a_module_has_its_tests_where_one_looks(module: Path) -> None:
    """The tests of a module are in a file of its name, in the folder of its package."""
    folder = module.relative_to(PRODUCT).parent
    assert (ROOT / 'tests' / folder / f'test_{module.stem}.py').is_file()


def test_the_folder_of_the_product_shows_the_architecture() -> None:
    """It has few entries."""
    entries = [path for path in PRODUCT.iterdir() if path.name != '__pycache__']
    assert len(entries) <= MOST_ENTRIES


@pytest.mark.parametrize('file', sorted({*LONGEST, *TOGETHER}))
def test_a_file_that_is_distributed_in_a_way_of_its_own_exists(file: str) -> None:
    """Under another name it would be distributed as all others are."""
    assert (ROOT / file).is_file()


@pytest.mark.parametrize('package', PACKAGES, ids=lambda path: path.parent.name)
def test_a_package_says_what_it_is_and_where_to_start(package: Path) -> None:
    """In three to six lines it says what it is for and what it must not know, and it names a place that exists."""
    said = docstring(package)
    assert 3 <= len(said.splitlines()) <= 6
    _, _, start = said.replace('\n', ' ').partition('Start reading at ')
    places = re.findall(r'`([\w.]+)`', start)
    assert places
    for place in places:
        module, *names = place.split('.')
        found = importlib.import_module(f'dsmr_rest.{package.parent.name}.{module}')
        for name in names:
            found = getattr(found, name)
