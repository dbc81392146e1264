"""What clients make of each action: the cases, the clients, and what is known to come of them.

`make_tables.py` writes this into the README; `clients/test_outcomes.py` holds that it is so.
"""

from __future__ import annotations

import asyncio
import gc
import smtplib
import subprocess
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tools import find_module, find_tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_smtpd import RecordingServer
    from pytest_smtpd.testing.faults import Rule

MAILFROM, RCPTTO = "noreply@example.org", "ada@example.org"
CONTENT = "Subject: Hi\r\n\r\n" + "Hello\r\n" * 100
USER, PASSWORD = "ada", "open sesame"

#: What clients do when nothing is wrong, as far as they can tell.
SENT = "sent"
#: How long curl waits for some answers, whatever --max-time says: too long for a test.
TWO_MINUTES = ", after 120 s"


@dataclass(frozen=True)
class Case:
    """A stage, the actions of a rule for it, and what comes of it: for each client all that may come."""

    stage: str
    actions: tuple[tuple[Any, ...], ...]
    smtplib: str
    aiosmtplib: str
    curl: str

    @property
    def code(self) -> str:
        """The actions as they are written in a test."""
        calls = (f".{name}({', '.join(map(repr, arguments))})" for name, *arguments in self.actions)
        return "".join(calls).replace("'", '"')

    def apply(self, server: RecordingServer) -> Rule:
        """Have the server do it."""
        rule = server.on(self.stage)
        for name, *arguments in self.actions:
            getattr(rule, name)(*arguments)
        return rule

    @property
    def is_endless(self) -> bool:
        """Whether the client would wait for ever."""
        return self.actions[-1] == ("hang",)

    @property
    def is_nonsense(self) -> bool:
        """Whether the client is sent something without a code."""
        return self.actions[-1][0] == "raw" and self.stage != "TLS"

    @property
    def options(self) -> dict[str, Any]:
        """What the server needs so that clients come to the stage."""
        if self.stage == "AUTH":
            return {"users": {USER: PASSWORD}, "auth_mechanisms": ["PLAIN"]}
        return {"tls": "starttls"} if self.stage in {"STARTTLS", "TLS"} else {}


def send_with_smtplib(server: RecordingServer, case: Case) -> str:
    """Send as most people do; return the class of the exception, and the code in it."""
    try:
        with smtplib.SMTP(*server.address, timeout=0.3 if case.is_endless else 30) as client:
            if server.ssl_context is not None:
                client.starttls(context=server.client_ssl_context)
            if case.stage == "AUTH":
                client.login(USER, PASSWORD)
            client.sendmail(MAILFROM, RCPTTO, CONTENT)
    except smtplib.SMTPRecipientsRefused as error:
        return f"{type(error).__name__} {error.recipients[RCPTTO][0]}"
    except smtplib.SMTPResponseException as error:
        return f"{type(error).__name__} {error.smtp_code}"
    except OSError as error:
        return type(error).__name__
    return SENT


def send_with_aiosmtplib(server: RecordingServer, case: Case) -> str:
    """Send with the function for one message; return the class of the exception, and the code in it."""
    outcome = _send_with_aiosmtplib(server, case)
    if outcome != SENT:
        # Where it gives up it may leave its transport to the garbage collector, which would complain in another test.
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            gc.collect()
    return outcome


def _send_with_aiosmtplib(server: RecordingServer, case: Case) -> str:
    aiosmtplib = find_module("aiosmtplib")
    options: dict[str, Any] = {"timeout": 0.3 if case.is_endless else 30, "start_tls": server.ssl_context is not None}
    if server.ssl_context is not None:
        options["tls_context"] = server.client_ssl_context
    if case.stage == "AUTH":
        options |= {"username": USER, "password": PASSWORD}
    sending = aiosmtplib.send(
        CONTENT, sender=MAILFROM, recipients=[RCPTTO], hostname=server.host, port=server.port, **options
    )
    try:
        asyncio.run(sending)
    except aiosmtplib.SMTPRecipientsRefused as error:
        return f"{type(error).__name__} {error.recipients[0].code}"
    except aiosmtplib.SMTPResponseException as error:
        return f"{type(error).__name__} {error.code}"
    except (aiosmtplib.SMTPException, OSError) as error:
        return type(error).__name__
    return SENT


def send_with_curl(server: RecordingServer, case: Case) -> str:
    """Send with curl; return its exit status."""
    command = [find_tool("curl"), "--silent", "--ipv4", "--url", f"smtp://localhost:{server.port}"]
    command += ["--mail-from", MAILFROM, "--mail-rcpt", RCPTTO, "--upload-file", "-"]
    command += ["--max-time", "0.5" if case.is_endless or case.is_nonsense else "30"]
    if server.ssl_context is not None:
        command += ["--ssl-reqd", "--cacert", server.cafile]
    if case.stage == "AUTH":
        command += ["--user", f"{USER}:{PASSWORD}"]
    ran = subprocess.run(command, input=CONTENT.encode(), capture_output=True, timeout=60, check=False)  # noqa: S603 - curl
    return str(ran.returncode) if ran.returncode else SENT


CLIENTS: dict[str, Callable[[RecordingServer, Case], str]] = {
    "smtplib": send_with_smtplib,
    "aiosmtplib": send_with_aiosmtplib,
    "curl": send_with_curl,
}


def measure(client: str, server: RecordingServer, case: Case) -> tuple[Rule, str]:
    """Send with a client to a server that does what the case says; return the rule, and what came of it."""
    rule = case.apply(server)

    def release() -> None:
        rule.reached.wait()
        rule.release()

    opener = threading.Thread(target=release)
    if ("hold",) in case.actions:
        opener.start()
    try:
        return rule, CLIENTS[client](server, case)
    finally:
        rule.reached.set()
        if opener.ident is not None:
            opener.join()


#: What is known; where there are several outcomes, the system's timing or the client's version decides.
CASES = (
    Case("CONNECT", (("reject",),), "SMTPConnectError 554", "SMTPConnectResponseError 554", "8"),
    Case("CONNECT", (("defer",),), "SMTPConnectError 421", "SMTPConnectResponseError 421", "8"),
    Case("CONNECT", (("raw", b"hello\r\n"),), "SMTPConnectError -1", "SMTPResponseException -1", "28"),
    Case("CONNECT", (("hang",),), "SMTPServerDisconnected", "SMTPConnectTimeoutError", "28"),
    Case("CONNECT", (("disconnect",),), "SMTPServerDisconnected", "SMTPConnectError", "56"),
    Case("CONNECT", (("reset",),), "SMTPServerDisconnected / ConnectionResetError", "SMTPConnectError", "7 / 56"),
    Case("EHLO", (("reject",),), SENT, SENT, SENT),
    Case("EHLO", (("fragment", 1),), SENT, SENT, SENT),
    Case("MAIL", (("reject",),), "SMTPSenderRefused 550", "SMTPSenderRefused 550", "55"),
    Case("MAIL", (("defer",),), "SMTPSenderRefused 451", "SMTPSenderRefused 451", "55"),
    Case("MAIL", (("reply", 421, "Bye"),), "SMTPSenderRefused 421", "SMTPSenderRefused 421", "55"),
    Case("MAIL", (("raw", b"hello\r\n"),), "SMTPSenderRefused -1", "SMTPResponseException -1", "28"),
    Case("MAIL", (("hang",),), "SMTPServerDisconnected", "SMTPReadTimeoutError", "28"),
    Case("MAIL", (("disconnect",),), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
    Case("MAIL", (("reset",),), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
    Case("RCPT", (("reject",),), "SMTPRecipientsRefused 550", "SMTPRecipientsRefused 550", "55"),
    Case("RCPT", (("defer",),), "SMTPRecipientsRefused 450", "SMTPRecipientsRefused 450", "55"),
    Case("RCPT", (("reply", 421, "Bye"),), "SMTPRecipientsRefused 421", "SMTPRecipientsRefused 421", "55"),
    Case("RCPT", (("delay", 0.1),), SENT, SENT, SENT),
    Case("RCPT", (("disconnect",),), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
    Case("DATA", (("reject",),), "SMTPDataError 554", "SMTPDataError 554", "55"),
    Case("DATA", (("defer",),), "SMTPDataError 451", "SMTPDataError 451", "55"),
    Case("DATA", (("disconnect",),), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
    Case("CONTENT", (("reject",),), "SMTPDataError 554", "SMTPDataError 554", "8"),
    Case("CONTENT", (("defer",),), "SMTPDataError 451", "SMTPDataError 451", "8"),
    Case("CONTENT", (("reply", 421, "Bye"),), "SMTPDataError 421", "SMTPDataError 421", "8"),
    Case("CONTENT", (("accept",),), SENT, SENT, SENT),
    Case("CONTENT", (("discard",),), SENT, SENT, SENT),
    Case("CONTENT", (("raw", b"hello\r\n"),), "SMTPDataError -1", "SMTPResponseException -1", "28"),
    Case("CONTENT", (("throttle", 2000),), SENT, SENT, SENT),
    Case("CONTENT", (("hold",),), SENT, SENT, SENT),
    Case("CONTENT", (("hang",),), "SMTPServerDisconnected", "SMTPReadTimeoutError", f"28{TWO_MINUTES}"),
    Case("CONTENT", (("disconnect",),), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
    Case("CONTENT", (("reset",),), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
    Case("CONTENT", (("store",), ("defer",)), "SMTPDataError 451", "SMTPDataError 451", "8"),
    Case("CONTENT", (("store",), ("disconnect",)), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
    Case("QUIT", (("reply", 421, "Bye"),), "SMTPResponseException 421", SENT, SENT),
    Case("QUIT", (("hang",),), SENT, SENT, f"{SENT}{TWO_MINUTES}"),
    Case("QUIT", (("disconnect",),), SENT, SENT, SENT),
    Case("QUIT", (("reset",),), SENT, SENT, SENT),
    Case("STARTTLS", (("reject",),), "SMTPResponseException 502", "SMTPResponseException 502", "64"),
    Case("STARTTLS", (("defer",),), "SMTPResponseException 454", "SMTPResponseException 454", "64"),
    Case("STARTTLS", (("disconnect",),), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
    Case("TLS", (("raw", b"454 No\r\n"),), "SSLError / SSLEOFError", "SMTPServerDisconnected / SSLError", "8 / 35"),
    Case("TLS", (("hang",),), "TimeoutError", "SMTPTimeoutError", "28"),
    Case("TLS", (("disconnect",),), "SSLEOFError / ConnectionResetError", "SMTPServerDisconnected", "35"),
    Case("TLS", (("delay", 0.1), ("reset",)), "ConnectionResetError", "SMTPServerDisconnected", "35"),
    Case("AUTH", (("reject",),), "SMTPAuthenticationError 535", "SMTPAuthenticationError 535", "67"),
    Case("AUTH", (("defer",),), "SMTPAuthenticationError 454", "SMTPAuthenticationError 454", "67"),
    Case("AUTH", (("reply", 421, "Bye"),), "SMTPAuthenticationError 421", "SMTPAuthenticationError 421", "67"),
    Case("AUTH", (("disconnect",),), "SMTPServerDisconnected", "SMTPServerDisconnected", "56"),
)
