"""Octets of a declared charset as text, whatever they are, and whatever was declared.

Nothing here raises, and nothing takes more time than in proportion to the octets: `email` and some of Python's
codecs do, for mail that somebody has made for the purpose.
"""

from __future__ import annotations

import binascii
import codecs
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Names of charsets are short; a codec for each other name would be searched for on the disk.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,39}"

#: Codecs that are no charsets: their time grows with the square of the text's length, or they give warnings.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "unicode_escape", "raw-unicode-escape", "undefined"})

#: An encoded word (RFC 2047 2), with the language of RFC 2231 5; lenient, as there are spaces in many.
_ENCODED_WORD = r"=\?([^?*]++)(?:\*[^?]*+)?\?([BbQq])\?([^?]*+)\?="

_NO_BASE64 = r"[^A-Za-z0-9+/]+"
_LONE_SURROGATE = "[\ud800-\udfff]"
_FOLD = re.compile(r"\r\n|\r|\n")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def find_charset(name: str) -> str:
    """Return the name of the codec for a charset; "" if Python has none that is fit to read mail."""
    name = name.strip()
    if not re.fullmatch(_NAME, name):
        return ""
    try:
        codec = codecs.lookup(name).name
        b"a".decode(codec, "replace")  # raises LookupError for what is no encoding of text: base64, zip, rot13
    except (LookupError, ValueError):
        return ""
    return "" if codec in _NO_CHARSETS else codec


def decode_octets(octets: bytes, charset: str = "") -> str:
    r"""Return octets as text; what does not belong to the charset is replaced.

    No charset, and ASCII, means UTF-8, which contains it: that is what senders mean who forget to say so.
    In a charset that nobody knows, what is not ASCII is shown as `\xe9`.
    """
    codec = find_charset(charset) if charset else "ascii"
    if not codec:
        return octets.decode("ascii", "backslashreplace")
    text = octets.decode("utf-8" if codec == "ascii" else codec, "replace")
    # UTF-7 has them, and what can't be encoded again breaks whoever prints it.
    return text if text.isascii() else re.sub(_LONE_SURROGATE, _REPLACEMENT, text)


def decode_header(raw: str) -> str:
    """Return a header's value as people read it: unfolded, UTF-8 as it is (RFC 6532), encoded words decoded.

    `raw` has a lone surrogate for each octet that is not ASCII, as `email` has them.
    """
    text = restore_octets(_FOLD.sub("", raw))
    return "".join(_decode_words(text)).strip() if "=?" in text else text.strip()


def restore_octets(raw: str) -> str:
    """Return a text of `email`'s, in which octets that are not ASCII are lone surrogates, as the text that it is."""
    return raw if raw.isascii() else decode_octets(raw.encode("utf-8", "surrogateescape"))


def _decode_words(text: str) -> Iterator[str]:
    """Decode encoded words; spaces between two of them are none (RFC 2047 6.2)."""
    end = 0
    charset = ""
    octets: list[bytes] = []
    for match in re.finditer(_ENCODED_WORD, text):
        between = text[end : match.start()]
        # Many a sender cuts a character in two and puts its octets into two words.
        if octets and (match[1].lower() != charset or between.strip()):
            yield decode_octets(b"".join(octets), charset)
            octets = []
        if end == 0 or between.strip():
            yield between
        octets.append(_undo_q(match[3]) if match[2] in "Qq" else _undo_b(match[3]))
        charset = match[1].lower()
        end = match.end()
    yield decode_octets(b"".join(octets), charset)
    yield text[end:]


def _undo_q(text: str) -> bytes:
    return binascii.a2b_qp(text.encode(), header=True)


def _undo_b(text: str) -> bytes:
    digits = re.sub(_NO_BASE64, "", text)
    digits = digits[: -1 if len(digits) % 4 == 1 else None]
    return binascii.a2b_base64(digits + "=" * (-len(digits) % 4))
