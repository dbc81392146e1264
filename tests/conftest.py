"""What holds for all tests."""

from __future__ import annotations

import importlib
import pkgutil
import signal

import pytest

import pytest_smtpd


def pytest_configure() -> None:
    """Import the whole package, and have Ctrl-C work."""
    # What an inner run of pytester's imports first is forgotten behind it: later tests would have two of it.
    for module in pkgutil.walk_packages(pytest_smtpd.__path__, "pytest_smtpd."):
        importlib.import_module(module.name)
    # A shell has it ignored in what it runs in the background, and so in all that this runs.
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
