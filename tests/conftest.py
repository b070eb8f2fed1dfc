"""what every test may use"""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

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
