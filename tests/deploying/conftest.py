"""what the tests of packages share: a fresh Debian 12, and our package, each made once"""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from support.debian import Tree, bookworm, build_package, copy


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """Nobody changes it."""
    root = tmp_path_factory.mktemp("fresh") / "debian"
    if wrong := bookworm(root):
        pytest.skip(wrong)
    yield Tree(root)
    subprocess.run(["rm", "-rf", str(root)], check=False)


@pytest.fixture
def debian(fresh: Tree, tmp_path: pathlib.Path) -> Iterator[Tree]:
    """A copy, to install things in."""
    with copy(fresh, tmp_path / "debian") as tree:
        yield tree


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return build_package(tmp_path_factory.mktemp("package"))
