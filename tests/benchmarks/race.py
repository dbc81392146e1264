"""Races: who takes part has turns, round by round, and what each turn took is kept for the report."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from benchmarks.processes import BenchmarkError, Process
from benchmarks.servers import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

#: How smtp-sink is called in races.
SINK = "smtp-sink"
_Contestant = TypeVar("_Contestant")


@dataclass(frozen=True)
class Figure:
    """What a race measures, and what is required of our server.

    `required` is the least, or the most where less is better: of the ratio to the reference, which is a server or the
    "best" of the peers; of the figure itself where it is `absolute`.
    """

    name: str
    unit: str
    better: Literal["more", "less"]
    required: float
    reference: Literal["smtp-sink", "aiosmtpd", "best"] | None
    absolute: bool = False


@dataclass
class Race:
    """One race. `scale` says how long it takes, `stack` is what happens at its end."""

    benchmark: Any
    scale: float
    stack: contextlib.ExitStack
    #: Who gave up, and why.
    left_out: dict[str, str] = field(default_factory=dict)

    def scaled(self, count: int, least: int = 1) -> int:
        """Return how many a race of this scale has where one of scale 1 has `count`."""
        return max(least, round(count * self.scale))

    def open(self, contestant: Callable[[], Process]) -> Any:
        """Start a server that takes part until the end."""
        return self.stack.enter_context(contestant())

    def pin(self) -> None:
        """Keep this process, and those that it starts from now on, to one CPU, where the system can do that.

        Where client and server take turns, nothing could be done by two: whether the scheduler still has one wake the
        other on another CPU, which takes longer than what is measured, would be its whim.
        """
        if hasattr(os, "sched_setaffinity"):
            cpus = os.sched_getaffinity(0)
            self.stack.callback(os.sched_setaffinity, 0, cpus)
            os.sched_setaffinity(0, {max(cpus)})

    def run(
        self,
        figures: Sequence[Figure],
        contestants: Mapping[str, _Contestant],
        prepare: Callable[[_Contestant], Callable[[], Sequence[float]]],
        rounds: int = 7,
    ) -> None:
        """Give each contestant a turn a round, after `prepare`, which returns what that is: it measures the figures.

        pytest-benchmark times our own turns; the others' are before and after, each as often in front as any.
        """
        turns = {}
        for name, contestant in contestants.items():
            with self._may_give_up(name):
                turns[name] = prepare(contestant)
        order = deque(turns)
        measured: dict[str, list[Sequence[float]]] = {name: [] for name in turns}

        def take_turn(name: str) -> None:
            if name not in self.left_out:
                with self._may_give_up(name):
                    measured[name].append(turns[name]())

        def before() -> None:
            order.rotate()
            for name in list(order)[: order.index(OURS)]:
                take_turn(name)

        def after(_: str) -> None:
            for name in list(order)[order.index(OURS) + 1 :]:
                take_turn(name)

        self.benchmark.pedantic(take_turn, (OURS,), setup=before, teardown=after, rounds=self.scaled(rounds))
        for name in self.left_out:
            measured.pop(name, None)
        self.benchmark.extra_info["left_out"] = self.left_out
        self.benchmark.extra_info["figures"] = [
            asdict(figure) | {"values": {name: [turn[index] for turn in turns] for name, turns in measured.items()}}
            for index, figure in enumerate(figures)
        ]

    @contextlib.contextmanager
    def _may_give_up(self, name: str) -> Iterator[None]:
        """Leave out a peer that can't do it; it is an error if this server can't, or smtp-sink."""
        try:
            yield
        except (BenchmarkError, OSError) as error:
            if name in {OURS, SINK}:
                raise
            self.left_out[name] = str(error).strip().splitlines()[-1]
