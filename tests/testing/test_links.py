"""Links: URLs in a text, those of the HTML, and the one that is meant."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

from pytest_smtpd import Link
from pytest_smtpd.testing.links import choose_link, find_links, find_urls


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        pytest.param("See https://example.org/a?b=c#d.", ["https://example.org/a?b=c#d"], id="full stop"),
        pytest.param("HTTPS://Example.org", ["HTTPS://Example.org"], id="capitals"),
        pytest.param("(https://example.org/a_(b))!", ["https://example.org/a_(b)"], id="brackets in it and around it"),
        pytest.param("„https://example.org/“, »https://b/«…", ["https://example.org/“", "https://b/«"], id="quotes"),
        pytest.param("“https://example.org/”。", ["https://example.org/"], id="other quotes"),
        pytest.param(
            "\"https://a/\", 'https://b/', `https://c/`", ["https://a/", "https://b/", "https://c/"], id="ASCII"
        ),
        pytest.param("[x](https://a/b)", ["https://a/b"], id="Markdown"),
        pytest.param("https://münchen.example/straße?ü", ["https://münchen.example/straße?ü"], id="IRI"),
        pytest.param("http://[::1]:8000/a]", ["http://[::1]:8000/a"], id="IPv6"),
        pytest.param("<https://example.org/a\n  b\nc>", ["https://example.org/abc"], id="broken into lines"),
        pytest.param("<https://a/ b>", ["https://a/"], id="a space is no line end"),
        pytest.param("http:// https://... xhttps://a/ www.example.org ftp://a/ mailto:a@b", [], id="none"),
    ],
)
def test_urls_are_found_in_text(text: str, urls: list[str]) -> None:
    """URLs of http and https are found in a text, without what ends the sentence or surrounds them."""
    assert list(find_urls(text)) == urls


def test_links_are_each_once_in_order() -> None:
    """Links are those of the text and then of the HTML; one that has a text there takes it from there."""
    links = find_links("https://b/ https://a/", [("https://c/", ""), (" https://a\n/ ", "A"), ("https://a/", "again")])
    assert [(str(link), link.text) for link in links] == [("https://b/", ""), ("https://a/", "A"), ("https://c/", "")]
    assert find_links("", [(" ", "empty")]) == []


def test_a_link_is_a_string_with_its_text() -> None:
    """A link is a string in all respects, and knows what the HTML shows for it, also when it is copied."""
    link = Link("https://a/", "Click")
    assert link == "https://a/"
    assert hash(link) == hash("https://a/")
    assert link.startswith("https")
    for twin in (copy.deepcopy(link), pickle.loads(pickle.dumps(link))):  # noqa: S301 - our own
        assert (twin, twin.text) == ("https://a/", "Click")


LINKS = [Link("https://example.org/confirm?token=1", "Confirm"), Link("https://example.org/help")]


@pytest.mark.parametrize(
    "pattern", ["confirm", "token=1", "?", re.compile(r"token=\d$"), re.compile("CONFIRM", re.IGNORECASE)]
)
def test_the_link_that_is_meant(pattern: Any) -> None:
    """A link is chosen by a string that it contains, or a pattern that is found in it."""
    assert choose_link(LINKS, pattern) is LINKS[0]


@pytest.mark.parametrize(
    ("links", "pattern", "failure"),
    [
        pytest.param(
            LINKS,
            "reset",
            "expected one link with 'reset', found none\nLinks in the message: 2\n"
            "  'https://example.org/confirm?token=1' ('Confirm')\n  'https://example.org/help'",
            id="none",
        ),
        pytest.param(
            LINKS,
            re.compile("example"),
            "expected one link with /example/, found 2\nLinks in the message: 2\n"
            "  'https://example.org/confirm?token=1' ('Confirm')\n  'https://example.org/help'",
            id="two",
        ),
        pytest.param([], "", "expected one link, found none\nLinks in the message: none", id="no links"),
    ],
)
def test_a_failure_names_all_links(links: list[Link], pattern: Any, failure: str) -> None:
    """When no link matches, or more than one, the failure says which there are."""
    with pytest.raises(AssertionError) as caught:
        choose_link(links, pattern)
    assert str(caught.value) == failure


def test_a_failure_is_short() -> None:
    """Of very many and very long links, a failure shows some, cut."""
    with pytest.raises(AssertionError, match="… and 980 more") as caught:
        choose_link([Link(f"https://a/{number}" + "x" * 1000) for number in range(1000)], "a")
    assert len(str(caught.value)) < 6000


@pytest.mark.parametrize("pattern", [b"a", re.compile(b"a"), None, 1])
def test_what_is_no_pattern_is_a_type_error(pattern: Any) -> None:
    """What can't be looked for in a string is a TypeError that says what can."""
    with pytest.raises(TypeError, match="a link is chosen by a string that it contains"):
        choose_link(LINKS, pattern)
