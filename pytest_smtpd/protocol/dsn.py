"""DSN (RFC 3461): which delivery status notifications a client asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .grammar import GrammarError, decode_xtext
from .replies import Reply
from .state import Extension

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .grammar import Parameters
    from .state import State

#: RFC 3461 4.4: an envelope identifier has 100 characters at most, as it is sent.
MAX_ENVID = 100
#: RFC 3461 4.2: an original recipient has 500 characters at most.
MAX_ORCPT = 500

_NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY))*", re.IGNORECASE | re.ASCII)

#: An atom (RFC 3461 4.2, RFC 822).
_ADDRESS_TYPE = re.compile(r"[!#$%&'*+./0-9=?A-Z^_`a-z{|}~-]+")

_BAD_RET = Reply(501, "Error: RET can only be one of FULL, HDRS", "5.5.4")
_BAD_ENVID = Reply(501, "Error: ENVID takes up to 100 characters of xtext", "5.5.4")
_BAD_NOTIFY = Reply(501, "Error: NOTIFY takes NEVER, or a list of SUCCESS, FAILURE, DELAY", "5.5.4")
_BAD_ORCPT = Reply(501, "Error: ORCPT takes an address type, a semicolon and xtext", "5.5.4")


@dataclass(frozen=True, slots=True)
class RecipientNotification:
    """What is asked for one recipient.

    `notify` is such as ("SUCCESS", "DELAY") or ("NEVER",), and empty where nothing was asked;
    `original_recipient` is such as "rfc822;ada@example.org", decoded, "" where it was not given.
    """

    notify: tuple[str, ...] = ()
    original_recipient: str = ""


@dataclass(frozen=True, slots=True)
class NotificationRequest:
    """What a client asks of delivery status notifications for a message (RFC 3461 4).

    `ret` is "FULL", "HDRS" or ""; `envelope_id` is decoded, "" where it was not given; `recipients` has an
    item for each recipient in order.
    """

    ret: str
    envelope_id: str
    recipients: tuple[RecipientNotification, ...]


def read_request(mail: Parameters, recipients: Sequence[Parameters]) -> NotificationRequest:
    """Read what the parameters of a message ask for."""
    values = dict(mail)
    return NotificationRequest(
        (values.get("RET") or "").upper(),
        _decode(values.get("ENVID") or ""),
        tuple(_read_recipient(dict(parameters)) for parameters in recipients),
    )


def _read_recipient(values: dict[str, str | None]) -> RecipientNotification:
    notify = (values.get("NOTIFY") or "").upper()
    address_type, semicolon, address = (values.get("ORCPT") or "").partition(";")
    return RecipientNotification(
        tuple(notify.split(",")) if notify else (), f"{address_type}{semicolon}{_decode(address)}"
    )


def _decode(value: str) -> str:
    """Decode xtext; what is none, though somebody accepted it, stays as it is."""
    return decode_xtext(value) if _is_xtext(value) else value


def _check_ret(value: str | None, _state: State) -> Reply | None:
    return None if value and value.isascii() and value.upper() in {"FULL", "HDRS"} else _BAD_RET


def _check_envid(value: str | None, _state: State) -> Reply | None:
    return None if value and len(value) <= MAX_ENVID and _is_xtext(value) else _BAD_ENVID


def _check_notify(value: str | None, _state: State) -> Reply | None:
    return None if value and _NOTIFY.fullmatch(value) else _BAD_NOTIFY


def _check_orcpt(value: str | None, _state: State) -> Reply | None:
    address_type, _, address = (value or "").partition(";")
    well_formed = (
        _ADDRESS_TYPE.fullmatch(address_type) and address and len(value or "") <= MAX_ORCPT and _is_xtext(address)
    )
    return None if well_formed else _BAD_ORCPT


def _is_xtext(value: str) -> bool:
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
