"""The pytest plugins: what they cost that are not used, and what tests cost that use them."""

from __future__ import annotations

from operator import attrgetter
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from benchmarks.race import Figure
from benchmarks.suites import PLUGINS, Plugin, added, cpu_time, make_suite

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
    """A plugin is installed, and there are no tests."""

    def prepare(plugin: Plugin) -> Callable[[], Sequence[float]]:
        run, base = make_suite(tmp_path / plugin.module, 0, plugin), make_suite(tmp_path / f"no-{plugin.module}", 0)
        foreign = run.modules() - base.modules() - {plugin.module}
        return lambda: (added(run, base, race.scaled(5), cpu_time) * 1e3, len(foreign))

    race.pin()
    figures = [
        Figure("plugin-startup", "ms of CPU", "less", 1, None, absolute=True),
        Figure("plugin-startup-modules", "packages of others", "less", 0, None, absolute=True),
    ]
    race.run(figures, plugins, prepare)


@pytest.mark.parametrize("figure", TESTS, ids=attrgetter("name"))
def test_tests(race: Race, plugins: Mapping[str, Plugin], tmp_path: Path, figure: Figure) -> None:
    """Tests send a mail each, or only might; they are compared with as many that have a fixture that is nothing."""
    tests, send = TESTS[figure]
    count = race.scaled(tests)
    base = make_suite(tmp_path / "base", count)

    def prepare(plugin: Plugin) -> Callable[[], Sequence[float]]:
        run = make_suite(tmp_path / plugin.module, count, plugin, send=send)
        run.time(perf_counter)  # compiles what there is to compile
        return lambda: (added(run, base, race.scaled(2)) * 1e3 / count,)

    race.pin()
    race.run([figure], plugins, prepare, rounds=5)
