"""Test suites that use a plugin's server, and what they cost beside those that use none."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.processes import ENVIRONMENT, BenchmarkError
from benchmarks.servers import OURS

if TYPE_CHECKING:
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
#: The plugin that each run has: it loads the one that is measured, as pytest would, and writes down what it has seen.
_CLOCK = """
import json
import sys
import time

import pytest

measured = {{"tests": []}}


def pytest_addoption(parser, pluginmanager):
    before, start = set(sys.modules), time.perf_counter()
    {load}
    measured["startup"] = time.perf_counter() - start
    measured["modules"] = sorted(set(sys.modules) - before)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol():
    start = time.perf_counter()
    result = yield
    measured["tests"].append(time.perf_counter() - start)
    return result


def pytest_unconfigure():
    with open("measured.json", "w") as file:
        json.dump(measured, file)
"""


@dataclass(frozen=True)
class Plugin:
    """A plugin by the name of its module, and how tests use the fixture in which it has a server."""

    module: str
    fixture: str
    address: str
    messages: str
    subject: str = "message['Subject']"

    @property
    def package(self) -> str:
        """The package that it is in."""
        return self.module.partition(".")[0]

    def is_installed(self) -> bool:
        """Tell whether it is there."""
        return importlib.util.find_spec(self.package) is not None


PLUGINS = {
    OURS: Plugin(
        "pytest_smtpd.plugin", "smtpd_server", "smtpd_server.address", "smtpd_server.messages", "message.subject"
    ),
    "smtpdfix": Plugin("smtpdfix.fixture", "smtpd", "(smtpd.hostname, smtpd.port)", "smtpd.messages"),
    "pytest-localserver": Plugin("pytest_localserver.plugin", "smtpserver", "smtpserver.addr", "smtpserver.outbox"),
}


@dataclass(frozen=True)
class Suite:
    """A directory of tests that pytest runs with no plugin but, where there is one, this."""

    directory: Path
    plugin: Plugin | None = None

    def run(self) -> dict[str, Any]:
        """Run it; return the seconds to load the plugin, the modules that this imports, and the seconds of each test."""
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "clock"],
            cwd=self.directory,
            env=ENVIRONMENT | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if ran.returncode not in {0, 5}:  # 5: there are no tests
            raise BenchmarkError(ran.stdout.decode())
        measured: dict[str, Any] = json.loads(self.directory.joinpath("measured.json").read_text("utf-8"))
        return measured


def make_suite(directory: Path, tests: int, plugin: Plugin | None = None, *, send: bool = False) -> Suite:
    """Write tests, in ten files if there are as many.

    Those of no plugin request a fixture that is nothing. Where `send` is true each sends a message and looks at it.
    """
    directory.mkdir()
    load = f'pluginmanager.import_plugin("{plugin.module}")' if plugin else "pass"
    directory.joinpath("pytest.ini").write_text("[pytest]\n", "utf-8")
    directory.joinpath("clock.py").write_text(_CLOCK.format(load=load), "utf-8")
    values = vars(plugin) if plugin else {"fixture": "nothing"}
    template = _SENDING if send else _EMPTY
    functions = [template.format(number=number, **values) for number in range(tests)]
    for file in range(min(10, tests)):
        directory.joinpath(f"test_{file}.py").write_text(_HEADER + "".join(functions[file::10]), "utf-8")
    return Suite(directory, plugin)
