"""Rules: those that a server has been given. What they are made of is imported with the first one."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .faults import Call, Rule
    from .message import Message


class Rules:
    """The rules of a server, in the order in which they were given."""

    def __init__(self, call: Call) -> None:
        self._call = call
        #: All of them.
        self.given: list[Rule] = []

    def __iter__(self) -> Iterator[Rule]:
        """Iterate over the rules."""
        return iter(self.given)

    def __len__(self) -> int:
        """Return how many rules there are."""
        return len(self.given)

    def add(self, stage: str, match: Any, after_bytes: int | None, options: dict[str, Any]) -> Rule:
        """Add a rule behind the others; see `RecordingServer.on`."""
        __tracebackhide__ = True
        from .faults import make_rule

        rule = make_rule(stage, match, after_bytes, options, self._call)
        self.given.append(rule)
        return rule

    @property
    def marks(self) -> list[int]:
        """After how many octets of content there are rules, in ascending order."""
        return sorted({rule.after_bytes for rule in self.given if rule.after_bytes is not None})

    @property
    def unused(self) -> list[Rule]:
        """The rules that have never applied."""
        return [rule for rule in self.given if rule.is_unused]

    def find(self, stage: str, look: Callable[[], Message], mark: int | None = None) -> Rule | None:
        """Return the first rule that applies to an event of this stage; see `Rule.matches`. All of them count it."""
        look = functools.cache(look)
        found = None
        for rule in self.given:
            if rule.matches(stage, look, mark) and rule.window.admits(taken=found is not None):
                found = rule
        return found

    def clear(self) -> None:
        """Forget all rules."""
        self.given = []
