"""What a server offers, and what a session knows: data for the commands to read and to move.

`Settings` are made once a server, so that no session computes anything of its own.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from .content import MAX_CONTENT_LINE
from .grammar import declared_body
from .replies import Reply

if TYPE_CHECKING:
    from .content import ContentStore, Receiver
    from .grammar import Parameters, Path
    from .lints import Lint
    from .sasl import Exchange, Identity, Users

#: RFC 5321 4.5.3.1.4, in octets with CRLF; extensions allow longer lines to single verbs.
MAX_COMMAND_LINE = 512

#: How many octets a message, and recipients a transaction, may have where nothing else is said: smtpd's
#: number, and Postfix's.
DATA_SIZE_DEFAULT, MAX_RECIPIENTS = 33_554_432, 1000

#: RFC 4954 4 demands 504; 538 5.7.11, 523 5.7.10 and 530 5.7.0 are seen as well.
ENCRYPTION_REQUIRED = Reply(504, "Error: encryption required for requested authentication mechanism", "5.5.4")

_HOSTNAME = re.compile(r"[!-~]+")
_LIMITS = (
    "data_size_limit",
    "line_size_limit",
    "max_recipients",
    "max_messages",
    "max_commands",
    "max_errors",
)

#: A user's address, or the addresses of a mailing list's members, by name.
Directory: TypeAlias = Mapping[str, "str | tuple[str, ...]"]

#: Command lines behind HELO, and behind EHLO, each with the event that it means there.
KnownLines: TypeAlias = "tuple[dict[bytes, Any], dict[bytes, Any]]"

#: Checks the value of a parameter (None: it has none) and returns the refusal, or None to accept; raises
#: GrammarError for a value that can't be read. Goes by the line and what `Command.judge` may go by.
ParameterCheck: TypeAlias = Callable[["str | None", "State"], "Reply | None"]


def check_limit(name: str, limit: float) -> None:
    """Raise ValueError for a limit that is negative, or no number; 0 is none."""
    if not limit >= 0:  # as NaN is not, either
        msg = f"{name} is 0 (for no limit) or more, not {limit}"
        raise ValueError(msg)


class Extension:
    """A service extension (RFC 5321 2.2): what EHLO says of it, and which parameters it brings."""

    def __init__(  # noqa: PLR0913 - by name, and most have one or two
        self,
        keyword: str,
        *,
        parameter: Callable[[Settings, bool], str | None] = lambda _settings, _secure: "",
        mail_parameters: Mapping[str, ParameterCheck] | None = None,
        rcpt_parameters: Mapping[str, ParameterCheck] | None = None,
        longer_lines: Mapping[str, int] | None = None,
        needs: str = "",
    ) -> None:
        self.keyword = keyword
        #: Returns what follows the keyword in the EHLO reply, given whether TLS is active; None: it is not offered now.
        self.parameter = parameter
        self.mail_parameters = mail_parameters or {}
        self.rcpt_parameters = rcpt_parameters or {}
        #: By how many octets it lengthens the command lines of a verb.
        self.longer_lines = longer_lines or {}
        #: The keyword of an extension without which this one may not be offered.
        self.needs = needs


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Settings:
    """What the server's sessions have in common, which changes for none of them.

    `data_size_limit` is in octets, 0 for none. `utf8_commands` says whether non-ASCII command lines are
    read as UTF-8; None: where SMTPUTF8 is offered (RFC 6531 3.1). `strict` refuses what clients must not
    send; otherwise it is accepted, and noted.
    """

    hostname: str = "localhost"
    data_size_limit: int = DATA_SIZE_DEFAULT
    max_recipients: int = MAX_RECIPIENTS
    strict: bool = False
    #: Octets of a command line with CRLF, to which extensions add (RFC 5321 4.5.3.1.4).
    command_size_limit: int = MAX_COMMAND_LINE
    #: Octets of a content line with CRLF that a strict server takes (RFC 5321 4.5.3.1.6); 0: any number.
    line_size_limit: int = MAX_CONTENT_LINE
    #: After how many commands a session ends, and after how many refused ones; 0: never.
    max_commands: int = 0
    max_errors: int = 0
    #: How many transactions a session may have; 0: any number.
    max_messages: int = 0
    #: Addresses of users and of the members of mailing lists by name, for VRFY and EXPN; None: there are none.
    directory: Directory | None = None
    #: Whether this is LMTP (RFC 2033).
    lmtp: bool = False
    #: Whether clients that said HELO may use ESMTP parameters all the same, which is noted.
    parameters_after_helo: bool = True
    #: Mechanisms of `sasl.MECHANISMS` to offer, in upper case.
    auth_mechanisms: tuple[str, ...] = ()
    #: Whether mechanisms that reveal the password may be used without TLS.
    auth_without_tls: bool = True
    #: What is answered to a mechanism that would reveal the password without TLS.
    encryption_required: Reply = ENCRYPTION_REQUIRED
    #: Passwords by user name; None accepts anybody. May raise `Refusal`.
    users: Users = None
    require_auth: bool = False
    require_tls: bool = False
    utf8_commands: bool | None = None
    extensions: tuple[Extension, ...] = ()
    # Derived:
    mail_parameters: dict[str, ParameterCheck] = field(init=False, default_factory=dict)
    rcpt_parameters: dict[str, ParameterCheck] = field(init=False, default_factory=dict)
    line_limits: dict[str, int] = field(init=False, default_factory=dict)
    longest_line: int = field(init=False)
    keywords: frozenset[str] = field(init=False)
    #: The replies to EHLO without and with TLS.
    ehlo_replies: tuple[Reply, Reply] = field(init=False)
    helo_reply: Reply = field(init=False)
    greeting: Reply = field(init=False)
    #: Command lines that sessions have read, without TLS and with it: what they mean there.
    known_lines: tuple[KnownLines, KnownLines] = field(
        init=False, repr=False, compare=False, default_factory=lambda: (({}, {}), ({}, {}))
    )

    def __post_init__(self) -> None:
        """Check the values, and join the extensions."""
        if not _HOSTNAME.fullmatch(self.hostname):
            msg = f"hostname is a domain or an address literal, not {self.hostname!r}"
            raise ValueError(msg)
        if self.command_size_limit < MAX_COMMAND_LINE:
            msg = (
                f"command_size_limit is {MAX_COMMAND_LINE} or more (RFC 5321 4.5.3.1.4), not {self.command_size_limit}"
            )
            raise ValueError(msg)
        for name in _LIMITS:
            check_limit(name, getattr(self, name))
        for extension in self.extensions:
            self.mail_parameters.update(extension.mail_parameters)
            self.rcpt_parameters.update(extension.rcpt_parameters)
            for verb, octets in extension.longer_lines.items():
                self.line_limits[verb] = self.line_limits.get(verb, self.command_size_limit) + octets
        # How much of a line a session holds at the most.
        self.longest_line = max(self.line_limits.values(), default=self.command_size_limit)
        self.keywords = frozenset(extension.keyword for extension in self.extensions)
        self.ehlo_replies = self._ehlo_reply(secure=False), self._ehlo_reply(secure=True)
        self.helo_reply = Reply(250, self.hostname)
        self.greeting = Reply(220, f"{self.hostname} {'LMTP' if self.lmtp else 'ESMTP'} pytest-smtpd-server")
        if self.utf8_commands is None:
            self.utf8_commands = "SMTPUTF8" in self.keywords

    def _ehlo_reply(self, *, secure: bool) -> Reply:
        offered = [(extension.keyword, extension.parameter(self, secure)) for extension in self.extensions]
        lines = [f"{keyword} {parameter}".strip() for keyword, parameter in offered if parameter is not None]
        return _welcome("\n".join([self.hostname, *lines]))

    def line_limit(self, verb: str) -> int:
        """Return how many octets a command line with this verb may have, CRLF included."""
        return self.line_limits.get(verb, self.command_size_limit)


@functools.lru_cache(32)
def _welcome(text: str) -> Reply:
    # Most servers of a test suite offer the same, and most of them the same with TLS as without.
    return Reply(250, text)


class RejectedRecipient(NamedTuple):
    """A recipient that was refused: the address as the client gave it, and the reply."""

    address: str
    reply: Reply


class Transaction:
    """A mail transaction (RFC 5321 3.3): what MAIL opened and RCPT filled."""

    __slots__ = ("chunks", "forward_parameters", "forward_paths", "lints", "parameters", "rejected", "reverse_path")

    def __init__(self, reverse_path: Path, parameters: Parameters, lints: dict[Lint, None]) -> None:
        self.reverse_path = reverse_path
        self.parameters = parameters
        self.lints = lints
        self.forward_paths: list[Path] = []
        #: The parameters of each forward path, in the same order.
        self.forward_parameters: list[Parameters] = []
        #: The recipients that were refused: by RCPT, or in LMTP by the reply after the content (RFC 2033 4.2).
        self.rejected: list[RejectedRecipient] = []
        #: Where chunks go, once the first has come (RFC 3030 2).
        self.chunks: ContentStore | None = None

    def to(self, path: Path, parameters: Parameters) -> Self:
        """Return the same transaction, with this recipient alone."""
        other = type(self)(self.reverse_path, self.parameters, self.lints)
        other.forward_paths, other.forward_parameters, other.rejected = [path], [parameters], self.rejected
        return other

    def reject(self, address: str, reply: Reply) -> None:
        """Note that a recipient was refused; of a client that goes on and on, no more than so many."""
        if len(self.rejected) < MAX_RECIPIENTS:
            self.rejected.append(RejectedRecipient(address, reply))

    @property
    def needs_chunks(self) -> bool:
        """Whether the content can't come with DATA: chunks have come, or it is binary (RFC 3030 3)."""
        return self.chunks is not None or self.is_binary

    @property
    def is_binary(self) -> bool:
        """Whether the client declared binary content, which has no lines (RFC 3030 3)."""
        return declared_body(self.parameters) == "BINARYMIME"


class State:
    """What a session knows of its client."""

    # What is read with each command is an attribute of the object, not a default of the class: that takes a quarter of
    # the time.
    __slots__ = (
        "closing",
        "commands",
        "errors",
        "esmtp",
        "exchange",
        "guarded",
        "helo",
        "identity",
        "known_lines",
        "lints",
        "messages",
        "most_commands",
        "receiving",
        "refused",
        "secure",
        "settings",
        "starting_tls",
        "transaction",
    )

    settings: Settings
    #: Command lines that mean the same wherever they stand in a session of this kind, by line.
    known_lines: dict[bytes, Any]

    def __init__(self, settings: Settings) -> None:
        #: What the client called itself in HELO or EHLO; None before.
        self.helo: str | None = None
        #: Whether it said EHLO.
        self.esmtp = False
        self.transaction: Transaction | None = None
        #: What takes the octets that come instead of commands, and the question once it has all of them.
        self.receiving: tuple[Receiver, Any] | None = None
        #: Whether TLS is active.
        self.secure = False
        #: Whether the handshake comes next, and no more commands.
        self.starting_tls = False
        #: The SASL exchange that goes on, and what the client claims to be in it.
        self.exchange: tuple[Exchange, Identity] | None = None
        #: As what it has authenticated.
        self.identity: Identity | None = None
        #: Whether the greeting said that there is no service: only QUIT is left (RFC 5321 3.1).
        self.refused = False
        #: Whether the last reply was sent.
        self.closing = False
        #: What it did against the rules outside of a transaction; a dict is an ordered set.
        self.lints: dict[Lint, None] = {}
        #: Commands, refused commands and transactions so far.
        self.commands = self.errors = self.messages = 0
        #: Whether there may be something that no command gets past; see `guards`.
        self.guarded = settings.require_tls or settings.require_auth
        self.go_by(settings)

    def go_by(self, settings: Settings) -> None:
        """Go by these settings from here on."""
        self.settings = settings
        #: How many commands there may be before something has to be refused.
        self.most_commands = settings.max_commands or math.inf
        self.speak(esmtp=self.esmtp)

    def speak(self, *, esmtp: bool) -> None:
        """Go on with extensions, as behind EHLO, or without."""
        self.esmtp = esmtp
        self.known_lines = self.settings.known_lines[self.secure][esmtp]

    @property
    def has_too_many_commands(self) -> bool:
        """Whether the client has sent more commands than a session may have."""
        return self.commands > self.most_commands

    @property
    def has_too_many_errors(self) -> bool:
        """Whether so many commands were refused that the session is to end."""
        return 0 < self.settings.max_errors <= self.errors

    def count_error(self) -> None:
        """Count a command that was refused."""
        self.errors += 1
        if self.has_too_many_errors:
            self.guarded = True

    def refuse_service(self) -> None:
        """Let nothing pass but QUIT from here on (RFC 5321 3.1)."""
        self.refused = self.guarded = True

    def note(self, lints: Iterable[Lint]) -> None:
        """Keep what the client did against the rules, with the transaction if there is one."""
        (self.transaction or self).lints.update(dict.fromkeys(lints))

    def secured(self) -> None:
        """Begin anew behind a TLS handshake: all that was learned without TLS is forgotten (RFC 3207 4.2)."""
        self.helo = None
        self.transaction = None
        self.identity = None
        self.exchange = None
        self.receiving = None
        self.starting_tls = False
        self.lints.clear()
        self.secure = True
        self.speak(esmtp=False)
