"""The options of a RecordingServer: their names, types and defaults, checked; and what follows from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.content import MAX_CONTENT_LINE
from pytest_smtpd.protocol.directory import EXPN
from pytest_smtpd.protocol.limits import LIMITS
from pytest_smtpd.protocol.state import DATA_SIZE_DEFAULT, MAX_COMMAND_LINE, MAX_RECIPIENTS, Settings, check_limit

from .security import Security
from .shown import show

if TYPE_CHECKING:
    from pytest_smtpd.protocol.state import Extension


class Configuration(Security):
    """All options of a server with their values.

    - `hostname` is what it calls itself, `protocol` what it speaks: "smtp" or "lmtp".
    - `hide` has the keywords of extensions not to offer, `advertise` lines that the EHLO reply has in addition,
      such as "XFOO bar", and nothing behind them. `hide_after_tls` and `advertise_after_tls` stand for them where
      TLS is active; by default there is no difference. `strict` refuses whatever clients must not send,
      where it is otherwise accepted and noted in `Message.lints`.
    - `command_size_limit` is how many octets a command line may have, CRLF included; extensions add to it.
    - Limits, 0 for none: `data_size_limit` (octets of a message), `line_size_limit` (octets of a content line
      with CRLF that a strict server takes), `max_recipients` (of a message), `max_messages`, `max_commands`
      and `max_errors` (of a session), `max_connections` (at once), `timeout` (seconds that a client may be
      silent). If they are given, `max_recipients` and `max_messages` are announced (LIMITS, RFC 9422).
    - `wait_timeout` is for how many seconds `wait_for` and its like wait where nothing else is said.
    - `proxy_protocol` expects HAProxy's PROXY header in front of each session.
    - `allow_unused_rules` lets tests pass that have rules which never applied.
    - `directory` has addresses by name, or lists of them, which VRFY and EXPN then know.
    - Those of TLS and AUTH are the options of `Security`.

    Raises ValueError for values that make no sense.
    """

    #: What sessions that follow go by.
    settings: Settings

    hostname: str = "localhost"
    protocol: Literal["smtp", "lmtp"] = "smtp"
    hide: Collection[str] = ()
    hide_after_tls: Collection[str] | None = None
    advertise: Collection[str] = ()
    advertise_after_tls: Collection[str] | None = None
    strict: bool = False
    data_size_limit: int = DATA_SIZE_DEFAULT
    command_size_limit: int = MAX_COMMAND_LINE
    line_size_limit: int = MAX_CONTENT_LINE
    max_recipients: int | None = None
    max_messages: int | None = None
    max_commands: int = 1_000_000
    max_errors: int = 0
    max_connections: int = 2000
    timeout: float = 300.0
    wait_timeout: float = 5.0
    proxy_protocol: bool = False
    allow_unused_rules: bool = False
    directory: Mapping[str, str | Collection[str]] | None = None

    def __eq__(self, other: object) -> bool:
        """Compare all options, also those that follow from others."""
        return isinstance(other, Configuration) and all(getattr(self, name) == getattr(other, name) for name in KINDS)

    __hash__ = None  # type: ignore[assignment]

    def _settle(self) -> None:
        """Check what `Settings` doesn't, too."""
        super()._settle()
        if self.protocol not in {"smtp", "lmtp"}:
            msg = f"protocol is 'smtp' or 'lmtp', not {self.protocol!r}"
            raise ValueError(msg)
        for name in ("max_connections", "timeout", "wait_timeout"):
            check_limit(name, getattr(self, name))
        self.settings = self._make_settings()

    def _make_settings(self) -> Settings:
        announces_limits = self.max_recipients is not None or self.max_messages is not None
        configured = [*self.extensions]
        configured += [LIMITS] if announces_limits else []
        configured += [] if self.directory is None else [EXPN]
        return Settings(
            hostname=self.hostname,
            lmtp=self.protocol == "lmtp",
            strict=self.strict,
            data_size_limit=self.data_size_limit,
            command_size_limit=self.command_size_limit,
            line_size_limit=self.line_size_limit,
            max_recipients=MAX_RECIPIENTS if self.max_recipients is None else self.max_recipients,
            max_messages=self.max_messages or 0,
            max_commands=self.max_commands,
            max_errors=self.max_errors,
            extensions=self._announce(configured),
            directory=None if self.directory is None else _copy_directory(self.directory),
            **self.security_settings,
        )

    def _announce(self, configured: list[Extension]) -> tuple[Extension, ...]:
        hide = self.hide if self.hide_after_tls is None else self.hide_after_tls
        advertise = self.advertise if self.advertise_after_tls is None else self.advertise_after_tls
        before = extensions.announced(extensions.without(self.hide, configured), extensions.without(hide, configured))
        early = [extensions.only(extensions.invented(line), secure=False) for line in self.advertise]
        late = [extensions.only(extensions.invented(line), secure=True) for line in advertise]
        return (*before, *early, *late)


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of options, which nobody else can change; only users may come and go.

    Raises TypeError for a name that no option has and for a value of a wrong type; the text names the option.
    """
    __tracebackhide__ = True
    return {name: _read_option(name, value, KINDS) for name, value in options.items()}


def configure(options: Mapping[str, Any]) -> Configuration:
    """Return the configuration with these options, which `read_options` has read; all others have their defaults.

    Raises ValueError for a value that makes no sense; the text names the option.
    """
    __tracebackhide__ = True
    if all(isinstance(value, _LASTING) for value in options.values()):
        return _make_configuration(tuple(options.items()))
    return Configuration(**options)


@functools.lru_cache(32)
def _make_configuration(given: tuple[tuple[str, Any], ...]) -> Configuration:
    """Make a configuration once: most servers of a test suite have the same few."""
    __tracebackhide__ = True
    return Configuration(**dict(given))


def check_mapping(options: object) -> Mapping[str, Any]:
    """Return options by name; raises TypeError for what is something else."""
    if not isinstance(options, Mapping):
        hint = ": is a return missing?" if options is None else ""
        msg = f"options are a dict, not {options!r}{hint}"
        raise TypeError(msg)
    return options


def check_options(options: object) -> None:
    """Raise TypeError or ValueError as `RecordingServer` would; `host` and `port` may be among the options."""
    kinds = KINDS | ADDRESS_KINDS
    checked = {name: _read_option(name, value, kinds) for name, value in check_mapping(options).items()}
    configure({name: value for name, value in checked.items() if name not in ADDRESS_KINDS})


def check_address(host: object, port: object) -> None:
    """Raise TypeError for what is no host or no port."""
    _read_option("host", host, ADDRESS_KINDS)
    _read_option("port", port, ADDRESS_KINDS)


def parse_option(name: str, text: str) -> Any:
    """Read the value of an option from a text; raises ValueError, which names the option, where it is none."""
    kind = (KINDS | ADDRESS_KINDS)[name]
    try:
        return kind.parse(text)
    except ValueError:
        msg = f"{name} is {kind.description}, not {text!r}"
        raise ValueError(msg) from None


def _read_option(name: str, value: Any, kinds: Mapping[str, Kind]) -> Any:
    __tracebackhide__ = True
    kind = kinds.get(name)
    if kind is None:
        raise TypeError(_explain_unknown(name, kinds))
    if value is None and name in _MAY_BE_NONE:
        return None
    if not kind.accepts(value):
        msg = f"{name} is {kind.description}, not {show(value)}"
        raise TypeError(msg)
    return kind.copy(value)


def _explain_unknown(name: str, kinds: Mapping[str, Kind]) -> str:
    import difflib

    if name in ADDRESS_KINDS:
        return f"{name} can't change, the server stays where it is; make_smtpd_server makes another one"
    close = difflib.get_close_matches(str(name), kinds, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(kinds))}"
    return f"there is no option {name!r}: {hint}"


# What values options have.


class Kind:
    """A kind of value: how errors describe it, whether a value is one, and how it is read from text."""

    def __init__(
        self,
        description: str,
        accepts: Callable[[Any], bool],
        parse: Callable[[str], Any] = str,
        copy: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        self.description = description
        self.accepts = accepts
        #: Raises ValueError for a text that is none.
        self.parse = parse
        #: Returns what is kept of a value, which is not to change when the caller's does.
        self.copy = copy


def _is_directory(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) and _is_names(value[name]) for name in value)


def _copy_directory(directory: Mapping[str, str | Collection[str]]) -> dict[str, str | tuple[str, ...]]:
    return {name: entry if isinstance(entry, str) else tuple(entry) for name, entry in directory.items()}


def _is_names(value: object) -> bool:
    # No iterator: options are looked at more than once.
    if isinstance(value, (bytes, bytearray)) or not isinstance(value, Collection):
        return False
    return all(isinstance(name, str) for name in value)


def _copy_names(names: Collection[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _is_ssl_context(value: object) -> bool:
    import ssl

    return isinstance(value, ssl.SSLContext)


def _is_number(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


_TEXT = Kind("a string", lambda value: isinstance(value, str))
_TRUTH = Kind("True or False", lambda value: isinstance(value, bool))
_COUNT = Kind("a whole number", lambda value: _is_number(value, int), int)
_OCTETS = Kind("a number of octets", _COUNT.accepts, int)
_SECONDS = Kind("a number of seconds", lambda value: _is_number(value, (int, float)), float)
_NAMES = Kind("a list of strings", _is_names, copy=_copy_names)

#: What values the options have.
KINDS = {
    "hostname": _TEXT,
    "protocol": _TEXT,
    "hide": _NAMES,
    "hide_after_tls": _NAMES,
    "advertise": _NAMES,
    "advertise_after_tls": _NAMES,
    "strict": _TRUTH,
    "data_size_limit": _OCTETS,
    "command_size_limit": _OCTETS,
    "line_size_limit": _OCTETS,
    "max_recipients": _COUNT,
    "max_messages": _COUNT,
    "max_commands": _COUNT,
    "max_errors": _COUNT,
    "max_connections": _COUNT,
    "timeout": _SECONDS,
    "wait_timeout": _SECONDS,
    "proxy_protocol": _TRUTH,
    "allow_unused_rules": _TRUTH,
    "directory": Kind("a dict of addresses, or lists of them, by name", _is_directory, copy=_copy_directory),
    "tls": Kind("'starttls' or 'implicit'", _TEXT.accepts),
    "require_tls": _TRUTH,
    "ssl_context": Kind("an ssl.SSLContext", _is_ssl_context),
    "certificate": Kind("'expired', 'not-yet-valid', 'wrong-host' or 'self-signed'", _TEXT.accepts),
    "maximum_tls_version": Kind("'TLSv1.2' or 'TLSv1.3'", _TEXT.accepts),
    "client_certificates": Kind("'optional' or 'required'", _TEXT.accepts),
    "users": Kind(
        "a dict of passwords by name, or a function that returns the password for a name",
        lambda value: isinstance(value, Mapping) or callable(value),
    ),
    "require_auth": _TRUTH,
    "auth_mechanisms": _NAMES,
    "auth_without_tls": _TRUTH,
    "encryption_required": Kind("a reply such as '538 5.7.11 No'", _TEXT.accepts),
}
#: Values that are equal for ever if they are now.
_LASTING = (str, bool, int, float, tuple, type(None))
#: Where a server listens.
ADDRESS_KINDS = {"host": _TEXT, "port": _COUNT}
_MAY_BE_NONE = {name for name in KINDS if getattr(Configuration, name) is None}
