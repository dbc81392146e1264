"""Write the README's tables of faults, of outcomes and of speed anew: `python tests/make_tables.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import Report
from outcomes import CASES, CLIENTS
from readme import README

from pytest_smtpd import smtp_faults
from pytest_smtpd.testing.catalogue import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: How faults are selected that need something of the client.
_ARGUMENTS = {"starttls": 'tls="starttls"', "tls": "tls=…", "auth": "auth=True", "timeout": "timeout=True"}

#: What the benchmarks have measured: `pytest -p benchmark tests/benchmarks --benchmark-json=tests/benchmarks/results.json`.
RESULTS = Path(__file__).parent / "benchmarks" / "results.json"


def make_tables() -> dict[str, str]:
    """Return each table by its name."""
    speed = Report.read(RESULTS)
    faults = smtp_faults(tls="starttls", auth=True, timeout=True)
    return {
        "kinds": _format(["kind", "what it is, and what a good sender makes of it"], KINDS.items()),
        "faults": _format(
            ["fault", "kind", "what happens", "if the client …"],
            (
                (f"`{fault.name}`", fault.kind, fault.description, _code(_ARGUMENTS[need] for need in sorted(fault.needs)))
                for fault in faults
            ),
        ),
        "outcomes": _format(
            ["stage", "actions", *CLIENTS],
            ([case.stage, f"`{case.code}`", *(getattr(case, client) for client in CLIENTS)] for case in CASES),
        ),
        "speed": f"{speed.table()}\n{speed.circumstances()}",
    }  # fmt: skip


def replace_tables(text: str) -> str:
    """Return the README's text with its tables as they ought to be; KeyError for a table that nobody knows."""
    tables = make_tables()
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{tables[match[2]]}{match[3]}",
        text,
        flags=re.DOTALL,
    )


def _code(items: Iterable[str]) -> str:
    return ", ".join(f"`{item}`" for item in items)


def _format(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    README.write_text(replace_tables(README.read_text("utf-8")), "utf-8")
