"""Policy: for whom a proxy relays. Who relays for anybody is an open relay, and soon a spammer's."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, TypeAlias

from pytest_smtpd.protocol.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_smtpd.network.connection import Address

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"

DENIED = Reply(550, "Error: relaying denied", "5.7.1")

#: What routes mail on in the local part of an address, on servers that follow it: "eve%elsewhere.test@example.org".
_ROUTING = frozenset("%!@")


class RelayPolicy:
    """Whether a message may be relayed: to one of `domains`, or from a client in one of `networks`; None: any.

    Raises ValueError for a network that is none.
    """

    def __init__(self, domains: Iterable[str] | None, networks: Iterable[str] | None) -> None:
        self.is_restricted = domains is not None or networks is not None
        self._domains = {domain.lower().removeprefix("@") for domain in _listed(domains)}
        self._networks = [_read_network(network) for network in _listed(networks)]

    def check(self, peer: Address, mailbox: str) -> Reply | None:
        """Return the refusal of a recipient, or None where the message may be relayed."""
        if not self.is_restricted or self._is_for_us(mailbox) or self._is_from_us(peer):
            return None
        return DENIED

    def _is_for_us(self, mailbox: str) -> bool:
        if mailbox.lower() == "postmaster":  # the one mailbox that needs no domain (RFC 5321 4.5.1)
            return True
        local_part, _, domain = mailbox.rpartition("@")
        return domain.lower() in self._domains and not _ROUTING & set(local_part)

    def _is_from_us(self, peer: Address) -> bool:
        address = _read_address(peer[0])
        return address is not None and any(address in network for network in self._networks)


def _listed(values: Iterable[str] | None) -> list[str]:
    return [values] if isinstance(values, str) else list(values or ())


def _read_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        msg = f"relay_from has networks such as '192.0.2.0/24' or '2001:db8::/32', not {text!r}: {error}"
        raise ValueError(msg) from None


def _read_address(host: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read a client's address; None for one that is none, such as a Unix socket's."""
    try:
        address = ipaddress.ip_address(str(host))
    except ValueError:
        return None
    # A client of IPv4 at a socket of IPv6.
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(bound: Address) -> bool:
    """Whether only this machine can reach who listens on this address: on a loopback address, or a Unix socket."""
    host = str(bound[0])
    address = _read_address(host)
    return address.is_loopback if address is not None else host.startswith("/")
