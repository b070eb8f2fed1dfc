"""a browser for the tests of a module"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from conftest import needs
from support.cdp import chromium


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Where Chromium's DevTools are spoken to; each test opens pages of its own, which share nothing."""
    needs("chromium")
    with chromium(tmp_path_factory.mktemp("browser")) as address:
        yield address
