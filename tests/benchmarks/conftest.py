"""What benchmarks have in common: the option `--scale`, who takes part, and the table at the end."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tools import search_tool

from benchmarks.processes import PythonProcess, Sink
from benchmarks.race import SINK, Race
from benchmarks.report import Report
from benchmarks.servers import SERVERS, is_installed
from benchmarks.worker import allow_many_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.processes import Process

#: What has been measured so far.
_MEASURED = pytest.StashKey[list[dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--scale`."""
    text = "how long the benchmarks take: 1 for figures that last, 0.1 for a look, 0 to see whether they run"
    parser.addoption("--scale", type=float, default=1.0, metavar="FACTOR", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    config.stash[_MEASURED] = []
    allow_many_files()


def pytest_report_header() -> str:
    """Say who takes part."""
    return f"servers: {', '.join(_versions())}; not installed: {', '.join(_missing()) or 'none'}"


def _versions() -> dict[str, str]:
    """Return the versions of the servers that can take part."""
    versions = {name: server.version() for name, server in SERVERS.items() if is_installed(server)}
    return versions | ({SINK: _postfix_version()} if search_tool("smtp-sink") else {})


def _missing() -> list[str]:
    return [name for name in (*SERVERS, SINK) if name not in _versions()]


def _postfix_version() -> str:
    command = [search_tool("postconf") or "postconf", "-d", "-h", "mail_version"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()  # noqa: S603


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """Return what a report says of the run."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{os.cpu_count()} x {_cpu_model()}",
        "servers": _versions(),
        "command": shlex.join(["pytest", *map(str, config.invocation_params.args)]),
    }


def _cpu_model() -> str:
    """Return what Linux calls the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    found = cpuinfo.exists() and re.search(r"^model name\s*: (.*)", cpuinfo.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else platform.processor() or "CPU"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if measured := config.stash[_MEASURED]:
        terminalreporter.section("figures and what is required")
        terminalreporter.write(Report.of(measured).table())


@pytest.fixture
def race(request: pytest.FixtureRequest) -> Iterator[Race]:
    """Return a race that is to be run; what it has measured goes into the table."""
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.skip("benchmarks are run by `pytest -p benchmark tests/benchmarks`, which needs pytest-benchmark")
    benchmark = request.getfixturevalue("benchmark")
    benchmark.skipped = True  # no warning if a test is skipped, for want of a program
    if benchmark.disabled:
        pytest.skip("benchmarks are disabled, as they are by pytest-xdist")
    with contextlib.ExitStack() as stack:
        yield Race(benchmark, request.config.getoption("--scale"), stack)
    if "figures" in benchmark.extra_info:
        request.config.stash[_MEASURED].append(benchmark.extra_info)


@pytest.fixture(scope="session")
def python_servers() -> Mapping[str, Callable[[], PythonProcess]]:
    """Return what starts each server in Python that is installed, in a process of its own."""
    return {name: partial(PythonProcess, server) for name, server in SERVERS.items() if is_installed(server)}


@pytest.fixture(scope="session")
def servers(python_servers: Mapping[str, Callable[[], PythonProcess]]) -> Mapping[str, Callable[[], Process]]:
    """Return what starts each server that is installed."""
    return {**python_servers, **({SINK: Sink} if search_tool("smtp-sink") else {})}
