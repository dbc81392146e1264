"""VRFY and EXPN: what a directory of users and mailing lists answers, and what is answered without one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import FULL, converse

from pytest_smtpd.protocol import extensions
from pytest_smtpd.protocol.directory import EXPN

if TYPE_CHECKING:
    from pytest_smtpd.protocol.state import Directory, Settings

EHLO = b"EHLO client.example\r\n"

CANNOT_VERIFY = "252 2.0.0 Cannot VRFY user, but will accept message and attempt delivery"
NO_SUCH_USER = "550 5.1.1 Error: no such user"
NO_SUCH_LIST = "550 5.1.1 Error: no such mailing list"
NEEDS_UTF8 = "252 2.6.8 The address needs SMTPUTF8 to be shown"
ADA = "250 2.1.5 Ada Lovelace <Ada.L@example.org>"

DIRECTORY: Directory = {
    "ada": "Ada Lovelace <Ada.L@example.org>",
    "Bob": "bob@example.org",
    "root@example.org": "bob@example.org",
    "josé": "josé@example.org",
    "pepe": "josé@example.org",
    "SMTPUTF8": "joker@example.org",
    "two words": "words@example.org",
    "staff": ("Ada Lovelace <Ada.L@example.org>", "bob@example.org"),
    "staff@example.org": ("ada.l@example.org",),
    "everybody": ("bob@example.org", "josé@example.org"),
    "nobody": (),
}


def knowing(directory: Directory | None) -> Settings:
    """Return the settings of a server with this directory, or without any."""
    return replace(FULL, extensions=(*extensions.ALL, EXPN), directory=directory)


def ask(command: str, settings: Settings) -> str:
    """Return the reply to a command, both before EHLO and after it."""
    before, _, after = converse(f"{command}\r\n".encode(), EHLO, f"{command}\r\n".encode(), settings=settings).replies
    assert before == after
    return after


@pytest.mark.parametrize(
    ("string", "reply"),
    [
        pytest.param("ada", ADA, id="a name"),
        pytest.param("ADA", ADA, id="a name in any case"),
        pytest.param("<ada>", ADA, id="a name in brackets"),
        pytest.param("  ada ", ADA, id="spaces"),
        pytest.param("Ada.L@example.org", ADA, id="an address"),
        pytest.param("<Ada.L@EXAMPLE.org>", ADA, id="an address in brackets, its domain in any case"),
        pytest.param('<"Ada.L"@example.org>', ADA, id="an address with needless quotes"),
        pytest.param("ada.l@example.org", NO_SUCH_USER, id="an address with a local part in another case"),
        pytest.param("Ada.L", NO_SUCH_USER, id="half an address"),
        pytest.param("bob", "250 2.1.5 <bob@example.org>", id="an address gets its brackets"),
        pytest.param("root@EXAMPLE.org", "250 2.1.5 <bob@example.org>", id="a name that is an address"),
        pytest.param("two words", "250 2.1.5 <words@example.org>", id="a name of two words"),
        pytest.param("eve", NO_SUCH_USER, id="nobody"),
        pytest.param("<>", NO_SUCH_USER, id="the null path"),
        pytest.param("staff", "252 2.0.0 That is a mailing list", id="a mailing list"),
        pytest.param("nobody", "252 2.0.0 That is a mailing list", id="a mailing list without members"),
        pytest.param("josé", NEEDS_UTF8, id="an address beyond ASCII"),
        pytest.param("JOSÉ", NEEDS_UTF8, id="a name beyond ASCII in any case"),
        pytest.param("pepe", NEEDS_UTF8, id="an address beyond ASCII for a name that is not"),
        pytest.param("pepe SMTPUTF8", "250 2.1.5 <josé@example.org>", id="with SMTPUTF8"),
        pytest.param("josé@example.org  smtputf8", "250 2.1.5 <josé@example.org>", id="with smtputf8"),
        pytest.param("ada SMTPUTF8", ADA, id="ASCII with SMTPUTF8"),
        pytest.param("eve SMTPUTF8", NO_SUCH_USER, id="nobody with SMTPUTF8"),
        pytest.param("SMTPUTF8", "250 2.1.5 <joker@example.org>", id="a user of that name"),
        pytest.param("SMTPUTF8 SMTPUTF8", "250 2.1.5 <joker@example.org>", id="a user of that name, with SMTPUTF8"),
    ],
)
def test_vrfy_looks_a_user_up(string: str, reply: str) -> None:
    """VRFY finds a user by name, without regard to case, or by mailbox, and shows the address in brackets."""
    assert ask(f"VRFY {string}", knowing(DIRECTORY)) == reply


@pytest.mark.parametrize(
    ("string", "reply"),
    [
        pytest.param("staff", f"{ADA.replace(' ', '-', 1)}\n250 2.1.5 <bob@example.org>", id="one line a member"),
        pytest.param("<STAFF>", f"{ADA.replace(' ', '-', 1)}\n250 2.1.5 <bob@example.org>", id="in any case"),
        pytest.param("staff@EXAMPLE.org", "250 2.1.5 <ada.l@example.org>", id="a list that has an address"),
        pytest.param("ada", "550 5.1.1 That is a user name, not a mailing list", id="a user"),
        pytest.param("ADA.L@example.org", NO_SUCH_LIST, id="no user's address"),
        pytest.param("friends", NO_SUCH_LIST, id="no list"),
        pytest.param("everybody", NEEDS_UTF8, id="a member beyond ASCII"),
        pytest.param(
            "everybody SMTPUTF8",
            "250-2.1.5 <bob@example.org>\n250 2.1.5 <josé@example.org>",
            id="a member beyond ASCII with SMTPUTF8",
        ),
    ],
)
def test_expn_shows_the_members_of_a_list(string: str, reply: str) -> None:
    """EXPN shows who is on a mailing list, in order, and tells a user from a list and from nothing."""
    assert ask(f"EXPN {string}", knowing(DIRECTORY)) == reply


def test_a_list_may_have_no_members() -> None:
    """EXPN of a list without members is a positive reply that names nobody."""
    reply = ask("EXPN nobody", knowing(DIRECTORY))
    assert reply.startswith("250 2.1.5")
    assert "@" not in reply


@pytest.mark.parametrize("string", ["bob", "<bob@example.org>", "josé SMTPUTF8"])
def test_without_a_directory_nothing_is_verified(string: str) -> None:
    """Where nobody is known VRFY promises no more than to try, and EXPN is not implemented."""
    assert ask(f"VRFY {string}", knowing(None)) == CANNOT_VERIFY
    assert ask(f"EXPN {string}", knowing(None)) == "502 5.5.1 EXPN not implemented"


@pytest.mark.parametrize("command", ["VRFY bob", "EXPN bob", "VRFY SMTPUTF8"])
def test_an_empty_directory_is_one_in_which_there_is_nobody(command: str) -> None:
    """A directory without entries is no missing directory: nobody is in it."""
    assert ask(command, knowing({})).startswith("550 5.1.1 ")


@pytest.mark.parametrize(
    ("command", "directory", "reply"),
    [
        ("VRFY", None, "501 5.5.4 Syntax: VRFY <address>"),
        ("VRFY", DIRECTORY, "501 5.5.4 Syntax: VRFY <address>"),
        ("EXPN", None, "502 5.5.1 EXPN not implemented"),
        ("EXPN", DIRECTORY, "501 5.5.4 Syntax: EXPN <list>"),
    ],
)
def test_both_need_an_argument(command: str, directory: Directory | None, reply: str) -> None:
    """VRFY alone and, where it is served, EXPN alone are syntax errors."""
    assert ask(command, knowing(directory)) == reply


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
entries = st.lists(names.map("{}@example.org".format), max_size=3).map(tuple) | names.map("{}@example.org".format)


@given(directory=st.dictionaries(names, entries, max_size=5), verb=st.sampled_from(["VRFY", "EXPN"]), string=names)
def test_any_string_and_any_directory_are_answered(directory: Directory, verb: str, string: str) -> None:
    """Whatever is asked for, and whoever is known, there is one reply, and without SMTPUTF8 it is ASCII."""
    for asked in (string, *directory):
        reply = ask(f"{verb} {asked}", knowing(directory))
        assert reply.isascii()
        assert reply[:3] in {"250", "252", "550"}
