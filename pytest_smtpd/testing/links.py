"""Links: the URLs that an e-mail leads to, from its text and from its HTML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

from .shown import MAX_LISTED, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A host may be an IPv6 address in brackets (RFC 3986 3.2.2). What else RFC 3986 2 has no place for ends a URL, but
# not what is not ASCII: people read and write IRIs.
_URL = re.compile(r"\bhttps?://(?:\[[0-9A-Fa-f:.]++\])?[^\s<>\"'`\[\]{}|\\^]*+", re.IGNORECASE)
#: RFC 3986 appendix C: in angle brackets a URL may be broken into lines.
_BROKEN_URL = re.compile(r"<(https?://[^\s<>]++(?:\n[ \t]*+[^\s<>]++)++)>", re.IGNORECASE)
_NO_URL_IN_ATTRIBUTE = re.compile(r"[\t\n\r]+")

#: What ends the sentence, not the URL.
_PUNCTUATION = (
    ".,;:!?\N{HORIZONTAL ELLIPSIS}\N{RIGHT SINGLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}»›。、，．！？）」』】"  # noqa: RUF001 - they are
)


class Link(str):
    """A URL that an e-mail leads to: a string, with the `text` that the HTML shows for it; "" in plain text."""

    __slots__ = ("text",)

    text: str

    def __new__(cls, url: str, text: str = "") -> Self:
        """Return the link."""
        link = super().__new__(cls, url)
        link.text = text
        return link


def find_links(text: str, anchors: Iterable[tuple[str, str]]) -> list[Link]:
    """Return what text and HTML lead to, each URL once, in order; `anchors` are URLs of the HTML with their text."""
    links: dict[str, Link] = {}
    for url, shown in (*((url, "") for url in find_urls(text)), *anchors):
        # Line ends in an attribute are none of the URL's (WHATWG, URL 4.4).
        link = Link(_NO_URL_IN_ATTRIBUTE.sub("", url).strip(), shown)
        if link and not (link in links and links[link].text):
            links[link] = link
    return list(links.values())


def find_urls(text: str) -> Iterator[str]:
    """Return the http and https URLs in a text, without what ends the sentence."""
    joined = _BROKEN_URL.sub(lambda match: f"<{''.join(match[1].split())}>", text)
    for match in _URL.finditer(joined):
        url = _trim(match[0])
        if not url.endswith("://"):
            yield url


def _trim(url: str) -> str:
    """Cut off what ends the sentence, not the URL; a bracket that was opened in the URL belongs to it."""
    unopened = url.count(")") - url.count("(")
    end = len(url)
    while end and (url[end - 1] in _PUNCTUATION or (url[end - 1] == ")" and unopened > 0)):
        unopened -= url[end - 1] == ")"
        end -= 1
    return url[:end]


def choose_link(links: list[Link], pattern: str | re.Pattern[str]) -> Link:
    """Return the only link that contains a string, or in which a pattern is found.

    Raises AssertionError, which names all links, when there is none or more than one.
    """
    __tracebackhide__ = True
    text: Any = pattern.pattern if isinstance(pattern, re.Pattern) else pattern
    if not isinstance(text, str):
        msg = f"a link is chosen by a string that it contains, or a compiled pattern of one, not {pattern!r}"
        raise TypeError(msg)
    chosen = [link for link in links if (pattern in link if isinstance(pattern, str) else pattern.search(link))]
    if len(chosen) != 1:
        wanted = f" with {show(text, 200)}" if isinstance(pattern, str) else f" with /{text}/"
        wanted = wanted if text else ""
        raise AssertionError("\n".join([f"expected one link{wanted}, found {len(chosen) or 'none'}", *_list(links)]))
    return chosen[0]


def _list(links: list[Link]) -> Iterator[str]:
    yield f"Links in the message: {len(links) or 'none'}"
    for link in links[:MAX_LISTED]:
        yield f"  {show(link, 200)}" + (f" ({show(link.text)})" if link.text else "")
    if len(links) > MAX_LISTED:
        yield f"  … and {len(links) - MAX_LISTED} more"
