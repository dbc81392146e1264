"""The service extensions that a server can offer, each with its EHLO keyword and its parameters."""

from __future__ import annotations

import re
from copy import copy
from typing import TYPE_CHECKING

from .auth import AUTH
from .chunking import BINARYMIME, CHUNKING
from .directory import EXPN
from .dsn import DSN
from .grammar import GrammarError
from .limits import LIMITS
from .replies import Reply
from .starttls import REQUIRETLS, STARTTLS
from .state import Extension, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .state import State

_EHLO_LINE = r"[!-~]+(?: [!-~]+)*"
_SIZE_VALUE = re.compile(r"[0-9]{1,20}")

_TOO_LARGE = Reply(552, "Error: message size exceeds fixed maximum message size", "5.3.4")
_BAD_BODY = Reply(501, "Error: BODY can only be one of 7BIT, 8BITMIME", "5.5.4")
_BAD_BINARY_BODY = Reply(501, "Error: BODY can only be one of 7BIT, 8BITMIME, BINARYMIME", "5.5.4")
_BAD_SMTPUTF8 = Reply(501, "Error: SMTPUTF8 takes no arguments", "5.5.4")


def _check_size(value: str | None, state: State) -> Reply | None:
    """RFC 1870 6: a declared size that can't be taken is refused before the content is sent."""
    if value is None or not _SIZE_VALUE.fullmatch(value):
        msg = "SIZE takes a number of up to 20 digits"
        raise GrammarError(msg)
    return _TOO_LARGE if 0 < state.settings.data_size_limit < int(value) else None


def _check_body(value: str | None, state: State) -> Reply | None:
    body = value.upper() if value and value.isascii() else ""
    if "BINARYMIME" in state.settings.keywords:
        return None if body in {"7BIT", "8BITMIME", "BINARYMIME"} else _BAD_BINARY_BODY
    return None if body in {"7BIT", "8BITMIME"} else _BAD_BODY


def _check_smtputf8(value: str | None, _state: State) -> Reply | None:
    return None if value is None else _BAD_SMTPUTF8


SIZE = Extension(
    keyword="SIZE",
    parameter=lambda settings, _secure: str(settings.data_size_limit),
    mail_parameters={"SIZE": _check_size},
    longer_lines={"MAIL": 26},  # RFC 1870 3
)
EIGHT_BIT_MIME = Extension(keyword="8BITMIME", mail_parameters={"BODY": _check_body}, longer_lines={"MAIL": 17})
SMTPUTF8 = Extension(
    keyword="SMTPUTF8",
    mail_parameters={"SMTPUTF8": _check_smtputf8},
    longer_lines={"MAIL": 10},  # RFC 6531 3.1 (7)
    needs="8BITMIME",  # RFC 6531 3.1 (8)
)
PIPELINING = Extension(keyword="PIPELINING")
ENHANCED_STATUS_CODES = Extension(keyword="ENHANCEDSTATUSCODES")
HELP = Extension(keyword="HELP")

#: All that can be offered at once, in the order in which EHLO lists them.
ALL = (SIZE, EIGHT_BIT_MIME, SMTPUTF8, PIPELINING, ENHANCED_STATUS_CODES, CHUNKING, BINARYMIME, DSN, HELP)
#: What can be offered only where it is configured.
CONFIGURED = (STARTTLS, REQUIRETLS, AUTH, LIMITS, EXPN)


def without(hidden: Iterable[str], configured: Iterable[Extension] = ()) -> tuple[Extension, ...]:
    """Return all extensions, and those configured, but the hidden ones and those that need a hidden one.

    Raises ValueError for a keyword that no extension has.
    """
    names = {keyword.upper() for keyword in hidden}
    known = {extension.keyword for extension in (*ALL, *CONFIGURED)}
    if unknown := names - known:
        msg = f"hide: no extension is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}"
        raise ValueError(msg)
    return tuple(extension for extension in (*ALL, *configured) if not names & {extension.keyword, extension.needs})


def only(extension: Extension, *, secure: bool) -> Extension:
    """Return an extension that is announced only where TLS is active, or only where it is not."""

    def parameter(settings: Settings, is_secure: bool) -> str | None:  # noqa: FBT001 - an Extension's
        return extension.parameter(settings, is_secure) if is_secure == secure else None

    limited = copy(extension)
    limited.parameter = parameter
    return limited


def announced(before: Iterable[Extension], after: Iterable[Extension]) -> tuple[Extension, ...]:
    """Return the extensions that are announced before TLS and after; what is in both is served in both alike."""
    first, second = list(before), list(after)
    if first == second:
        return tuple(first)
    early = [extension if extension in second else only(extension, secure=False) for extension in first]
    return (*early, *(only(extension, secure=True) for extension in second if extension not in first))


def invented(line: str) -> Extension:
    """Return an extension that is nothing but a line in the EHLO reply, such as "XFOO bar".

    Raises ValueError for what is no such line (RFC 5321 4.1.1.1).
    """
    if not re.fullmatch(_EHLO_LINE, line):
        msg = f"advertise: a line of the EHLO reply is a keyword, and parameters parted by a space, not {line!r}"
        raise ValueError(msg)
    # It has no keyword: nothing is served for it, also where the line has that of an extension.
    return Extension(keyword="", parameter=lambda _settings, _secure: line)
