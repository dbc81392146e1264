"""Test suites that use a plugin's server, and what they cost beside those that use none."""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.processes import ENVIRONMENT, BenchmarkError
from benchmarks.servers import OURS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: At the top of each file of tests.
_HEADER = """
import smtplib

import pytest


@pytest.fixture
def nothing():
    return None
"""
_EMPTY = """

def test_{number}({fixture}):
    pass
"""
_SENDING = """

def test_{number}({fixture}):
    with smtplib.SMTP(*{address}, local_hostname="client.example") as client:
        client.sendmail("ada@example.org", "bob@example.org", "Subject: {number}\\r\\n\\r\\nHello\\r\\n")
    [message] = {messages}
    assert {subject} == "{number}"
"""
_CONFTEST = """
import sys


def pytest_unconfigure():
    print("modules", *sys.modules)
"""


@dataclass(frozen=True)
class Plugin:
    """A plugin, and how tests use the fixture in which it has a server."""

    entry_point: str
    module: str
    fixture: str
    address: str
    messages: str
    subject: str = "message['Subject']"

    def is_installed(self) -> bool:
        """Tell whether it is there."""
        return importlib.util.find_spec(self.module) is not None


PLUGINS = {
    OURS: Plugin(
        "pytest_smtpd",
        "pytest_smtpd",
        "smtpd_server",
        "smtpd_server.address",
        "smtpd_server.messages",
        "message.subject",
    ),
    "smtpdfix": Plugin("smtpd", "smtpdfix", "smtpd", "(smtpd.hostname, smtpd.port)", "smtpd.messages"),
    "pytest-localserver": Plugin(
        "localserver", "pytest_localserver", "smtpserver", "smtpserver.addr", "smtpserver.outbox"
    ),
}


@dataclass(frozen=True)
class Run:
    """A run of pytest without any plugin but, where there is one, this."""

    directory: Path
    plugin: Plugin | None = None

    def time(self, clock: Callable[[], float]) -> float:
        """Return the seconds that it takes by this clock."""
        start = clock()
        self._run()
        return clock() - start

    def modules(self) -> set[str]:
        """Return the top-level names of the modules that are imported at the end."""
        [line] = [line for line in self._run().splitlines() if line.startswith("modules ")]
        return {name.partition(".")[0] for name in line.split()[1:]}

    def _run(self) -> str:
        # Plugins are not blocked one by one, as pytest takes "-p no:smtpd" for pytest_smtpd, too.
        name = self.plugin.entry_point if self.plugin else "nothing"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", name]
        environment = ENVIRONMENT | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        ran = subprocess.run(  # noqa: S603 - pytest
            command, cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        output = ran.stdout.decode()
        if ran.returncode not in {0, 5}:  # 5: there are no tests
            raise BenchmarkError(output)
        return output


def cpu_time() -> float:
    """Return the seconds that ended processes have had a CPU: what else the machine does, is of little matter to it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def added(run: Run, base: Run, times: int, clock: Callable[[], float] = perf_counter) -> float:
    """Return the seconds that one run takes longer than another, by the fastest of so many, which alternate."""
    pairs = [(run.time(clock), base.time(clock)) for _ in range(times)]
    return min(pair[0] for pair in pairs) - min(pair[1] for pair in pairs)


def make_suite(directory: Path, tests: int, plugin: Plugin | None = None, *, send: bool = False) -> Run:
    """Write tests, ten files of them if there are as many; return the run of them.

    Those of no plugin request a fixture that is nothing. Where `send` is true each sends a message and looks at it.
    """
    directory.mkdir()
    directory.joinpath("pytest.ini").write_text("[pytest]\n", "utf-8")
    directory.joinpath("nothing.py").touch()  # the plugin that is none
    directory.joinpath("conftest.py").write_text(_CONFTEST, "utf-8")
    values = vars(plugin) if plugin else {"fixture": "nothing"}
    template = _SENDING if send else _EMPTY
    functions = [template.format(number=number, **values) for number in range(tests)]
    for file in range(min(10, tests)):
        directory.joinpath(f"test_{file}.py").write_text(_HEADER + "".join(functions[file::10]), "utf-8")
    return Run(directory, plugin)
