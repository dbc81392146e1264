"""The pytest plugins: what they cost that are not used, and what tests cost that use them."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.race import Figure
from benchmarks.suites import PLUGINS, Plugin, make_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.race import Race

#: How many tests there are, and whether each sends a mail.
TESTS = {
    Figure("pertest-send", "ms", "less", 0.8, "best", absolute=True): (500, True),
    Figure("pertest-nosend", "ms", "less", 0.06, None, absolute=True): (500, False),
    Figure("firsttest-send", "ms", "less", 15, "best", absolute=True): (1, True),
}


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


@pytest.mark.parametrize("figure", TESTS, ids=attrgetter("name"))
def test_tests(race: Race, plugins: Mapping[str, Plugin], tmp_path: Path, figure: Figure) -> None:
    """Tests send a mail each, or only might; they are compared with as many that have a fixture that is nothing."""
    tests, send = TESTS[figure]
    count = race.scaled(tests)
    empty = make_suite(tmp_path / "empty", count)

    def prepare(plugin: Plugin) -> Callable[[], Sequence[float]]:
        suite = make_suite(tmp_path / plugin.package, count, plugin, send=send)
        suite.run()  # compiles what there is to compile
        return lambda: measure([(suite.run()["tests"], empty.run()["tests"]) for _ in range(race.scaled(3))])

    def measure(pairs: Sequence[tuple[float, float]]) -> Sequence[float]:
        fastest, fastest_empty = (min(seconds) for seconds in zip(*pairs, strict=True))
        return ((fastest - fastest_empty) * 1e3 / count,)

    race.pin()
    race.run([figure], plugins, prepare, rounds=5)
