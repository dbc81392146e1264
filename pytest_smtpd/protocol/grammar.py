"""RFC 5321 4.1: a command line, a path, a domain or a list of parameters in; a value out.

Nothing here knows the session. What cannot be read is a GrammarError; what can be read although the
standard forbids it comes with lints, and the session decides.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import NamedTuple, TypeAlias

from .lints import Lint

#: RFC 5321 4.5.3.1.1 to 4.5.3.1.3, in octets: local part, domain, path with its punctuation.
MAX_LOCAL_PART, MAX_DOMAIN, MAX_PATH = 64, 255, 256

# RFC 5321 4.1.2, widened by the UTF8-non-ascii of RFC 6531 3.3. Each class tells what of ASCII is not in it: one
# with all that is takes re a hundred times as long to compile.
_ATEXT = r'[^\x00- "(),.:;<>@\[\\\]\x7f]'
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_QUOTED_STRING = r'"(?:[^\x00-\x1f"\\\x7f]|\\[ -~])*"'
_LET_DIG, _LDH = r"[^\x00-/:-@\[-`{-\x7f]", r"[^\x00-,./:-@\[-`{-\x7f]"
_SUB_DOMAIN = rf"{_LET_DIG}(?:{_LDH}*{_LET_DIG})?"
_DOMAIN = rf"{_SUB_DOMAIN}(?:\.{_SUB_DOMAIN})*"
_LITERAL = r"\[[!-Z^-~]*\]"
_LOOSE_LOCAL_PART = rf"(?:{_ATEXT}|\.)+"
_LOOSE_DOMAIN = r"[^\x00-,/:-@\[-^`{-\x7f]+"

_GENERAL_LITERAL = r"[A-Za-z0-9-]*[A-Za-z0-9]:[!-Z^-~]+"

_AT_DOMAIN = rf"@(?:{_DOMAIN}|{_LITERAL})"
_PATH = (
    rf"(?P<route>{_AT_DOMAIN}(?:,{_AT_DOMAIN})*:)?"
    rf"(?P<mailbox>(?P<local>{_QUOTED_STRING}|{_LOOSE_LOCAL_PART})(?:@(?P<domain>{_LOOSE_DOMAIN}|{_LITERAL}))?)?"
)
_COMMON_PATH = re.compile(rf"<({_DOT_STRING}@{_DOMAIN})>(?: (.*))?")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00- =\x7f]+))?")
_XTEXT = r"(?:[^\x00- +=\x7f]|\+[0-9A-F]{2})*"
_HEXCHAR = rb"\+([0-9A-F]{2})"
_CONTROL = r"[\x00-\x1f\x7f]"
_QUOTED_PAIR = r"\\(.)"


#: ESMTP parameters in the order in which they came: keywords in upper case, each with its value or None.
Parameters: TypeAlias = tuple[tuple[str, "str | None"], ...]


class GrammarError(ValueError):
    """The text does not follow the grammar of RFC 5321 4.1.2."""


class PathError(GrammarError):
    """The text is a path in form, and the mailbox in it cannot be one."""


class ControlCharacterError(GrammarError):
    """The text has a control character, which no command may have (RFC 5321 4.1.2)."""


class Path(NamedTuple):
    """A reverse-path or forward-path (RFC 5321 4.1.2).

    `mailbox` is the address as it was given, "" for the null path; `route` are the domains of an obsolete
    source route (RFC 5321 appendix C), kept aside.
    """

    mailbox: str
    route: tuple[str, ...] = ()
    lints: tuple[Lint, ...] = ()


def parse_command(line: str) -> tuple[str, str]:
    """Split a command line into its verb in upper case and its argument, "" for none."""
    line = line.rstrip(" \t")
    verb, _, argument = line.partition(" ")
    if not line.isprintable() and re.search(_CONTROL, line):
        msg = "a command line has no control characters"
        raise ControlCharacterError(msg)
    if not verb or not verb.isascii():
        msg = "a command line begins with a verb"
        raise GrammarError(msg)
    return verb.upper(), argument.lstrip(" ")


def parse_path_argument(keyword: str, argument: str) -> tuple[Path, str]:
    """Read "FROM:<path> parameters" or "TO:<path> parameters": the path, and the text of the parameters."""
    if argument[: len(keyword)].upper() != keyword:
        msg = f"the argument does not begin with {keyword}"
        raise GrammarError(msg)
    common = _COMMON_PATH.fullmatch(argument, len(keyword))
    if common and len(common[1]) <= MAX_LOCAL_PART and common[1].isascii():
        return Path(common[1]), common[2] or ""
    path, rest = _parse_path(argument[len(keyword) :])
    if rest and not rest.startswith(" "):
        msg = "parameters are parted from the path by a space"
        raise GrammarError(msg)
    return path, rest


def _parse_path(text: str) -> tuple[Path, str]:
    """Read any path at the start of a text, also one that only a patient server takes."""
    lints = []
    if text.startswith(" "):
        lints.append(Lint.SPACE_BEFORE_PATH)
        text = text.lstrip(" ")
    if text.startswith("<"):
        inner, bracket, rest = _partition_unquoted(text[1:], ">")
        if not bracket:
            msg = "the path lacks its closing bracket"
            raise PathError(msg) if "@[" in inner else GrammarError(msg)
    else:
        lints.append(Lint.NO_BRACKETS)
        inner, space, rest = _partition_unquoted(text, " ")
        rest = space + rest
        if not inner:
            msg = "there is no path"
            raise GrammarError(msg)
    path = parse_mailbox(inner)
    return Path(path.mailbox, path.route, (*lints, *path.lints)), rest


def _partition_unquoted(text: str, end: str) -> tuple[str, str, str]:
    """Part a text at the first such character that is not inside of a quoted string."""
    if '"' not in text:
        return text.partition(end)
    quoted = False
    escaped = False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == end and not quoted:
            return text[:index], end, text[index + 1 :]
    return text, "", ""


def parse_mailbox(text: str) -> Path:
    """Read what stands between the brackets of a path: nothing, or a mailbox with or without a source route."""
    match = re.fullmatch(_PATH, text)
    if match is None:
        msg = f"{text!r} is no mailbox"
        raise PathError(msg)
    route = tuple(match["route"][1:-1].split(",@")) if match["route"] else ()
    if match["mailbox"] is None:
        if route:
            msg = "a source route leads to a mailbox"
            raise PathError(msg)
        return Path("")
    for domain in (*route, match["domain"] or ""):
        if domain.startswith("["):
            _check_address_literal(domain[1:-1])
    lints = _mailbox_lints(match["local"], match["domain"])
    return Path(match["mailbox"], route, lints + _length_lints(match["local"], match["domain"] or "", f"<{text}>"))


def _mailbox_lints(local_part: str, domain: str | None) -> tuple[Lint, ...]:
    lints: list[Lint] = []
    if not local_part.startswith('"') and not re.fullmatch(_DOT_STRING, local_part):
        lints.append(Lint.LOCAL_PART)
    if domain is None:
        # The one mailbox that needs no domain (RFC 5321 4.1.1.3, 4.5.1).
        if local_part.lower() != "postmaster":
            lints.append(Lint.NO_DOMAIN)
    elif not domain.startswith("[") and not re.fullmatch(_DOMAIN, domain):
        lints.append(Lint.DOMAIN)
    return tuple(lints)


def _length_lints(local_part: str, domain: str, path: str) -> tuple[Lint, ...]:
    """Note a path whose parts, in octets, are longer than RFC 5321 4.5.3.1 obliges servers to take."""
    if len(path) <= MAX_LOCAL_PART and path.isascii():
        return ()
    limits = ((local_part, MAX_LOCAL_PART), (domain, MAX_DOMAIN), (path, MAX_PATH))
    return (Lint.TOO_LONG_PATH,) if any(len(text.encode()) > limit for text, limit in limits) else ()


def _check_address_literal(literal: str) -> None:
    """Check an IPv4, IPv6 or General-address-literal (RFC 5321 4.1.3)."""
    tag, colon, content = literal.partition(":")
    try:
        if not colon:
            ipaddress.IPv4Address(literal)
        elif tag.upper() == "IPV6" and "%" not in content:  # RFC 5321 knows no zones
            ipaddress.IPv6Address(content)
        elif tag.upper() == "IPV6" or not re.fullmatch(_GENERAL_LITERAL, literal):
            raise ValueError  # noqa: TRY301
    except ValueError:
        msg = f"[{literal}] is no address literal"
        raise PathError(msg) from None


def parse_parameters(text: str) -> Parameters:
    """Read "SIZE=10 SMTPUTF8": keywords in upper case, each with its value or None, in order."""
    parameters = []
    for word in filter(None, text.split(" ")):
        match = _PARAMETER.fullmatch(word)
        if match is None:
            msg = f"{word!r} is no ESMTP parameter"
            raise GrammarError(msg)
        parameters.append((match[1].upper(), match[2]))
    return tuple(parameters)


def declared_body(parameters: Parameters) -> str:
    """Return the value of the parameter BODY in upper case; "" if there is none (RFC 6152 2, RFC 3030 3)."""
    return (dict(parameters).get("BODY") or "").upper()


def format_parameters(parameters: Parameters) -> list[str]:
    """Write parameters as they are sent, one string each: "SIZE=10"."""
    if not parameters:
        return []
    return [keyword if value is None else f"{keyword}={value}" for keyword, value in parameters]


def decode_xtext(text: str) -> str:
    """Decode xtext (RFC 3461 4), in which "+3D" stands for "="; raises GrammarError for what is none.

    UTF-8 in an international address comes raw (RFC 6533 3, utf-8-addr-unitext) or encoded.
    """
    if not re.fullmatch(_XTEXT, text):
        msg = f"{text!r} is no xtext"
        raise GrammarError(msg)
    octets = re.sub(_HEXCHAR, lambda match: bytes.fromhex(match[1].decode()), text.encode())
    return octets.decode("utf-8", "backslashreplace")


@functools.lru_cache(128)  # clients under test give themselves the same few
def helo_lints(argument: str) -> tuple[Lint, ...]:
    """Say what is wrong with the name that a client gives itself: a domain or an address literal is right."""
    if argument.startswith("[") and argument.endswith("]"):
        try:
            _check_address_literal(argument[1:-1])
        except PathError:
            return (Lint.HELO_NAME,)
        return ()
    return () if re.fullmatch(_DOMAIN, argument) else (Lint.HELO_NAME,)


def canonical_mailbox(mailbox: str) -> str:
    """Return the form in which two spellings of one mailbox are equal.

    Domains have no case (RFC 5321 2.4), and quoting that a local part does not need changes nothing
    (RFC 5321 4.1.2): `"ada"@Example.ORG` is `ada@example.org`. The case of the local part counts.
    """
    local_part, at, domain = mailbox.rpartition("@")
    if not at or domain.endswith('"'):
        return "postmaster" if mailbox.lower() == "postmaster" else mailbox  # RFC 5321 4.5.1
    if local_part.startswith('"') and local_part.endswith('"'):
        unquoted = re.sub(_QUOTED_PAIR, r"\1", local_part[1:-1])
        if re.fullmatch(_DOT_STRING, unquoted):
            local_part = unquoted
        else:
            escaped = unquoted.replace("\\", "\\\\").replace('"', '\\"')
            local_part = f'"{escaped}"'
    return f"{local_part}@{domain.lower()}"
