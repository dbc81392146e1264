"""The options of a RecordingServer for type checkers. Nothing imports this module: to make the type takes a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Mapping

    from pytest_smtpd.protocol.sasl import Users

    from .security import Certificate


class Options(TypedDict, total=False):
    """The options by name, for type checkers; `Configuration` says what they mean."""

    hostname: str
    protocol: Literal["smtp", "lmtp"]
    hide: Collection[str]
    hide_after_tls: Collection[str] | None
    advertise: Collection[str]
    advertise_after_tls: Collection[str] | None
    strict: bool
    data_size_limit: int
    command_size_limit: int
    line_size_limit: int
    max_recipients: int | None
    max_messages: int | None
    max_commands: int
    max_errors: int
    max_connections: int
    timeout: float
    wait_timeout: float
    proxy_protocol: bool
    allow_unused_rules: bool
    directory: Mapping[str, str | Collection[str]] | None
    tls: Literal["starttls", "implicit"] | None
    require_tls: bool
    ssl_context: ssl.SSLContext | None
    certificate: Certificate | None
    maximum_tls_version: Literal["TLSv1.2", "TLSv1.3"] | None
    client_certificates: Literal["optional", "required"] | None
    users: Mapping[str, str] | Users
    require_auth: bool
    auth_mechanisms: Collection[str] | None
    auth_without_tls: bool | None
    encryption_required: str | None
