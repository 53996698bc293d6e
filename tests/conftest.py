"""Shared fixtures: golden texts, rewritten with `pytest --update-golden`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

os.environ["WARPBEAM_MEASURED"] = "0"  # decisions are those of the assumed constants, on every machine
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)  # a busy machine is no failure
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the texts that golden tests compare with")
    parser.addoption("--slow", action="store_true", help="run the long suites too (so does -m slow)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long suites run where they are asked for."""
    if config.getoption("--slow") or "slow" in str(config.getoption("-m")):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="a long suite: --slow or -m slow"))


@pytest.fixture(autouse=True, scope="session")
def plans_are_checked() -> None:
    """Every Program that a test's process plans is replayed: no value may be overwritten before its last use."""
    from warpbeam.driver import plan_check

    plan_check.ALWAYS = True


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(name, text): compares text with the file golden/<name> next to the test; --update-golden writes it."""
    folder = Path(request.path).parent / "golden"

    def check(name: str, text: str) -> None:
        path = folder / name
        if request.config.getoption("--update-golden"):
            folder.mkdir(exist_ok=True)
            path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        assert path.exists(), f"{path} is missing; run pytest --update-golden and read what it writes"
        assert text.rstrip("\n") + "\n" == path.read_text(encoding="utf-8")

    return check
