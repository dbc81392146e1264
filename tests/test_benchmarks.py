"""The benchmarks run, and their reports tell what they have measured. No test here depends on how long anything takes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points, version
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest
from benchmarks import inside
from benchmarks.processes import BenchmarkError, PythonProcess
from benchmarks.race import SINK, Figure, Race
from benchmarks.report import Report, Result, compare, main
from benchmarks.servers import OURS, SERVERS, Server, is_installed
from packaging.version import Version
from readme import BLOCKS, README
from tools import missing, search_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: The commands that the README gives.
[COMMANDS] = [code.splitlines() for language, code in BLOCKS if language == "text" and "benchmark-json" in code]

#: What is measured with Postfix's smtp-source.
BY_SOURCE = ["throughput-1conn", "throughput-10conn", "throughput-100conn", "connpermsg-1", "connpermsg-10"]
#: What is measured in any case.
FIGURES = [
    *("pipelined-1conn", "smtplib-connpermsg", "inproc-1conn", "inproc-connpermsg", "inproc-tls-auth", "latency"),
    *("large-25m", "large-25m-memory", "large-100m", "large-100m-memory", "dots-25m", "dots-25m-memory"),
    *("longlines-25m", "longlines-25m-memory", "shortlines-4m"),
    *("startstop", "startstop-open", "idle-1000-connect", "idle-1000-memory", "idle-1000-threads"),
    *("plugin-startup", "plugin-startup-modules", "pertest-send", "pertest-nosend", "firsttest-send"),
]


def run(command: str, *arguments: str, codes: Sequence[int] = (0,)) -> str:
    """Run a command of the README in the checkout; return what it prints."""
    program, *rest = shlex.split(command)
    module = {"python": [], "pytest": ["-m", "pytest", "-p", "no:cacheprovider"]}[program]
    # pytest-benchmark measures nothing in what it takes for a worker of pytest-xdist.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTEST_XDIST"))}
    ran = subprocess.run(  # noqa: S603 - from the README
        [sys.executable, *module, *rest, *arguments],
        cwd=README.parent,
        env=kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = ran.stdout.decode()
    assert ran.returncode in codes, output
    return output


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux' /proc")
def test_the_benchmarks_run(tmp_path: Path) -> None:
    """Each benchmark runs, here in its smallest size, and what it measures is in the JSON and in the reports."""
    if not entry_points(group="pytest11", name="benchmark"):
        missing("pytest-benchmark is not installed")
    if Version(version("pytest-benchmark")) < Version("5.1"):  # what pip finds for the oldest pytest
        missing("pytest-benchmark is too old")
    json_file = tmp_path / "new.json"
    _, benchmark, comparison = [command.replace("new.json", str(json_file)) for command in COMMANDS]

    printed = run(benchmark, "--scale=0")
    report = Report.read(json_file)
    names = {result.name for result in report.results}
    assert names == {*FIGURES, *(BY_SOURCE if search_tool("smtp-source") else [])}
    assert report.table() in printed

    for result in report.results:
        assert all(len(rounds) == 1 for rounds in result.values.values())
        assert OURS in result.values
        peer = SINK if result.reference == SINK and search_tool(SINK) else "smtpd"
        assert result.name.startswith(("plugin", "pertest", "firsttest", "inproc-tls")) or peer in result.values

    assert run(comparison, codes=(0, 1)).count("\n| `") == len(report.results)
    assert run(f"python tests/benchmarks/report.py {json_file}").startswith(report.table())


# Races.


class Stopwatch:
    """Stands for pytest-benchmark's fixture: it runs what it is to time."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, target: Any, args: tuple[str], *, setup: Any, teardown: Any, rounds: int) -> None:
        """Run the rounds."""
        for _ in range(rounds):
            setup()
            target(*args)
            teardown(*args)


REFUSAL = "552 too much"
RATE = Figure("rate", "messages/s", "more", 0.6, "smtp-sink")
TIME = Figure("time", "ms", "less", 2, None, absolute=True)


@pytest.fixture
def race() -> Race:
    """Return a race that nobody times."""
    return Race(Stopwatch(), scale=1, stack=contextlib.ExitStack())


def test_contestants_have_turns(race: Race) -> None:
    """In each round each contestant has a turn, and each is the first equally often."""
    turns: list[str] = []

    def prepare(name: str) -> Callable[[], tuple[float, float]]:
        def turn() -> tuple[float, float]:
            turns.append(name)
            return 1.0, len(turns)

        return turn

    names = ["a", OURS, "b"]
    race.run([RATE, TIME], {name: name for name in names}, prepare, rounds=3)
    rounds = [turns[start : start + 3] for start in (0, 3, 6)]
    assert [sorted(turns) for turns in rounds] == [sorted(names)] * 3
    assert sorted(turns[0] for turns in rounds) == sorted(names)
    rate, time = race.benchmark.extra_info["figures"]
    assert rate["values"] == dict.fromkeys(names, [1.0] * 3)
    assert sorted(chain(*time["values"].values())) == list(range(1, 10))


@pytest.mark.parametrize("fails", ["prepare", "turn"])
def test_a_peer_may_give_up(race: Race, fails: str) -> None:
    """A peer that can't do it is left out, with the reason, and the others go on."""

    def prepare(name: str) -> Callable[[], tuple[float]]:
        def turn() -> tuple[float]:
            if name == "b" and (fails == "prepare" or left.pop()):
                raise BenchmarkError(REFUSAL)
            return (1.0,)

        left = [True, False]
        if fails == "prepare":
            turn()
        return turn

    race.run([RATE], {name: name for name in ("a", OURS, "b")}, prepare, rounds=3)
    [rate] = race.benchmark.extra_info["figures"]
    assert rate["values"] == {"a": [1.0] * 3, OURS: [1.0] * 3}
    assert race.benchmark.extra_info["left_out"] == {"b": REFUSAL}


@pytest.mark.parametrize("name", [OURS, SINK])
def test_neither_this_server_nor_c_may_give_up(race: Race, name: str) -> None:
    """Where our server fails, or the one that it is compared with, the benchmark fails."""

    def prepare(contestant: str) -> Callable[[], tuple[float]]:
        if contestant == name:
            raise BenchmarkError(REFUSAL)
        return lambda: (1.0,)

    with pytest.raises(BenchmarkError, match=REFUSAL):
        race.run([RATE], {OURS: OURS, SINK: SINK}, prepare)


@pytest.mark.parametrize("name", [name for name, server in SERVERS.items() if is_installed(server)])
def test_what_was_sent_must_have_been_received(name: str) -> None:
    """A server that has not received as many messages as were sent has not done it."""
    with PythonProcess(SERVERS[name]) as process:
        assert process.run(inside.send_beside, 2, reconnect=True) > 0
        process.expect(2)
        with pytest.raises(BenchmarkError, match=r"^3 messages were sent, 2 received$"):
            process.expect(3)
        process.reset()
        process.expect(0)


def exit_process(_server: Server) -> None:
    """End the process."""
    os._exit(1)


def test_what_fails_in_another_process_fails_here() -> None:
    """An exception in a server's process is one here that says what happened; so is the end of the process."""
    with PythonProcess(SERVERS[OURS]) as process:
        with pytest.raises(BenchmarkError, match="'Ours' object has no attribute 'mailbox'"):
            process.run(attrgetter("mailbox"))
        with pytest.raises(BenchmarkError):
            process.run(exit_process)


# Reports.


def make(values: dict[str, list[float]], figure: Figure = RATE) -> Result:
    """Return the result of a race with these figures."""
    return Result(**dataclasses.asdict(figure), values=values)


MORE = {
    OURS: [70.0, 80.0, 1000.0],
    SINK: [100.0, 160.0, 1000.0],
    "aiosmtpd": [8.0, 9.0, 10.0],
    "smtpd": [1.0, 1.0, 9.0],
}


def test_ratios_are_those_of_rounds() -> None:
    """The ratio is the median of the rounds' ratios, which no noisy round moves."""
    assert make(MORE).ratio(SINK) == 0.7
    assert make(MORE).ratio("best") == make(MORE).ratio("aiosmtpd") == 80 / 9


def test_the_best_peer() -> None:
    """The best is the peer with the best median, the highest or the lowest as the figure has it, not C and not ours."""
    assert make(MORE).best == "aiosmtpd"
    assert make(MORE, TIME).best == "smtpd"
    assert make({OURS: [1.0], SINK: [2.0]}).best is None


@pytest.mark.parametrize(
    ("figure", "requirement", "is_met"),
    [
        (RATE, "≥ 0.6 x C", True),
        (replace(RATE, required=0.71), "≥ 0.71 x C", False),
        (replace(RATE, better="less"), "≤ 0.6 x C", False),
        (replace(RATE, better="less", required=0.7), "≤ 0.7 x C", True),
        (replace(RATE, reference="best", required=9), "≥ 9 x best peer", False),
        (replace(RATE, reference="aiosmtpd", required=8), "≥ 8 x aiosmtpd", True),
        (replace(RATE, absolute=True, required=80), "≥ 80", True),
        (replace(TIME, required=80), "≤ 80", True),
        (replace(TIME, required=79), "≤ 79", False),
    ],
)
def test_requirements(figure: Figure, requirement: str, is_met: bool) -> None:  # noqa: FBT001 - a parameter
    """What is required is of the ratio, or of the figure, and it is met or not."""
    result = make(MORE, figure)
    assert result.requirement == requirement
    assert result.is_met is is_met


def test_the_table() -> None:
    """The table has a row a figure: the servers', the ratio, what is required, and whether it is met."""
    results = [make(MORE), make({OURS: [1234.5]}), make({OURS: [2.345], "smtpd": [7.0]}, TIME)]
    assert Report(results).table().splitlines()[2:] == [
        "| `rate`, messages/s | 9 (aiosmtpd) | 9 | 160 | 80 | 0.70 | ≥ 0.6 x C | yes |",
        "| `rate`, messages/s | - | - | - | 1,234 | - | ≥ 0.6 x C | ? |",
        "| `time`, ms | 7 (smtpd) | - | - | 2.35 | - | ≤ 2 | **no** |",
    ]


@pytest.mark.parametrize(
    ("figure", "old", "new", "change"),
    [
        (RATE, {OURS: [70.0], SINK: [100.0]}, {OURS: [140.0], SINK: [200.0]}, "0% better"),
        (RATE, {OURS: [70.0], SINK: [100.0]}, {OURS: [65.0], SINK: [100.0]}, "7% worse"),
        (RATE, {OURS: [70.0], SINK: [100.0]}, {OURS: [70.0], SINK: [200.0]}, "**50% worse**"),
        (RATE, {OURS: [70.0], "smtpd": [1.0]}, {OURS: [140.0], "smtpd": [1.0], SINK: [9.0]}, "100% better"),
        (RATE, {OURS: [70.0], SINK: [100.0]}, {OURS: [7.0]}, "not comparable"),
        (replace(RATE, better="less"), {OURS: [8.0], SINK: [8.0]}, {OURS: [9.0], SINK: [8.0]}, "**12% worse**"),
        (replace(RATE, better="less"), {OURS: [8.0], SINK: [8.0]}, {OURS: [6.0], SINK: [8.0]}, "25% better"),
        (TIME, {OURS: [0.1]}, {OURS: [0.2]}, "5% worse"),
        (TIME, {OURS: [1.0]}, {OURS: [1.5]}, "**25% worse**"),
        (replace(TIME, required=0), {OURS: [0.0]}, {OURS: [1.0]}, "**100% worse**"),
        (replace(TIME, reference="best"), {OURS: [1.0], "a": [1.0]}, {OURS: [1.5], "a": [2.0]}, "25% better"),
    ],
)
def test_comparisons(figure: Figure, old: dict[str, list[float]], new: dict[str, list[float]], change: str) -> None:
    """Changes are those of the ratio to the reference or else to the best peer, or as parts of what is required."""
    table, is_worse = compare(Report([make(old, figure)]), Report([make(new, figure)]), tolerance=0.1)
    assert table.splitlines()[2].split(" | ")[-1] == f"{change} |"
    assert is_worse is change.startswith("**")


def write(path: Path, *results: Result) -> str:
    """Write what pytest-benchmark would; return the path."""
    machine: dict[str, Any] = {"python": "3.11.7", "system": "Linux x86_64", "cpu": "2 x Z80", "command": "pytest"}
    machine |= {"servers": {OURS: "1.0", "aiosmtpd": "1.4.6"}}
    figures = [dataclasses.asdict(result) for result in results]
    benchmarks = [{"extra_info": {"figures": figures, "left_out": {"smtpd": "552 too much"}}}]
    run = {"machine_info": machine, "benchmarks": benchmarks, "datetime": "2026-01-31T12:00:00+00:00"}
    path.write_text(json.dumps(run), "utf-8")
    return str(path)


def test_the_report_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one file the table is printed, and when, where and by which command it was measured."""
    assert main([write(tmp_path / "run.json", make(MORE))]) == 0
    assert capsys.readouterr().out == Report([make(MORE)]).table() + (
        "\nMeasured on 2026-01-31 with Python 3.11.7 on Linux x86_64, 2 x Z80.\n"
        "Others: aiosmtpd 1.4.6.\n"
        "Not in `rate`: smtpd (552 too much).\n"
        "By `pytest`.\n"
    )


@pytest.mark.parametrize(("tolerance", "code"), [("0.2", 1), ("0.3", 0)])
def test_the_report_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], tolerance: str, code: int) -> None:
    """With two files the changes are printed, of what is in both; the exit code is 1 if one is worse than tolerated."""
    old = write(tmp_path / "old.json", make({OURS: [70.0], SINK: [100.0]}), make({OURS: [1.0]}, TIME))
    new = write(tmp_path / "new.json", make({OURS: [105.0], SINK: [200.0]}))
    assert main([old, new, "--tolerance", tolerance]) == code
    change = "**25% worse**" if code else "25% worse"
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"| `rate`, messages/s | 70 | 105 | smtp-sink | 0.70 | 0.53 | {change} |"
    ]
