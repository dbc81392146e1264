"""DSN (RFC 3461): the parameters with which a client asks for delivery status notifications, checked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .grammar import GrammarError, decode_xtext
from .replies import Reply
from .state import Extension

if TYPE_CHECKING:
    from .state import State

#: RFC 3461 4.4: an envelope identifier has 100 characters at most, as it is sent.
MAX_ENVID = 100
#: RFC 3461 4.2: an original recipient has 500 characters at most.
MAX_ORCPT = 500

_NOTIFY = r"(?ai)NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*"

#: An atom (RFC 3461 4.2, RFC 822).
_ADDRESS_TYPE = r"[!#$%&'*+./0-9=?A-Z^_`a-z{|}~-]+"

_BAD_RET = Reply(501, "Error: RET can only be one of FULL, HDRS", "5.5.4")
_BAD_ENVID = Reply(501, "Error: ENVID takes up to 100 characters of xtext", "5.5.4")
_BAD_NOTIFY = Reply(501, "Error: NOTIFY takes NEVER, or a list of SUCCESS, FAILURE, DELAY", "5.5.4")
_BAD_ORCPT = Reply(501, "Error: ORCPT takes an address type, a semicolon and xtext", "5.5.4")


def _check_ret(value: str | None, _state: State) -> Reply | None:
    return None if value and value.isascii() and value.upper() in {"FULL", "HDRS"} else _BAD_RET


def _check_envid(value: str | None, _state: State) -> Reply | None:
    return None if value and len(value) <= MAX_ENVID and is_xtext(value) else _BAD_ENVID


def _check_notify(value: str | None, _state: State) -> Reply | None:
    return None if value and re.fullmatch(_NOTIFY, value) else _BAD_NOTIFY


def _check_orcpt(value: str | None, _state: State) -> Reply | None:
    address_type, _, address = (value or "").partition(";")
    well_formed = (
        re.fullmatch(_ADDRESS_TYPE, address_type) and address and len(value or "") <= MAX_ORCPT and is_xtext(address)
    )
    return None if well_formed else _BAD_ORCPT


def is_xtext(value: str) -> bool:
    """Whether this is xtext (RFC 3461 4)."""
    try:
        decode_xtext(value)
    except GrammarError:
        return False
    return True


DSN = Extension(
    keyword="DSN",
    mail_parameters={"RET": _check_ret, "ENVID": _check_envid},
    rcpt_parameters={"NOTIFY": _check_notify, "ORCPT": _check_orcpt},
    longer_lines={"MAIL": 107, "RCPT": 500},  # RFC 3461 4
)
