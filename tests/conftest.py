"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest


def pytest_configure() -> None:
    """Have Ctrl-C work, which is ignored in what a shell runs in the background, and in all that this runs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def pytester(
    pytester: pytest.Pytester, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Have inner runs, too, go without the plugins that pyproject.toml blocks; `-p name` lets one in."""
    blocked = [argument for argument in pytestconfig.getini("addopts") if argument.startswith("no:")]
    blocked += ["no:hypothesispytest"]  # takes seconds at the end of each run
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p {argument}" for argument in blocked))
    return pytester
