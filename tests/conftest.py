"""What holds for all tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def pytester(
    pytester: pytest.Pytester, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Have inner runs, too, go without the plugins that pyproject.toml blocks; `-p name` lets one in."""
    blocked = [argument for argument in pytestconfig.getini("addopts") if argument.startswith("no:")]
    blocked += ["no:hypothesispytest"]  # takes seconds at the end of each run
    monkeypatch.setenv("PYTEST_ADDOPTS", " ".join(f"-p {argument}" for argument in blocked))
    return pytester
