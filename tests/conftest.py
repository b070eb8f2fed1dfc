"""what every test may use"""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

import support.lab

settings.register_profile("default", max_examples=100, deadline=None)
settings.register_profile("ci", max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", max_examples=100_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def needs(program: str, package: str | None = None) -> None:
    """Skip, naming the Debian package; fail instead where everything is required."""
    if shutil.which(program) is None:
        say = f"{program} is missing (Debian: apt-get install {package or program})"
        if os.environ.get("TRIPOST_REQUIRE") == "all":
            pytest.fail(say)
        pytest.skip(say)


@pytest.fixture(params=[1, 3], ids=["one process", "three processes"])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Has a test run twice: connections in the gateway's own process, and in three of their own."""
    monkeypatch.setattr(support.lab, "PROCESSES", request.param)
    return int(request.param)
