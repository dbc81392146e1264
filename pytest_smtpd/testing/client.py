"""A client of smtplib's, ready to send: of the right class, encrypted, logged in."""

from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING, Literal

from pytest_smtpd.network.tls import certfile, client_context

if TYPE_CHECKING:
    import ssl


class LMTPS(smtplib.SMTP_SSL):
    """LMTP with TLS from the start, which smtplib does not have."""

    ehlo_msg = "lhlo"


def connect(  # noqa: PLR0913 - the options of a client
    host: str,
    port: int,
    *,
    lmtp: bool,
    tls: Literal["starttls", "implicit"] | None,
    login: tuple[str, str] | None,
    context: ssl.SSLContext | None,
    local_hostname: str,
    timeout: float,
) -> smtplib.SMTP:
    """Return a client that is connected; see `Access.smtplib_client`."""
    context = context or (tls and _context())
    client: smtplib.SMTP
    if tls == "implicit":
        encrypted = LMTPS if lmtp else smtplib.SMTP_SSL
        client = encrypted(host, port, local_hostname, timeout=timeout, context=context)
    elif lmtp:
        client = smtplib.LMTP(host, port, local_hostname, timeout=timeout)
    else:
        client = smtplib.SMTP(host, port, local_hostname, timeout=timeout)
    try:
        if tls == "starttls":
            client.starttls(context=context)
        if login is not None:
            client.login(*login)
    except BaseException:
        client.close()
        raise
    return client


def _context() -> ssl.SSLContext:
    """Return a context that verifies the server, and can show a certificate to one that wants it."""
    context = client_context()
    context.load_cert_chain(certfile("client"))
    return context
