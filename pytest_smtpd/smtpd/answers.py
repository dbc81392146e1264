"""The usual answers to commands, as methods for subclasses of SMTPChannel to override and to call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_smtpd.protocol.session import Session


class UsualAnswers:
    """What a well-behaved server answers: each method pushes it."""

    session: Session

    def push(self, msg: str) -> None:
        """Reply."""
        raise NotImplementedError

    def _answer_as(self, verb: str, arg: str | None) -> None:
        """Push the answer that a well-behaved server gives to this command."""
        self.push(self.session.format(self.session.ask(verb, arg or "").reply))

    def smtp_EHLO(self, arg: str | None) -> None:
        """Answer EHLO."""
        self._answer_as("EHLO", arg)

    def smtp_HELO(self, arg: str | None) -> None:
        """Answer HELO."""
        self._answer_as("HELO", arg)

    def smtp_MAIL(self, arg: str | None) -> None:
        """Answer MAIL; `arg` is "FROM:<address> parameters"."""
        self._answer_as("MAIL", arg)

    def smtp_RCPT(self, arg: str | None) -> None:
        """Answer RCPT; `arg` is "TO:<address> parameters"."""
        self._answer_as("RCPT", arg)

    def smtp_DATA(self, arg: str | None) -> None:
        """Answer DATA."""
        self._answer_as("DATA", arg)

    def smtp_RSET(self, arg: str | None) -> None:
        """Answer RSET."""
        self._answer_as("RSET", arg)

    def smtp_NOOP(self, arg: str | None) -> None:
        """Answer NOOP."""
        self._answer_as("NOOP", arg)

    def smtp_QUIT(self, arg: str | None) -> None:
        """Answer QUIT."""
        self._answer_as("QUIT", arg)

    def smtp_HELP(self, arg: str | None) -> None:
        """Answer HELP."""
        self._answer_as("HELP", arg)

    def smtp_VRFY(self, arg: str | None) -> None:
        """Answer VRFY."""
        self._answer_as("VRFY", arg)

    def smtp_EXPN(self, arg: str | None) -> None:
        """Answer EXPN."""
        self._answer_as("EXPN", arg)
