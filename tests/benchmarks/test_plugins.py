"""The pytest plugins: what they cost that are not used, and what tests cost that use them."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.race import Figure
from benchmarks.suites import PLUGINS, Plugin, Suite, make_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.race import Race

#: What tests take that send a mail each, and tests that only might; the first of them has the server started.
SEND = (
    Figure("pertest-send", "ms", "less", 0.8, "best", absolute=True),
    Figure("firsttest-send", "ms", "less", 15, "best", absolute=True),
)
NOSEND = (Figure("pertest-nosend", "ms", "less", 0.06, None, absolute=True),)


@pytest.fixture
def plugins() -> Mapping[str, Plugin]:
    """Return the plugins that are installed."""
    return {name: plugin for name, plugin in PLUGINS.items() if plugin.is_installed()}


def test_startup(race: Race, plugins: Mapping[str, Plugin], tmp_path: Path) -> None:
    """A plugin is loaded, and there are no tests."""

    def prepare(plugin: Plugin) -> Callable[[], Sequence[float]]:
        suite = make_suite(tmp_path / plugin.package, 0, plugin)
        suite.run()  # compiles what there is to compile
        return lambda: measure(plugin, [suite.run() for _ in range(race.scaled(3))])

    def measure(plugin: Plugin, runs: Sequence[Mapping[str, Any]]) -> Sequence[float]:
        foreign = {name.partition(".")[0] for name in runs[0]["modules"]} - {plugin.package}
        return min(run["startup"] for run in runs) * 1e3, len(foreign)

    race.pin()
    figures = [
        Figure("plugin-startup", "ms", "less", 1, None, absolute=True),
        Figure("plugin-startup-modules", "packages of others", "less", 0, None, absolute=True),
    ]
    race.run(figures, plugins, prepare)


@pytest.mark.parametrize("figures", [SEND, NOSEND], ids=["send", "nosend"])
def test_tests(race: Race, plugins: Mapping[str, Plugin], tmp_path: Path, figures: Sequence[Figure]) -> None:
    """Tests use the server of a plugin; they are compared with as many that have a fixture that is nothing."""
    count = race.scaled(500, 2)
    empty = make_suite(tmp_path / "empty", count)

    def prepare(plugin: Plugin) -> Callable[[], Sequence[float]]:
        suite = make_suite(tmp_path / plugin.package, count, plugin, send=figures is SEND)
        suite.run()  # compiles what there is to compile
        return lambda: measure(suite)

    def measure(suite: Suite) -> Sequence[float]:
        pairs = [(suite.run()["tests"], empty.run()["tests"]) for _ in range(race.scaled(3))]
        return _differences(*zip(*pairs, strict=True))

    race.pin()
    race.run(figures, plugins, prepare, rounds=5)


def _differences(used: Sequence[list[float]], empty: Sequence[list[float]]) -> Sequence[float]:
    """Return how many ms the tests but the first take longer, and the first, each by the fastest runs."""
    parts: list[Callable[[list[float]], float]] = [lambda tests: statistics.fmean(tests[1:]), lambda tests: tests[0]]
    return [(min(map(part, used)) - min(map(part, empty))) * 1e3 for part in parts]
