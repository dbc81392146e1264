"""A real SMTP server for tests: a pytest fixture that receives mail, and the classic smtpd module.

The public names are imported when they are first used: pytest imports this package at every start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import smtpd
    from .network.tls import TLSInfo
    from .protocol.events import Refusal
    from .protocol.lints import Lint
    from .protocol.notifications import NotificationRequest
    from .protocol.replies import Reply
    from .protocol.sasl import Identity
    from .protocol.state import RejectedRecipient
    from .testing.attachment import Attachment
    from .testing.catalogue import Fault, smtp_faults
    from .testing.channel import RecordingChannel
    from .testing.dialogue import Dialogue
    from .testing.factory import ServerFactory
    from .testing.faults import Rule
    from .testing.headers import Headers
    from .testing.links import Link
    from .testing.message import Message
    from .testing.mishaps import AbortedTransaction, TLSFailure
    from .testing.outbox import Messages, Outbox
    from .testing.recording import LateMailWarning, RecordingServer

__all__ = [
    "AbortedTransaction",
    "Attachment",
    "Dialogue",
    "Fault",
    "Headers",
    "Identity",
    "LateMailWarning",
    "Link",
    "Lint",
    "Message",
    "Messages",
    "NotificationRequest",
    "Outbox",
    "RecordingChannel",
    "RecordingServer",
    "Refusal",
    "RejectedRecipient",
    "Reply",
    "Rule",
    "ServerFactory",
    "TLSFailure",
    "TLSInfo",
    "smtp_faults",
    "smtpd",
]

_MODULES = {
    "AbortedTransaction": "testing.mishaps",
    "Attachment": "testing.attachment",
    "Dialogue": "testing.dialogue",
    "Fault": "testing.catalogue",
    "Headers": "testing.headers",
    "Identity": "protocol.sasl",
    "LateMailWarning": "testing.recording",
    "Link": "testing.links",
    "Lint": "protocol.lints",
    "Message": "testing.message",
    "Messages": "testing.outbox",
    "NotificationRequest": "protocol.notifications",
    "Outbox": "testing.outbox",
    "RecordingChannel": "testing.channel",
    "RecordingServer": "testing.recording",
    "Refusal": "protocol.events",
    "RejectedRecipient": "protocol.state",
    "Reply": "protocol.replies",
    "Rule": "testing.faults",
    "ServerFactory": "testing.factory",
    "TLSFailure": "testing.mishaps",
    "TLSInfo": "network.tls",
    "smtp_faults": "testing.catalogue",
}


def __getattr__(name: str) -> Any:
    if name == "smtpd":
        return import_module(".smtpd", __name__)
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
