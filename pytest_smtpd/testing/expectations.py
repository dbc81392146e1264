"""Expectations: what may be expected of a message's attributes, and how it prints.

A value that no message can ever have is a mistake of the test's author, not a criterion that is never met, or in
`assert_not_received` always. Only values of Python's own types are checked: others may compare as they like.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import PurePath
from types import FunctionType
from typing import Any

from .shown import shorten, show

#: How much is shown of a value, and up to how many values are shown one by one.
_SHOWN, _FEW = 200, 10

#: Types whose values are equal to none of another type, beside numbers.
_PLAIN = (str, bytes, bool, int, float, list, tuple, dict, set, frozenset, type(None), type)

_TEXT = "a string, a pattern or a function"
#: What an attribute may be compared with, and how that is called.
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("mailfrom", "subject", "text", "html", "helo", "body", "attachment"), ((str,), _TEXT)),
    "data": ((bytes,), "bytes, a pattern of bytes or a function"),
    "esmtp": ((bool,), "True or False"),
    "rcpttos": ((str, list, tuple), "an address, a list or tuple of addresses, a pattern or a function"),
    "peer": ((tuple,), "a tuple, a pattern or a function"),
    "lints": ((tuple,), "a tuple, a pattern or a function"),
    **dict.fromkeys(("mail_options", "rcpt_options", "links", "bcc", "attachments"), ((list,), "a list or a function")),
    "tls": ((type(None),), "None, or a function such as lambda tls: tls is not None"),
    "auth": ((type(None),), "None, or a function such as lambda auth: auth.user == 'ada'"),
}


def check_expected(name: str, expected: Any) -> None:
    """Raise TypeError for a value that this attribute never has, ValueError for what is no address."""
    __tracebackhide__ = True
    if name == "headers":
        _check_headers(expected)
        return
    types, description = _TYPES.get(name, (_PLAIN[:-1], "a value, a pattern or a function"))
    if not _is_possible(expected, types):
        msg = f"{name} is compared with {description}, not with {show_expected(expected)}"
        raise TypeError(msg)
    if name in {"rcpttos", "mailfrom"}:
        for address in expected if isinstance(expected, (list, tuple)) else [expected]:
            _check_address(name, address)


def _check_headers(expected: Any) -> None:
    __tracebackhide__ = True
    if not isinstance(expected, Mapping):
        msg = f"headers= takes a dict of names and values, not {show_expected(expected)}"
        raise TypeError(msg)
    for name, value in expected.items():
        if not isinstance(name, str) or not _is_possible(value, (str,)):
            msg = f"headers= compares each name with {_TEXT}, not {show(name)} with {show_expected(value)}"
            raise TypeError(msg)


def _check_address(name: str, address: Any) -> None:
    __tracebackhide__ = True
    if not _is_possible(address, (str,)):
        msg = f"{name}: an address is {_TEXT}, not {show_expected(address)}"
        raise TypeError(msg)
    # "<a,b>"@example.org is an address.
    if isinstance(address, str) and (address.endswith(">") or ("," in address and '"' not in address)):
        from email.utils import getaddresses

        addresses = [bare for _, bare in getaddresses([address]) if bare]
        meant = addresses[0] if len(addresses) == 1 else addresses
        msg = f"{name} has addresses only, as in the envelope: {show(meant)} instead of {show(address)}"
        raise ValueError(msg)


def _is_possible(expected: Any, types: tuple[type, ...]) -> bool:
    if isinstance(expected, re.Pattern) and types[0] in {str, bytes}:
        return isinstance(expected.pattern, types[0])
    return type(expected) not in _PLAIN or type(expected) in types


def show_expected(value: Any) -> str:
    """Return what is expected as people would write it, cut if it is long."""
    match value:
        case re.Pattern(pattern=pattern):
            return f"/{shorten(pattern, _SHOWN) if isinstance(pattern, str) else show(pattern, _SHOWN)}/"
        case list() | tuple() | Mapping() if len(value) <= _FEW:
            return _show_items(value)
        case functools.partial():
            return f"partial({_name(value.func)}, …)"
        case _ if callable(value) and hasattr(value, "__qualname__"):
            return _name(value)
    return shorten(show(value, _SHOWN), 2 * _SHOWN)


def _show_items(value: list[Any] | tuple[Any, ...] | Mapping[Any, Any]) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{show(name)}: {show_expected(each)}' for name, each in value.items())}}}"
    items = ", ".join(map(show_expected, value))
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return f"[{items}]" if isinstance(value, list) else f"({items}{comma})"


def _name(value: Any) -> str:
    """Return the name of a function or class; of a lambda, which has none, where it is."""
    name: str = getattr(value, "__qualname__", type(value).__qualname__).rpartition("<locals>.")[2]
    if name == "<lambda>" and isinstance(value, FunctionType):
        code = value.__code__
        return f"<lambda at {PurePath(code.co_filename).name}:{code.co_firstlineno}>"
    return name
