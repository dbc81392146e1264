"""Large messages: how fast, and how much memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from benchmarks.clients import CONTENT, send_large
from benchmarks.race import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.processes import Process
    from benchmarks.race import Race

MIB = 1024 * 1024
LINE = b"x" * 78 + b"\r\n"
#: From how many MiB on memory is compared: beside less stands out what any process needs for its first one.
LARGE = 25
#: The MiB of each message, what its lines are, and how fast it must be, as a multiple of smtp-sink.
MESSAGES = {
    "large-25m": (25, LINE, 1.5),
    "large-100m": (100, LINE, 1.5),
    "dots-25m": (25, b"." + LINE, 0.8),
    "longlines-25m": (25, b"x" * 998 + b"\r\n", 1.5),
    "shortlines-4m": (4, b"xx\r\n", 1.5),
}


def _measure(contestant: Callable[[], Process], content: bytes) -> Sequence[float]:
    """Return the megabytes a second, and the most memory that a message needs beyond what there was, as a multiple of it.

    The process is new, as what is left of an earlier message would be no news to it.
    """
    with contestant() as process:
        send_large(process, CONTENT)
        process.reset()
        process.forget_peak()
        before = process.status("VmRSS")
        seconds = send_large(process, content)
        process.expect(1)
        return len(content) / 1e6 / seconds, (process.status("VmHWM") - before) * 1024 / len(content)


@pytest.mark.parametrize("name", MESSAGES)
def test_large_messages(race: Race, servers: Mapping[str, Callable[[], Process]], name: str) -> None:
    """A client sends one message."""
    mebibytes, line, required = MESSAGES[name]
    figures = [Figure(name, "MB/s", "more", required, "smtp-sink")]
    if mebibytes >= LARGE:
        figures.append(Figure(f"{name}-memory", "x its size", "less", 1.1, None, absolute=True))
    content = line * (race.scaled(mebibytes * MIB, MIB) // len(line))
    race.run(figures, servers, lambda contestant: partial(_measure, contestant, content), rounds=5)
