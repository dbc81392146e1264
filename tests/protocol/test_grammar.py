"""The grammar of RFC 5321 4.1: commands, paths, mailboxes, literals, parameters; and how long reading takes."""

from __future__ import annotations

import contextlib
import re
import string
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import assert_linear

from pytest_smtpd.protocol import grammar
from pytest_smtpd.protocol.grammar import ControlCharacterError, GrammarError, Path, PathError
from pytest_smtpd.protocol.lints import Lint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Commands.


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        pytest.param("NOOP", "NOOP", "", id="a verb alone"),
        pytest.param("noOp", "NOOP", "", id="a verb in any case"),
        pytest.param("NOOP  ", "NOOP", "", id="trailing spaces"),
        pytest.param("HELP mail", "HELP", "mail", id="the argument keeps its case"),
        pytest.param("NOOP   two  words  ", "NOOP", "two  words", id="inner spaces stay"),
        pytest.param("NOOP J\u00f6rg", "NOOP", "J\u00f6rg", id="an argument beyond ASCII"),
        pytest.param("NOOP \t ", "NOOP", "", id="trailing blanks"),
        pytest.param("NOOP\t", "NOOP", "", id="a trailing tab"),
        pytest.param("NOOP a b\t\t", "NOOP", "a b", id="tabs behind an argument"),
        pytest.param("X1 a", "X1", "a", id="a verb with a digit"),
        pytest.param("1X a", "1X", "a", id="a verb that begins with a digit"),
        pytest.param("421", "421", "", id="a verb of digits"),
    ],
)
def test_a_command_is_a_verb_and_an_argument(line: str, verb: str, argument: str) -> None:
    """A command line is read as its verb in upper case and its argument as it was given."""
    assert grammar.parse_command(line) == (verb, argument)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "  ",
        "\t",
        " NOOP",
        "J\u00d6RG",
        "\u0130NOOP",
        "\u0661",
        "\u00b2X",
        "NOOP\u00a0x",
    ],
)
def test_a_command_begins_with_a_verb(line: str) -> None:
    """A line that does not begin with a word of ASCII is no command."""
    with pytest.raises(GrammarError, match="begins with a verb") as caught:
        grammar.parse_command(line)
    assert not isinstance(caught.value, ControlCharacterError)


@pytest.mark.parametrize("octet", [*range(32), 127], ids=lambda octet: f"{octet:02x}")
@pytest.mark.parametrize("line", ["NOOP a{}b", "NO{}OP", "{}NOOP", "NOOP {} x", "<{}>"])
def test_a_command_has_no_control_characters(line: str, octet: int) -> None:
    """A control character inside of a line is an error of its own kind, a tab as well."""
    with pytest.raises(ControlCharacterError, match="no control characters"):
        grammar.parse_command(line.format(chr(octet)))


@pytest.mark.parametrize("octet", [octet for octet in (*range(32), 127) if chr(octet) != "\t"], ids="{:02x}".format)
@pytest.mark.parametrize("line", ["{}", "NOOP{}", "NOOP x {}", "NOOP {}\t"])
def test_only_blanks_are_stripped_from_the_end(line: str, octet: int) -> None:
    """A control character at the end of a line, where a tab is a trailing blank, is an error as well."""
    with pytest.raises(ControlCharacterError, match="no control characters"):
        grammar.parse_command(line.format(chr(octet)))


# Paths.


@pytest.mark.parametrize(
    ("argument", "mailbox", "rest"),
    [
        pytest.param("FROM:<a@b.example>", "a@b.example", "", id="a path alone"),
        pytest.param("from:<a@b.example>", "a@b.example", "", id="the keyword in any case"),
        pytest.param("FROM:<>", "", "", id="the null path"),
        pytest.param("FROM:<> SIZE=1", "", "SIZE=1", id="the null path with a parameter"),
        pytest.param("FROM:<a@b> SIZE=1 X", "a@b", "SIZE=1 X", id="parameters"),
        pytest.param("FROM:<a@b>   SIZE=1 X", "a@b", "SIZE=1 X", id="more spaces before the parameters"),
        pytest.param("FROM:<A@B.Example>", "A@B.Example", "", id="the mailbox keeps its case"),
        pytest.param("FROM:<@r:a@b> X", "a@b", "X", id="a source route"),
        pytest.param('FROM:<"a>b"@x> X', '"a>b"@x', "X", id="a bracket in a quoted string"),
        pytest.param(r'FROM:<"a\">b"@x> X', r'"a\">b"@x', "X", id="a bracket behind a quoted quote"),
        pytest.param(r'FROM:<"a\\"@x> X', r'"a\\"@x', "X", id="a quoted backslash"),
        pytest.param('FROM:<""@x>', '""@x', "", id="an empty quoted string"),
        pytest.param("FROM:<u@[127.0.0.1]>", "u@[127.0.0.1]", "", id="an address literal"),
        pytest.param("FROM:<postmaster>", "postmaster", "", id="postmaster"),
        pytest.param("FROM:<j\u00f6rg@m\u00fcller.example>", "j\u00f6rg@m\u00fcller.example", "", id="beyond ASCII"),
        pytest.param("FROM:<!#$%&'*+-/=?^_`{|}~@x>", "!#$%&'*+-/=?^_`{|}~@x", "", id="all of atext"),
    ],
)
def test_a_path_is_read_up_to_its_bracket(argument: str, mailbox: str, rest: str) -> None:
    """A path is its mailbox as it was given; what follows its bracket is left for the parameters."""
    path, left = grammar.parse_path_argument("FROM:", argument)
    assert (path.mailbox, path.lints, left.lstrip(" ")) == (mailbox, (), rest)


@pytest.mark.parametrize(
    ("argument", "mailbox", "rest", "lints"),
    [
        pytest.param("TO: <a@b> X", "a@b", "X", [Lint.SPACE_BEFORE_PATH], id="a space"),
        pytest.param("TO:   <a@b>", "a@b", "", [Lint.SPACE_BEFORE_PATH], id="spaces"),
        pytest.param("TO:a@b", "a@b", "", [Lint.NO_BRACKETS], id="no brackets"),
        pytest.param("TO:a@b X=1", "a@b", "X=1", [Lint.NO_BRACKETS], id="no brackets and a parameter"),
        pytest.param("TO: a@b", "a@b", "", [Lint.SPACE_BEFORE_PATH, Lint.NO_BRACKETS], id="a space and no brackets"),
        pytest.param("TO:<a..b@x>", "a..b@x", "", [Lint.LOCAL_PART], id="two dots"),
        pytest.param("TO:<.a@x>", ".a@x", "", [Lint.LOCAL_PART], id="a dot first"),
        pytest.param("TO:<a.@x>", "a.@x", "", [Lint.LOCAL_PART], id="a dot last"),
        pytest.param("TO:<bob>", "bob", "", [Lint.NO_DOMAIN], id="no domain"),
        pytest.param("TO:<a@foo_bar>", "a@foo_bar", "", [Lint.DOMAIN], id="an underscore"),
        pytest.param("TO:<a@b..c>", "a@b..c", "", [Lint.DOMAIN], id="two dots in the domain"),
        pytest.param("TO:<a@-b>", "a@-b", "", [Lint.DOMAIN], id="a hyphen first"),
        pytest.param("TO:<a@b.>", "a@b.", "", [Lint.DOMAIN], id="a dot behind the domain"),
        pytest.param("TO:<.a@-b>", ".a@-b", "", [Lint.LOCAL_PART, Lint.DOMAIN], id="both sides"),
    ],
)
def test_a_sloppy_path_comes_with_lints(argument: str, mailbox: str, rest: str, lints: list[Lint]) -> None:
    """A path that can be read although the standard forbids it says what is wrong with it."""
    path, left = grammar.parse_path_argument("TO:", argument)
    assert (path.mailbox, list(path.lints), left.lstrip(" ")) == (mailbox, lints, rest)


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param("", id="nothing"),
        pytest.param("FROM", id="no colon"),
        pytest.param("FROM :<a@b>", id="a space before the colon"),
        pytest.param("TO:<a@b>", id="another keyword"),
        pytest.param("FROM:", id="no path"),
        pytest.param("FROM: ", id="a space and no path"),
        pytest.param("FROM:<a@b", id="no closing bracket"),
        pytest.param("FROM:<", id="an opening bracket"),
        pytest.param('FROM:<"a@b>', id="an open quoted string"),
        pytest.param("FROM:<a@b>SIZE=1", id="no space before the parameter"),
        pytest.param("FROM:<>SIZE=1", id="no space behind the null path"),
        pytest.param("FROM:<a@b>>", id="two closing brackets"),
    ],
)
def test_a_wrong_form_is_no_path(argument: str) -> None:
    """What has not the form of a path argument is a GrammarError, and not the fault of its mailbox."""
    with pytest.raises(GrammarError) as caught:
        grammar.parse_path_argument("FROM:", argument)
    assert not isinstance(caught.value, PathError)


@pytest.mark.parametrize(
    "mailbox",
    [
        pytest.param("@b", id="no local part"),
        pytest.param("a@", id="an empty domain"),
        pytest.param("a@b@c", id="two at signs"),
        pytest.param("a b@c", id="a bare space"),
        pytest.param("<a@b", id="an opening bracket"),
        pytest.param('"a"b@c', id="text behind a quoted string"),
        pytest.param("a@b c", id="a space in the domain"),
        pytest.param("a(comment)@b", id="a comment"),
        pytest.param("a@b\u0000", id="a control character"),
        pytest.param("@r:", id="a route to nowhere"),
        pytest.param("@r,a@b", id="a route without a colon"),
        pytest.param("r:a@b", id="a route without an at sign"),
        pytest.param("@r,s:a@b", id="a route with a second domain without an at sign"),
        pytest.param("@[1.2.3]:a@b", id="a broken literal in a route"),
    ],
)
def test_a_wrong_mailbox_is_the_fault_of_the_path(mailbox: str) -> None:
    """A path of the right form with no possible mailbox in it is a PathError."""
    with pytest.raises(PathError):
        grammar.parse_path_argument("FROM:", f"FROM:<{mailbox}>")


@pytest.mark.parametrize(
    ("route", "domains"),
    [
        pytest.param("", (), id="none"),
        pytest.param("@r.example:", ("r.example",), id="one domain"),
        pytest.param("@r.example,@s.example,@t:", ("r.example", "s.example", "t"), id="three domains"),
        pytest.param("@[127.0.0.1],@[IPv6:::1]:", ("[127.0.0.1]", "[IPv6:::1]"), id="address literals"),
    ],
)
def test_a_source_route_is_kept_aside(route: str, domains: tuple[str, ...]) -> None:
    """The domains of a source route stand beside the mailbox, not in it."""
    assert grammar.parse_mailbox(f"{route}u@c.example") == Path("u@c.example", domains)


def test_the_null_path_has_no_mailbox() -> None:
    """Nothing between the brackets is the path with the empty mailbox."""
    assert grammar.parse_mailbox("") == Path("")


@pytest.mark.parametrize("mailbox", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain(mailbox: str) -> None:
    """Postmaster, in any case, is the one mailbox that is right without a domain."""
    assert grammar.parse_mailbox(mailbox) == Path(mailbox)


@pytest.mark.parametrize(
    ("text", "lints"),
    [
        pytest.param("l" * 64 + "@x", (), id="the longest local part"),
        pytest.param("l" * 65 + "@x", (Lint.TOO_LONG_PATH,), id="a longer local part"),
        pytest.param("\u00e9" * 32 + "@x", (), id="octets count: 64 of 32 characters"),
        pytest.param("\u00e9" * 33 + "@x", (Lint.TOO_LONG_PATH,), id="octets count: 66 of 33 characters"),
        pytest.param("\u20ac" * 21 + "ab@x", (Lint.TOO_LONG_PATH,), id="octets count in few characters"),
        pytest.param('"' + "l" * 62 + '"@x', (), id="quotes count"),
        pytest.param('"' + "l" * 63 + '"@x', (Lint.TOO_LONG_PATH,), id="a longer quoted string"),
        pytest.param("aa@" + "d" * 251, (), id="the longest path, brackets included"),
        pytest.param("aaa@" + "d" * 251, (Lint.TOO_LONG_PATH,), id="a longer path"),
        pytest.param("@" + "r" * 121 + ":a@" + "d" * 129, (), id="the longest path with a route"),
        pytest.param("@" + "r" * 122 + ":a@" + "d" * 129, (Lint.TOO_LONG_PATH,), id="a longer route"),
    ],
)
def test_what_is_longer_than_servers_must_take_is_noted(text: str, lints: tuple[Lint, ...]) -> None:
    """A local part of more than 64 octets and a path of more than 256, brackets included, have a lint."""
    path, rest = grammar.parse_path_argument("FROM:", f"FROM:<{text}> X")
    assert (path.lints, rest.lstrip(" ")) == (lints, "X")


# Address literals.

LITERALS = [
    "[127.0.0.1]",
    "[255.255.255.255]",
    "[IPv6:::1]",
    "[ipv6:2001:DB8::1]",
    "[IPv6:::ffff:127.0.0.1]",
    "[IPv6:1:2:3:4:5:6:7:8]",
    "[x-tag:what-ever/it.is]",
]
NO_LITERALS = [
    "[]",
    "[300.1.1.1]",
    "[1.2.3]",
    "[1.2.3.4.5]",
    "[example]",
    "[::1]",
    "[IPv6:]",
    "[IPv6:zz]",
    "[IPv6:127.0.0.1]",
    "[IPv6:fe80::1%eth0]",
    "[tag:]",
    "[tag-:x]",
    "[:x]",
    "[a_b:x]",
    "[tag:a b]",
    "[tag:a[b]",
    r"[tag:a\b]",
]


@pytest.mark.parametrize("literal", LITERALS)
def test_an_address_literal_is_a_domain(literal: str) -> None:
    """IPv4, IPv6 and tagged literals stand for a domain, in a mailbox and in HELO."""
    assert grammar.parse_mailbox(f"u@{literal}") == Path(f"u@{literal}")
    assert grammar.helo_lints(literal) == ()


@pytest.mark.parametrize("literal", NO_LITERALS)
def test_a_wrong_address_literal_is_none(literal: str) -> None:
    """What is in brackets and no address makes no mailbox, and is noted in HELO."""
    with pytest.raises(PathError):
        grammar.parse_mailbox(f"u@{literal}")
    assert grammar.helo_lints(literal) == (Lint.HELO_NAME,)


@pytest.mark.parametrize(
    "name", ["localhost", "client.example", "1.2.3.4", "xn--mller-kva.example", "m\u00fcller.example"]
)
def test_a_domain_is_a_name(name: str) -> None:
    """A client that names itself with a domain does right."""
    assert grammar.helo_lints(name) == ()


@pytest.mark.parametrize(
    "name", ["foo_bar", "a b", "-a", "a-", "a..b", ".a", "a.", "[127.0.0.1", "127.0.0.1]", "a@b", ""]
)
def test_what_is_no_domain_is_noted(name: str) -> None:
    """A client that names itself with something else has a lint."""
    assert grammar.helo_lints(name) == (Lint.HELO_NAME,)


# Parameters.


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        pytest.param("", (), id="none"),
        pytest.param(" SIZE=10 SMTPUTF8", (("SIZE", "10"), ("SMTPUTF8", None)), id="with and without a value"),
        pytest.param("body=8bitMime", (("BODY", "8bitMime"),), id="the keyword alone is put in upper case"),
        pytest.param("  A   B=1  ", (("A", None), ("B", "1")), id="more spaces"),
        pytest.param("A=1 A=2 A", (("A", "1"), ("A", "2"), ("A", None)), id="the same again, in order"),
        pytest.param("X-1=<>", (("X-1", "<>"),), id="all characters but the equals sign"),
        pytest.param("A=\u00e9", (("A", "\u00e9"),), id="a value beyond ASCII"),
    ],
)
def test_parameters_are_keywords_with_values(text: str, parameters: grammar.Parameters) -> None:
    """Parameters are read in order, keywords in upper case, each with its value or None."""
    assert grammar.parse_parameters(text) == parameters
    assert grammar.parse_parameters(" ".join(grammar.format_parameters(parameters))) == parameters


@pytest.mark.parametrize(
    "text",
    ["SIZE=", "=1", "A=1=2", "-A", "A_B=1", "\u00c4=1", "A=1 !", "<a@b>", "A=1\u00a0B=2", "A\u3000B", "A\tB", "A=\x7f"],
)
def test_what_is_no_parameter(text: str) -> None:
    """A word that is no keyword with or without a value is an error; only a space parts words."""
    with pytest.raises(GrammarError, match="is no ESMTP parameter"):
        grammar.parse_parameters(text)


def test_parameters_are_written_as_they_are_sent() -> None:
    """Parameters become one string each, those without a value the keyword alone."""
    assert grammar.format_parameters((("SIZE", "10"), ("SMTPUTF8", None))) == ["SIZE=10", "SMTPUTF8"]


# xtext.


@pytest.mark.parametrize(
    ("xtext", "text"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("ada@example.org", "ada@example.org", id="nothing to decode"),
        pytest.param("e+3Dmc2@x", "e=mc2@x", id="an equals sign"),
        pytest.param("a+2Bb+20c", "a+b c", id="a plus sign and a space"),
        pytest.param("+2B3D", "+3D", id="decoded once"),
        pytest.param("jos+C3+A9@x", "jos\u00e9@x", id="UTF-8, encoded"),
        pytest.param("jos\u00e9@x", "jos\u00e9@x", id="UTF-8, raw"),
        pytest.param("jos+E9", "jos\\xe9", id="octets that are no UTF-8"),
        pytest.param("+00", "\0", id="NUL"),
    ],
)
def test_xtext_is_decoded(xtext: str, text: str) -> None:
    """In xtext a plus sign and two hexadecimal digits stand for an octet."""
    assert grammar.decode_xtext(xtext) == text


@pytest.mark.parametrize("xtext", ["+", "a+", "a+3", "a+3d", "a+zz", "a=b", "a b", "a\tb", "a\nb", "a\x7f", "+3 D"])
def test_what_is_no_xtext(xtext: str) -> None:
    """A plus sign without two digits in upper case, an equals sign, a space or a control character is an error."""
    with pytest.raises(GrammarError, match="is no xtext"):
        grammar.decode_xtext(xtext)


# Which spellings are one mailbox.


@pytest.mark.parametrize(
    ("mailbox", "canonical"),
    [
        pytest.param("ada@example.org", "ada@example.org", id="nothing to do"),
        pytest.param("ada@Example.ORG", "ada@example.org", id="domains have no case"),
        pytest.param("Ada@example.org", "Ada@example.org", id="local parts have"),
        pytest.param('"ada"@example.org', "ada@example.org", id="needless quotes"),
        pytest.param('"ada.l"@example.org', "ada.l@example.org", id="needless quotes around a dot"),
        pytest.param(r'"\a\d\a"@example.org', "ada@example.org", id="needless backslashes"),
        pytest.param('"a b"@x', '"a b"@x', id="quotes around a space"),
        pytest.param(r'"a\ b"@x', '"a b"@x', id="a needless backslash in needed quotes"),
        pytest.param(r'"a\"b"@x', r'"a\"b"@x', id="a needed backslash"),
        pytest.param(r'"a\\b"@x', r'"a\\b"@x', id="a quoted backslash"),
        pytest.param('"a@B"@X', '"a@B"@x', id="a quoted at sign"),
        pytest.param('"a..b"@x', '"a..b"@x', id="quotes around two dots"),
        pytest.param('""@x', '""@x', id="empty quotes"),
        pytest.param("u@[IPv6:2001:DB8::1]", "u@[ipv6:2001:db8::1]", id="literals have no case"),
        pytest.param("bob", "bob", id="no domain"),
        pytest.param("Bob", "Bob", id="no domain, and case"),
        pytest.param("PostMaster", "postmaster", id="postmaster has no case"),
        pytest.param("", "", id="the null path"),
    ],
)
def test_the_canonical_mailbox(mailbox: str, canonical: str) -> None:
    """Spellings of one mailbox have one canonical form: the domain in lower case, and no needless quoting."""
    assert grammar.canonical_mailbox(mailbox) == canonical


# Any text, and any mailbox.

ATEXT = string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~\u00e9\u00df\u6f22"
atoms = st.text(ATEXT, min_size=1, max_size=4)
dot_strings = st.lists(atoms, min_size=1, max_size=3).map(".".join)
quotable = st.characters(min_codepoint=32, max_codepoint=126)
quoted_strings = st.lists(
    quotable.filter(lambda c: c not in '\\"') | quotable.map(lambda c: "\\" + c), max_size=15
).map(lambda parts: f'"{"".join(parts)}"')
labels = st.from_regex(r"[A-Za-z0-9\u00e9]([A-Za-z0-9\u00e9-]{0,5}[A-Za-z0-9\u00e9])?", fullmatch=True)
literals = st.ip_addresses(v=4).map("[{}]".format) | st.ip_addresses(v=6).map("[IPv6:{}]".format)
domains = st.lists(labels, min_size=1, max_size=3).map(".".join) | literals
mailboxes = st.builds("{}@{}".format, dot_strings | quoted_strings, domains)
#: Text in which the characters that mean something are frequent.
text = st.text() | st.text('<>@[]":\\,. =aIPv6%-_\u00e9\0')


@given(text)
def test_any_text_is_a_path_or_a_grammar_error(argument: str) -> None:
    """Whatever follows the keyword is read as a path, or is a GrammarError."""
    for whole in (argument, f"FROM:{argument}", f"FROM:<{argument}> {argument}"):
        with contextlib.suppress(GrammarError):
            path, rest = grammar.parse_path_argument("FROM:", whole)
            assert path.mailbox in whole
            assert whole.endswith(rest)


@given(text)
def test_any_text_is_a_command_or_a_grammar_error(line: str) -> None:
    """Whatever the line, it is read as a command with a verb of ASCII, or is a GrammarError."""
    for whole in (line, f"NOOP {line}"):
        with contextlib.suppress(GrammarError):
            verb, argument = grammar.parse_command(whole)
            assert verb.isascii()
            assert re.fullmatch(r"[^ a-z]+", verb)
            assert argument == argument.lstrip(" ").rstrip(" \t")


@given(text)
def test_any_text_is_parameters_or_a_grammar_error(words: str) -> None:
    """Whatever the text, it is read as parameters that are written as they were read, or is a GrammarError."""
    with contextlib.suppress(GrammarError):
        parameters = grammar.parse_parameters(words)
        assert grammar.parse_parameters(" ".join(grammar.format_parameters(parameters))) == parameters


@given(mailboxes)
def test_a_valid_mailbox_is_read_as_it_was_written(mailbox: str) -> None:
    """Any valid mailbox goes through a path unchanged, and without a lint."""
    path, rest = grammar.parse_path_argument("FROM:", f"FROM:<{mailbox}> X=1")
    assert (path, rest.lstrip(" ")) == (Path(mailbox), "X=1")


@given(mailboxes | text)
def test_the_canonical_mailbox_is_canonical(mailbox: str) -> None:
    """The canonical form of a canonical mailbox is itself."""
    canonical = grammar.canonical_mailbox(mailbox)
    assert grammar.canonical_mailbox(canonical) == canonical


@given(mailboxes)
def test_the_canonical_mailbox_is_a_mailbox(mailbox: str) -> None:
    """The canonical form of a valid mailbox is a valid mailbox, and that of its quoted spelling."""
    canonical = grammar.canonical_mailbox(mailbox)
    assert grammar.parse_mailbox(canonical) == Path(canonical)
    local_part, _, domain = canonical.rpartition("@")
    if not local_part.startswith('"'):
        assert grammar.canonical_mailbox(f'"{local_part}"@{domain}') == canonical


# How long it takes.


def _path(text: str) -> object:
    return grammar.parse_path_argument("FROM:", f"FROM:{text}")


READERS: dict[str, tuple[Callable[[str], object], Sequence[tuple[str, str, str]]]] = {
    # What is repeated stands between what comes before and behind it.
    "parse_command": (
        grammar.parse_command,
        [("", "A", "!"), ("", " ", "!"), ("A", " ", "\0"), ("A ", "x", "\0"), ("A", " x", "\0"), ("A ", "\u00e9", "")],
    ),
    "parse_path_argument": (
        _path,
        [
            ("", " ", ""),
            ("", "<", ""),
            ("<", "a", ""),
            ("<", "a", "!>"),
            ("<", "a.", "@x>"),
            ("<", "a.", "a>"),
            ("<", "a@", ">"),
            ("<a@", "a", "!>"),
            ("<a@", "a-", ">"),
            ("<a@", "a.", ">"),
            ("<a@", "a-a.", "-!>"),
            ("<a@", "_", "!>"),
            ("<", '"', ">"),
            ('<"', "\\a", ">"),
            ('<"', "\\", '"@x>'),
            ('<"', "a", ">"),
            ("<@a", ",@a", ">"),
            ("<@a", ",@a", ":a@b>"),
            ("<@a", ",@a-a.a", ":>"),
            ("<a@[", "1", "]>"),
            ("<a@[", "1.", "]>"),
            ("<a@[IPv6:", ":", "]>"),
            ("<a@[IPv6:", "f:", "]>"),
            ("<a@[", "a-", ":x]>"),
            ("<a@[", "a", "_:x]>"),
            ("<", "\u00e9", "@x>"),
        ],
    ),
    "parse_parameters": (
        grammar.parse_parameters,
        [("", "A ", ""), ("", "A=", ""), ("", "A-", "!"), ("A=", "x", "\0"), ("", " ", "!")],
    ),
    "helo_lints": (
        grammar.helo_lints,
        [("", "a", "!"), ("", "a-", ""), ("", "a.", ""), ("[", "a-", ":]"), ("[", "1.", "]"), ("[", ":", "]")],
    ),
    "decode_xtext": (
        grammar.decode_xtext,
        [("", "a", "="), ("", "+3D", "+"), ("", "+", ""), ("", "\u00e9", "=")],
    ),
    "canonical_mailbox": (
        grammar.canonical_mailbox,
        [('"', "\\", '"@x'), ('"', "a.", '"@x'), ('"', '\\"', '"@x'), ("", "@", ""), ("", "A", "@X")],
    ),
}


def _cost(read: Callable[[str], object], text: str) -> int:
    """Return what reading a text costs this time, in any unit."""
    start = time.perf_counter_ns()
    with contextlib.suppress(GrammarError):
        read(text)
    return time.perf_counter_ns() - start


@pytest.mark.parametrize(
    ("read", "before", "repeated", "behind"),
    [
        pytest.param(read, *parts, id=f"{name} {parts[0]!a} {parts[1]!a} {parts[2]!a}")
        for name, (read, texts) in READERS.items()
        for parts in texts
    ],
)
def test_reading_takes_as_long_as_the_text_is(
    read: Callable[[str], object], before: str, repeated: str, behind: str
) -> None:
    """Ten times the text costs ten times as much to read or so, not a hundred times: nothing backtracks."""
    small, large = (before + repeated * count + behind for count in (500, 5000))
    assert_linear(lambda: _cost(read, small), lambda: _cost(read, large), times=45, least=5, most=60)
