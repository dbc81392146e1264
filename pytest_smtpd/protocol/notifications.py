"""What a client asks of delivery status notifications (RFC 3461): the parameters of DSN, read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .dsn import is_xtext
from .grammar import decode_xtext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .grammar import Parameters


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
    return decode_xtext(value) if is_xtext(value) else value
