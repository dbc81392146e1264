"""What a server offers, and what a session knows: data for the commands to read and to move.

`Settings` are made once a server, so that no session computes anything of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from .replies import Reply

if TYPE_CHECKING:
    from .content import MailData
    from .grammar import Parameters, Path
    from .lints import Lint

#: RFC 5321 4.5.3.1.4, in octets with CRLF; extensions allow longer lines to single verbs.
MAX_COMMAND_LINE = 512

#: Checks the value of a parameter (None: it has none) and returns the refusal, or None to accept.
ParameterCheck: TypeAlias = Callable[["str | None", "Settings"], "Reply | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """A service extension (RFC 5321 2.2): what EHLO says of it, and which parameters it brings."""

    keyword: str
    #: Returns what follows the keyword in the EHLO reply.
    parameter: Callable[[Settings], str] = lambda _settings: ""
    mail_parameters: Mapping[str, ParameterCheck] = field(default_factory=dict)
    rcpt_parameters: Mapping[str, ParameterCheck] = field(default_factory=dict)
    #: By how many octets it lengthens the command lines of a verb.
    longer_lines: Mapping[str, int] = field(default_factory=dict)
    #: The keyword of an extension without which this one may not be offered.
    needs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the server's sessions have in common.

    `data_size_limit` is in octets, 0 for none. `utf8_commands` says whether non-ASCII command lines are
    read as UTF-8; None: where SMTPUTF8 is offered (RFC 6531 3.1). `strict` refuses what clients must not
    send; otherwise it is accepted, and noted.
    """

    hostname: str = "localhost"
    data_size_limit: int = 33_554_432
    max_recipients: int = 1000
    strict: bool = False
    utf8_commands: bool | None = None
    extensions: tuple[Extension, ...] = ()
    # Derived:
    mail_parameters: dict[str, ParameterCheck] = field(init=False, default_factory=dict)
    rcpt_parameters: dict[str, ParameterCheck] = field(init=False, default_factory=dict)
    line_limits: dict[str, int] = field(init=False, default_factory=dict)
    longest_line: int = field(init=False)
    keywords: frozenset[str] = field(init=False)
    ehlo_reply: Reply = field(init=False)
    helo_reply: Reply = field(init=False)
    greeting: Reply = field(init=False)

    def __post_init__(self) -> None:
        """Join the extensions."""
        lines = [self.hostname]
        for extension in self.extensions:
            lines.append(f"{extension.keyword} {extension.parameter(self)}".rstrip())
            self.mail_parameters.update(extension.mail_parameters)
            self.rcpt_parameters.update(extension.rcpt_parameters)
            for verb, octets in extension.longer_lines.items():
                self.line_limits[verb] = self.line_limits.get(verb, MAX_COMMAND_LINE) + octets
        derive = object.__setattr__
        # How much of a line a session holds at the most.
        derive(self, "longest_line", max(self.line_limits.values(), default=MAX_COMMAND_LINE))
        derive(self, "keywords", frozenset(extension.keyword for extension in self.extensions))
        derive(self, "ehlo_reply", Reply(250, "\n".join(lines)))
        derive(self, "helo_reply", Reply(250, self.hostname))
        derive(self, "greeting", Reply(220, f"{self.hostname} ESMTP pytest-smtpd-server"))
        if self.utf8_commands is None:
            derive(self, "utf8_commands", "SMTPUTF8" in self.keywords)

    def line_limit(self, verb: str) -> int:
        """Return how many octets a command line with this verb may have, CRLF included."""
        return self.line_limits.get(verb, MAX_COMMAND_LINE)


@dataclass(slots=True)
class Transaction:
    """A mail transaction (RFC 5321 3.3): what MAIL opened and RCPT filled."""

    reverse_path: Path
    parameters: Parameters
    lints: dict[Lint, None]
    forward_paths: list[Path] = field(default_factory=list)
    #: The parameters of each forward path, in the same order.
    forward_parameters: list[Parameters] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """What a session knows of its client."""

    settings: Settings
    #: What the client called itself in HELO or EHLO; None before.
    helo: str | None = None
    #: Whether it said EHLO.
    esmtp: bool = False
    transaction: Transaction | None = None
    #: Where mail data is going; None while commands are expected.
    mail_data: MailData | None = None
    #: Whether the greeting said that there is no service: only QUIT is left (RFC 5321 3.1).
    refused: bool = False
    #: Whether the last reply was sent.
    closing: bool = False
    #: What it did against the rules outside of a transaction; a dict is an ordered set.
    lints: dict[Lint, None] = field(default_factory=dict)

    def note(self, lints: Iterable[Lint]) -> None:
        """Keep what the client did against the rules, with the transaction if there is one."""
        (self.transaction or self).lints.update(dict.fromkeys(lints))
