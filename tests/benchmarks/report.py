"""Tables of what benchmarks have measured, in Markdown.

    python tests/benchmarks/report.py results.json
    python tests/benchmarks/report.py old.json new.json

The first prints the figures of all servers beside what is required of ours. The second one tells what has become better
or worse from one run to the other, and exits with 1 if anything is worse by more than the tolerance. It goes by ratios
to the other servers of the same run, as the other run may have been on another machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

OURS, SINK = "ours", "smtp-sink"
_COLUMNS = ["measure", "best peer", "aiosmtpd", "smtp-sink (C)", "ours", "ratio", "required", "met"]
_COMPARED = ["measure", "ours before", "ours now", "to", "ratio before", "ratio now", "change"]
_NONE = "-"


@dataclass(frozen=True)
class Result:
    """A `Figure` with what was measured: for each server that stayed to the end, a value a round."""

    name: str
    unit: str
    better: Literal["more", "less"]
    required: float
    reference: str | None
    absolute: bool
    values: dict[str, list[float]]

    def median(self, server: str) -> float:
        """Return a server's figure."""
        return statistics.median(self.values[server])

    @property
    def best(self) -> str | None:
        """The best of the peers: of those in Python that others than us have made."""
        peers = [name for name in self.values if name not in {OURS, SINK}]
        return (max if self.better == "more" else min)(peers, key=self.median, default=None)

    def ratio(self, reference: str | None) -> float | None:
        """Return ours divided by the reference's, the median of the rounds; None if it has not taken part."""
        theirs = self.values.get(self.best if reference == "best" else reference)  # type: ignore[arg-type]
        if theirs is None:
            return None
        return statistics.median(our / their for our, their in zip(self.values[OURS], theirs, strict=True))

    @property
    def requirement(self) -> str:
        """What is required, such as "≥ 0.6 x C"."""
        relation = "≥" if self.better == "more" else "≤"
        if self.absolute:
            return f"{relation} {self.required:g}"
        of = {SINK: "C", "best": "best peer"}.get(str(self.reference), self.reference)
        return f"{relation} {self.required:g} x {of}"

    @property
    def is_met(self) -> bool | None:
        """Whether it is met; None where the reference has not taken part."""
        value = self.median(OURS) if self.absolute else self.ratio(self.reference)
        if value is None:
            return None
        return value >= self.required if self.better == "more" else value <= self.required


@dataclass(frozen=True)
class Report:
    """The results of a run."""

    results: list[Result]
    #: Who gave up where, and why.
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    #: What pytest-benchmark says of the run.
    run: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, infos: list[dict[str, Any]], run: dict[str, Any] | None = None) -> Report:
        """Make a report of what races have left as `extra_info`."""
        results = [Result(**figure) for info in infos for figure in info["figures"]]
        left_out = {info["figures"][0]["name"]: info["left_out"] for info in infos if info["left_out"]}
        return cls(results, left_out, run or {})

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read what `--benchmark-json` has written."""
        run = json.loads(path.read_text("utf-8"))
        return cls.of([benchmark["extra_info"] for benchmark in run["benchmarks"]], run)

    def table(self) -> str:
        """Return the table of all figures."""
        return _format(_COLUMNS, [_row(result) for result in self.results])

    def circumstances(self) -> str:
        """Return what belongs below the table: when, where and with what it was measured."""
        machine = self.run["machine_info"]
        servers = ", ".join(f"{name} {version}" for name, version in machine["servers"].items() if name != OURS)
        lines = [
            f"Measured on {self.run['datetime'][:10]} with Python {machine['python']} on {machine['system']}, {machine['cpu']}.",
            f"Others: {servers}.",
            *(self._explain(name) for name in self.left_out),
            f"By `{machine['command']}`.",
        ]
        return "\n".join(lines) + "\n"

    def _explain(self, name: str) -> str:
        reasons = "; ".join(f"{server} ({reason})" for server, reason in self.left_out[name].items())
        return f"Not in `{name}`: {reasons}."


def _row(result: Result) -> list[str]:
    best, ratio = result.best, result.ratio(result.reference)
    figures = {server: _number(result.median(server)) for server in result.values}
    return [
        f"`{result.name}`, {result.unit}",
        f"{figures[best]} ({best})" if best else _NONE,
        *(figures.get(server, _NONE) for server in ("aiosmtpd", SINK, OURS)),
        _NONE if ratio is None else f"{ratio:.2f}",
        result.requirement,
        {True: "yes", False: "**no**", None: "?"}[result.is_met],
    ]


def _number(value: float) -> str:
    """Return a number with three digits that count; what is less than a thousandth is none."""
    if abs(value) < 0.001:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _format(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@dataclass(frozen=True)
class Change:
    """What has become of a result."""

    old: Result
    new: Result

    @property
    def reference(self) -> str | None:
        """Whom both runs can be compared by: the reference, or else the best peer."""
        if self.new.reference is None:
            return None
        both = (self.old, self.new)
        usable = (
            name for name in (self.new.reference, "best") if all(result.ratio(name) is not None for result in both)
        )
        return next(usable, None)

    @property
    def loss(self) -> float | None:
        """How much worse it is: as a part of the ratio, or of what is required of the figure itself; None: no telling."""
        sign = -1 if self.new.better == "more" else 1
        old, new = self.old.ratio(self.reference), self.new.ratio(self.reference)
        if old is not None and new is not None:
            return sign * (new / old - 1)
        if self.new.absolute:
            return sign * (self.new.median(OURS) - self.old.median(OURS)) / (self.new.required or 1)
        return None

    def row(self, tolerance: float) -> list[str]:
        """Return a row of the table."""
        ratios = [result.ratio(self.reference) for result in (self.old, self.new)]
        return [
            f"`{self.new.name}`, {self.new.unit}",
            *(_number(result.median(OURS)) for result in (self.old, self.new)),
            self.reference or _NONE,
            *(_NONE if ratio is None else f"{ratio:.2f}" for ratio in ratios),
            _judge(self.loss, tolerance),
        ]


def _judge(loss: float | None, tolerance: float) -> str:
    if loss is None:
        return "not comparable"
    words = f"{abs(loss):.0%} {'worse' if loss > 0 else 'better'}"
    return f"**{words}**" if loss > tolerance else words


def compare(old: Report, new: Report, tolerance: float) -> tuple[str, bool]:
    """Return the table of what has changed in what both have measured, and whether anything is worse than tolerated."""
    before = {result.name: result for result in old.results}
    changes = [Change(before[result.name], result) for result in new.results if result.name in before]
    table = _format(_COMPARED, [change.row(tolerance) for change in changes])
    return table, any(change.loss is not None and change.loss > tolerance for change in changes)


def main(arguments: list[str] | None = None) -> int:
    """Print the report of one run, or compare two; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what --benchmark-json has written")
    parser.add_argument("later", type=Path, nargs="?", help="the same of a later run")
    parser.add_argument("--tolerance", type=float, default=0.1, help="how much worse is not worse yet (%(default)s)")
    options = parser.parse_args(arguments)
    report = Report.read(options.results)
    if options.later is None:
        print(report.table(), report.circumstances(), sep="\n", end="")  # noqa: T201
        return 0
    table, is_worse = compare(report, Report.read(options.later), options.tolerance)
    print(table, end="")  # noqa: T201
    return int(is_worse)


if __name__ == "__main__":
    sys.exit(main())
