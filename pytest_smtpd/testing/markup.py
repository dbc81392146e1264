"""HTML, as far as tests look into it: what it links to, and the text that it shows.

Read by the tokenizer of the HTML standard (WHATWG, 13.2.5), or what is left of it, in linear time. `html.parser`
takes minutes for some megabytes that somebody has made for the purpose, and raises on others.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TAG_OPEN = re.compile(r"<(?=[A-Za-z/!?])")
_TAG_NAME = re.compile(r"<(/?[A-Za-z][^\s/>]*+)")
_ATTRIBUTE = re.compile(
    r"""[\s/]*+([^\s/>=]++)(?:\s*+=\s*+(?:"(?P<double>[^"]*+)"|'(?P<single>[^']*+)'|(?P<unclosed>["'])|(?P<bare>[^\s>"'][^\s>]*+))?)?"""
)
#: In an attribute, "&section=" is no section sign: a reference has its semicolon there.
_REFERENCE = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
#: `html.unescape` raises for numbers that are too large.
_HUGE_REFERENCE = re.compile(r"&#(?:[0-9]{8,}+|[xX][0-9A-Fa-f]{7,}+);?")
_SPACE = re.compile(r"[ \t\n\r\f]+")
_BLANK_LINES = re.compile(r"\n{3,}")

#: What contains text that is no markup, and that nobody sees; with what ends it.
_RAW_TEXT = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "title", "textarea")}
#: What begins and ends no line.
_INLINE = frozenset(
    "a abbr b bdi bdo big cite code data del dfn em font i img ins kbd mark q s samp small span strike strong sub "  # noqa: SIM905
    "sup time tt u var wbr".split()
)
#: What leads somewhere: the attribute with the address, by element.
_ADDRESS = {"a": "href", "area": "href", "form": "action", "button": "formaction", "input": "formaction"}


@dataclass(frozen=True, slots=True)
class _Tag:
    name: str
    attributes: dict[str, str]


def read_html(source: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the text that an HTML document shows, blocks parted by empty lines, and its links with their texts."""
    page = _Page()
    for token in _tokens(source):
        if isinstance(token, str):
            page.add_text(token)
        else:
            page.add_tag(token)
    page.close_anchor()
    lines = "\n".join(line.strip() for line in "".join(page.pieces).split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip("\n"), page.links


class _Page:
    """What a document shows, as far as it was read."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        #: Addresses, each with the text that is shown for it.
        self.links: list[tuple[str, str]] = []
        #: The address of the anchor that is open, and at which piece it began.
        self._anchor: tuple[str, int] | None = None
        #: What the images in it show where they are not loaded.
        self._alternatives: list[str] = []

    def add_text(self, text: str) -> None:
        """Show a text."""
        text = html.unescape(_HUGE_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", text))
        self.pieces.append(_SPACE.sub(" ", text))

    def add_tag(self, tag: _Tag) -> None:
        """Begin or end an element."""
        name = tag.name.removeprefix("/")
        if name not in _INLINE:
            self.pieces.append("\n" if name == "br" else "\n\n")
        if name in {"a", "button"}:
            self.close_anchor()
        if tag.name == "img" and self._anchor and (alt := tag.attributes.get("alt")):
            self._alternatives.append(alt)
        address = tag.attributes.get(_ADDRESS.get(tag.name, ""), "")
        if address and name in {"a", "button"}:
            self._alternatives = []
            self._anchor = (address, len(self.pieces))
        elif address:
            self.links.append((address, tag.attributes.get("alt") or tag.attributes.get("value", "")))

    def close_anchor(self) -> None:
        """End the anchor that is open, if there is one."""
        if self._anchor is not None:
            address, start = self._anchor
            shown = " ".join("".join(self.pieces[start:]).split())
            self.links.append((address, shown or " ".join(self._alternatives)))
            self._anchor = None


def _tokens(source: str) -> Iterator[str | _Tag]:
    """Part a document into text and tags; comments and what nobody sees are left out."""
    position = 0
    while match := _TAG_OPEN.search(source, position):
        yield source[position : match.start()]
        name = _TAG_NAME.match(source, match.start())
        if name is None:  # a comment, or what is taken for one
            mark = "-->" if source.startswith("<!--", match.start()) else ">"
            end = source.find(mark, match.start() + 2)
            position = end + len(mark)
        else:
            end, attributes = _read_attributes(source, name.end())
            position = end + 1
            tag = _Tag(name[1].lower(), attributes)
            yield tag
            if raw := _RAW_TEXT.get(tag.name):
                closing = raw.search(source, position)
                end = position = closing.start() if closing else -1
        if end < 0:
            return  # whatever was begun has no end: nothing of it is shown
    yield source[position:]


def _read_attributes(source: str, position: int) -> tuple[int, dict[str, str]]:
    """Read the attributes of a tag; return them, and where the tag is closed, -1 if it isn't."""
    attributes: dict[str, str] = {}
    while match := _ATTRIBUTE.match(source, position):
        if match["unclosed"]:
            return -1, {}
        value = match["double"] or match["single"] or match["bare"] or ""
        attributes.setdefault(match[1].lower(), _REFERENCE.sub(lambda ref: html.unescape(ref[0]), value))
        position = match.end()
    end = source.find(">", position)
    return end, attributes if end >= 0 else {}
