"""The options for TLS and AUTH: checked, and turned into what the server and its sessions need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from pytest_smtpd.protocol.auth import AUTH, MECHANISM_NAMES
from pytest_smtpd.protocol.replies import Reply
from pytest_smtpd.protocol.starttls import REQUIRETLS, STARTTLS
from pytest_smtpd.protocol.state import ENCRYPTION_REQUIRED

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from pytest_smtpd.protocol.sasl import Users
    from pytest_smtpd.protocol.state import Extension

#: The bundled certificates that clients have to refuse.
Certificate: TypeAlias = Literal["expired", "not-yet-valid", "wrong-host", "self-signed"]

#: What most servers in the field offer.
_USUAL_MECHANISMS = ("PLAIN", "LOGIN")


class Security:
    """How connections are encrypted and clients authenticate.

    `tls` is "starttls" (offered), "implicit" (before the greeting) or None; `require_tls` and `ssl_context`
    stand for "starttls" where it is not given, as do the other options of TLS. `require_tls` refuses all that
    should not be said before STARTTLS. `ssl_context` is used instead of one with the bundled certificate.
    `certificate` has the server show one that clients must refuse: "expired", "not-yet-valid", "wrong-host" or
    "self-signed". `maximum_tls_version` is "TLSv1.2" or "TLSv1.3". `client_certificates` has clients asked for a certificate, "optional" or "required", which the bundled CA must have signed.

    `users` maps names to passwords, or is a function that returns the password for a name (None: no such
    user); without it anybody is accepted, with any password. `require_auth` refuses mail from who has not
    authenticated. `auth_mechanisms` are those to offer, by default PLAIN and LOGIN if users are given or
    authentication is required. `auth_without_tls` lets passwords be sent in the clear, by default where the
    server has no TLS; `encryption_required` is the reply, such as "538 5.7.11 No", to who tries it where
    it may not.

    Raises ValueError for values that make no sense.
    """

    tls: Literal["starttls", "implicit"] | None = None
    require_tls: bool = False
    ssl_context: ssl.SSLContext | None = None
    certificate: Certificate | None = None
    maximum_tls_version: Literal["TLSv1.2", "TLSv1.3"] | None = None
    client_certificates: Literal["optional", "required"] | None = None
    users: Mapping[str, str] | Users = None
    require_auth: bool = False
    auth_mechanisms: Iterable[str] | None = None
    auth_without_tls: bool | None = None
    encryption_required: str | None = None

    def __init__(self, **options: Any) -> None:
        """Take the options whose names and types are checked; the others have their defaults."""
        # No dataclass, which compiles its functions anew at the first test of each session.
        vars(self).update(options)
        self._settle()

    def _settle(self) -> None:
        """Check, and fill in what follows from other options."""
        if self.tls not in {None, "starttls", "implicit"}:
            msg = f"tls is 'starttls', 'implicit' or None, not {self.tls!r}"
            raise ValueError(msg)
        if self.ssl_context is not None:
            self._check_context(self.ssl_context)
        if isinstance(self.users, Mapping) and not all(
            isinstance(text, str) for user in self.users.items() for text in user
        ):
            msg = "users: passwords are strings, also those of mechanisms that send octets, and so are names"
            raise ValueError(msg)
        self._check_encryption_required()
        self._check_choices()
        if self.tls is None and (self.require_tls or self.ssl_context or self._context_options):
            self.tls = "starttls"
        if self.auth_mechanisms is None:
            wanted = self.users is not None or self.require_auth
            self.auth_mechanisms = _USUAL_MECHANISMS if wanted else ()
        self.auth_mechanisms = tuple(self._check_mechanisms(self.auth_mechanisms or ()))

    @property
    def _context_options(self) -> dict[str, str]:
        """The options that your own context decides about."""
        names = ("certificate", "maximum_tls_version", "client_certificates")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _check_choices(self) -> None:
        choices = {"certificate": get_args(Certificate), "maximum_tls_version": ("TLSv1.2", "TLSv1.3")}
        for name, possible in choices.items():
            value = getattr(self, name)
            if value not in {None, *possible}:
                msg = f"{name} is {', '.join(map(repr, possible))} or None, not {value!r}"
                raise ValueError(msg)

    def _check_encryption_required(self) -> None:
        try:
            is_refusal = self.encryption_required is None or Reply.parse(self.encryption_required).is_negative
        except ValueError:
            is_refusal = False
        if not is_refusal:
            msg = f"encryption_required is a reply such as '538 5.7.11 No', not {self.encryption_required!r}"
            raise ValueError(msg)

    def _check_context(self, context: ssl.SSLContext) -> None:
        import ssl

        if given := self._context_options:
            msg = f"{', '.join(given)}: your own ssl_context decides about that"
            raise ValueError(msg)
        if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
            msg = "ssl_context is one for clients; a server's is made with ssl.PROTOCOL_TLS_SERVER"
            raise ValueError(msg)

    def _check_mechanisms(self, names: Iterable[str]) -> Iterable[str]:
        for name in [names] if isinstance(names, str) else names:
            if name.upper() not in MECHANISM_NAMES:
                msg = f"auth_mechanisms: there is no {name}; there are {', '.join(MECHANISM_NAMES)}"
                raise ValueError(msg)
            from pytest_smtpd.protocol.sasl import MECHANISMS

            mechanism = MECHANISMS[name.upper()]
            if mechanism.needs_password and self.users is None:
                msg = f"auth_mechanisms: {name} works only with users=, as the server has to know the passwords"
                raise ValueError(msg)
            yield mechanism.name

    @property
    def context(self) -> ssl.SSLContext | None:
        """What TLS is done with, None for no TLS; ssl is imported for no less."""
        if self.tls is None or self.ssl_context is not None:
            return self.ssl_context
        import ssl

        from pytest_smtpd.network.tls import CERTIFICATES, server_context

        version = self.maximum_tls_version and ssl.TLSVersion[self.maximum_tls_version.replace(".", "_")]
        return server_context(
            self.certificate or CERTIFICATES[0],
            client_certificates=self.client_certificates,
            maximum_version=version or None,
        )

    @property
    def login(self) -> tuple[str, str] | None:
        """The name and password with which a client may log in: the first ones of `users`, if it is a mapping."""
        return next(iter(self.users.items()), None) if isinstance(self.users, Mapping) else None

    @property
    def extensions(self) -> list[Extension]:
        """The extensions that this configures."""
        starttls = [STARTTLS] if self.tls == "starttls" else []
        return [*starttls, *([REQUIRETLS] if self.tls else []), *([AUTH] if self.auth_mechanisms else [])]

    @property
    def security_settings(self) -> dict[str, Any]:
        """The settings of sessions that follow."""
        return {
            "users": self.users.get if isinstance(self.users, Mapping) else self.users,
            "require_auth": self.require_auth,
            "require_tls": self.require_tls,
            "auth_mechanisms": self.auth_mechanisms,
            "encryption_required": ENCRYPTION_REQUIRED
            if self.encryption_required is None
            else Reply.parse(self.encryption_required),
            "auth_without_tls": self.tls is None if self.auth_without_tls is None else self.auth_without_tls,
        }
