"""What a recording channel needs of its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pytest_smtpd.smtpd.interface import Server

if TYPE_CHECKING:
    from pytest_smtpd.network.connection import Address

    from .dialogue import Dialogue
    from .message import Message
    from .outbox import Generation, Outbox
    from .rules import Rules


class Recorder(Server, Protocol):
    """A server that records, as its channels see it."""

    messages: Outbox
    rules: Rules

    @property
    def has_hook(self) -> bool:
        """Whether a subclass answers messages."""

    def begin_dialogue(self, dialogue: Dialogue) -> Generation:
        """Keep what a client is going to say; return the generation to which it belongs."""

    def note_late(self, message: Message, generation: Generation) -> None:
        """Take notice of a message whose transaction began in this generation, which is over."""

    def note_aborted(self, peer: Address, mailfrom: str, rcpttos: list[str], generation: Generation) -> None:
        """Keep a transaction that was begun in this generation and not ended."""
