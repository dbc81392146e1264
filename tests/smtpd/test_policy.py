"""Access: for whom a proxy relays."""

from __future__ import annotations

import pytest

from pytest_smtpd.smtpd.policy import RelayPolicy, is_loopback

STRANGER = ("198.51.100.7", 4711)


@pytest.mark.parametrize(
    ("mailbox", "allowed"),
    [
        ("bob@example.org", True),
        ("bob@EXAMPLE.org", True),
        ("bob@lists.example.org", False),
        ("bob@example.com", False),
        ("bob@example.org.example.com", False),
        ("postmaster", True),
        ("bob", False),
        ("eve%example.com@example.org", False),
        ("example.com!eve@example.org", False),
        ('"eve@example.com"@example.org', False),
    ],
)
def test_relay_domains(mailbox: str, allowed: bool) -> None:  # noqa: FBT001
    """Mail is relayed to these domains, and not through them to others."""
    for domains in (["Example.org", "example.net"], "@example.org"):
        policy = RelayPolicy(domains, None)
        assert policy.is_restricted
        assert (policy.check(STRANGER, mailbox) is None) == allowed


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("192.0.2.9", True),
        ("192.0.3.9", False),
        ("127.0.0.1", False),
        ("::ffff:192.0.2.9", True),
        ("2001:db8::9", True),
        ("2001:db9::9", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("/run/client", False),
    ],
)
def test_relay_from(host: str, allowed: bool) -> None:  # noqa: FBT001
    """Mail is relayed for clients in these networks."""
    reply = RelayPolicy(None, ["192.0.2.0/24", "2001:db8::/32"]).check((host, 1), "bob@example.org")
    assert (reply is None) == allowed
    assert allowed or str(reply) == "550 5.7.1 Error: relaying denied"


def test_one_reason_is_enough() -> None:
    """With both, a client in the networks may send anywhere, and everybody to the domains."""
    policy = RelayPolicy(["example.org"], ["192.0.2.1"])
    assert policy.check(("192.0.2.1", 1), "bob@example.com") is None
    assert policy.check(STRANGER, "bob@example.org") is None
    assert policy.check(STRANGER, "bob@example.com") is not None


def test_no_restriction() -> None:
    """Without either everything is relayed, and with empty ones nothing."""
    assert RelayPolicy(None, None).check(STRANGER, "bob@example.com") is None
    assert not RelayPolicy(None, None).is_restricted
    assert RelayPolicy([], []).check(STRANGER, "bob@example.com") is not None


@pytest.mark.parametrize("network", ["example.org", "192.0.2.1/24", "192.0.2.0/33"])
def test_what_is_no_network(network: str) -> None:
    """A network that is none is a ValueError that shows what one looks like."""
    with pytest.raises(ValueError, match=r"relay_from has networks such as '192\.0\.2\.0/24'"):
        RelayPolicy(None, network)


@pytest.mark.parametrize(
    ("bound", "loopback"),
    [
        (("127.0.0.1", 25), True),
        (("127.8.9.10", 25), True),
        (("::1", 25, 0, 0), True),
        (("/run/smtp", 0), True),
        (("0.0.0.0", 25), False),  # noqa: S104 - just the point
        (("::", 25, 0, 0), False),
        (("192.0.2.1", 25), False),
        (("", 25), False),
    ],
)
def test_what_only_this_machine_can_reach(bound: tuple[object, ...], loopback: bool) -> None:  # noqa: FBT001
    """Loopback addresses and Unix sockets can be reached from this machine alone."""
    assert is_loopback(bound) == loopback
