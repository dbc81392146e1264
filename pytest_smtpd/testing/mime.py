"""MIME: the content of a message as a tree of parts, read leniently and within bounds.

`email` reads it, and is kept from what it takes too long for or fails on.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from email.feedparser import BytesFeedParser
from email.headerregistry import BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import default as default_policy
from typing import TYPE_CHECKING, Any, ClassVar, Self

from .charsets import decode_header, decode_octets, find_charset
from .headers import parse_media_type, parse_parameters, parse_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.policy import Policy

#: How deep parts may be nested, and how many there may be: what comes behind is not looked into.
MAX_DEPTH, MAX_PARTS = 32, 10_000

#: Of how many octets a header may be for `email` to parse it: its time grows with the square.
MAX_STRUCTURED_HEADER = 10_000

_CHUNK = 65_536


class _PlainHeader(UnstructuredHeader):
    """A header that is decoded, and not taken apart."""

    @classmethod
    def parse(cls, value: str, kwds: dict[str, Any]) -> None:
        """Set the decoded value."""
        super().parse("", kwds)
        kwds["decoded"] = decode_header(value)


class _PatientHeaders(HeaderRegistry):
    """Reads headers as email does, and those that it fails on, or takes too long for, as far as they can be read."""

    #: What stands for a header without which a message can't be looked into.
    _HARMLESS: ClassVar[dict[str, str]] = {"content-type": "text/plain", "content-disposition": "attachment"}

    def __call__(self, name: str, value: str) -> BaseHeader:
        """Return the header object."""
        harmless = self._HARMLESS.get(name.lower())
        for attempt in (value, value.partition(";")[0], harmless):
            # It raises whatever comes: IndexError, AttributeError, RecursionError …
            with contextlib.suppress(Exception):
                if attempt is not None and len(attempt) <= MAX_STRUCTURED_HEADER:
                    return super().__call__(name, attempt)
        return HeaderRegistry(default_class=_PlainHeader, use_default_map=False)(name, value)


# What is only read needs no folding anew, which fails for many a header.
_POLICY = default_policy.clone(header_factory=_PatientHeaders(), refold_source="none")


class _TooMany(Exception):  # noqa: N818 - the end of parsing, not an error
    """There are more parts than are looked into."""


class Part(EmailMessage):
    """An e-mail or a part of one, whose MIME headers are read without failing and in linear time."""

    def __init__(self, policy: Policy | None = None) -> None:
        super().__init__(policy)
        #: How deep it is nested, and how many parts there are in all.
        self.place = (0, [0])

    def _raw(self, name: str) -> str:
        return next((str(value) for header, value in self.raw_items() if header.lower() == name), "")

    @property
    def media_type(self) -> str:
        """The media type in lower case; that of text for one which can't be read (RFC 2045 5.2)."""
        raw = self._raw("content-type")
        return parse_media_type(raw) or "text/plain" if raw else self.get_default_type()

    @property
    def file_name(self) -> str:
        """The name of the file that the part is; "" if it has none."""
        disposed = self.get_param("filename", "", "content-disposition")
        return str(disposed or self.get_param("name", ""))

    @property
    def octets(self) -> bytes:
        """The content with its transfer encoding undone; b"" where it is parts."""
        payload = self.get_payload(decode=True)
        return payload if isinstance(payload, bytes) else b""

    @property
    def decoded(self) -> str:
        """The content as text, line ends as LF."""
        charset = parse_parameters(self._raw("content-type")).get("charset", "")
        return decode_octets(self.octets, charset).replace("\r\n", "\n")

    # What `email` asks, also while it parses.

    def attach(self, payload: Any) -> None:
        """Take a part; raises `_TooMany` when it is too much."""
        depth, parts = self.place
        if depth == MAX_DEPTH or parts[0] == MAX_PARTS:
            raise _TooMany
        parts[0] += 1
        payload.place = (depth + 1, parts)
        super().attach(payload)

    def get_content_type(self) -> str:
        """Return the media type."""
        return self.media_type

    def get_content_disposition(self) -> str | None:
        """Return "inline", "attachment", or None."""
        return parse_token(self._raw("content-disposition")) or None

    def get_param(
        self,
        param: str,
        failobj: Any = None,
        header: str = "content-type",
        unquote: bool = True,  # noqa: ARG002, FBT001, FBT002 - the signature is email's
    ) -> Any:
        """Return the decoded value of a parameter; a charset only if it is one."""
        value = parse_parameters(self._raw(header.lower())).get(param.lower())
        if value is None or (param.lower() == "charset" and not find_charset(value)):
            return failobj
        return value


class _Leaf(Part):
    """A part in which e-mails are octets like other attachments, exactly as they were sent."""

    def get_content_type(self) -> str:
        """Return the media type, for e-mails one that isn't looked into."""
        media_type = super().get_content_type()
        return "application/octet-stream" if media_type.startswith("message/") else media_type


def parse_email(data: bytes, kind: type[Part] = Part) -> Part:
    """Return the parsed content: as far as the bounds allow, if it is beyond them."""
    made: list[Part] = []

    def make(policy: Policy) -> Part:
        made.append(kind(policy))
        return made[-1]

    # typeshed knows no factory with a policy, which is what is called.
    parser: Any = BytesFeedParser(make, policy=_POLICY)  # type: ignore[arg-type]
    del made[:]  # the parser has tried it out
    with contextlib.suppress(_TooMany):
        for start in range(0, len(data), _CHUNK):
            parser.feed(data[start : start + _CHUNK])
        parser.close()
    return made[0]


@dataclass(slots=True, eq=False, repr=False)
class Content:
    """What a message contains: its bodies by media type, and the parts that are attached."""

    root: Part
    bodies: dict[str, Part]
    attached: list[Part]

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Sort the parts of a message: the first text and HTML are its bodies, the others are attached.

        What HTML shows itself, by multipart/related (RFC 2387), is neither.
        """
        content = cls(parse_email(data, _Leaf), {}, [])
        for part in _leaves(content.root):
            kind = part.media_type
            if kind.startswith("multipart/"):  # and has no parts: it was cut off, or its boundary is wrong
                if not part.octets.strip():
                    continue
                kind = "text/plain"
            is_body = kind in {"text/plain", "text/html"} and part.get_content_disposition() != "attachment"
            if is_body and kind not in content.bodies:
                content.bodies[kind] = part
            else:
                content.attached.append(part)
        return content

    def body(self, kind: str) -> str:
        """Return the body of this media type as text; "" if there is none."""
        return self.bodies[kind].decoded if kind in self.bodies else ""


def _leaves(part: Part) -> Iterator[Part]:
    """Return the parts that have no parts, but not what HTML shows."""
    if not part.is_multipart():
        yield part
        return
    parts: Any = part.get_payload()
    related = part.media_type == "multipart/related"
    start = part.get_param("start", "")
    shown_by = next((p for p in parts if start and p.get("content-id") == start), parts[0]) if related else None
    for each in parts:
        if not related or each is shown_by or not _can_be_shown(each):
            yield from _leaves(each)


def _can_be_shown(part: Part) -> bool:
    """Whether HTML can refer to a part (RFC 2392, RFC 2557): what some mailers put beside it are plain attachments."""
    return part.get_content_disposition() != "attachment" and ("content-id" in part or "content-location" in part)
