"""One-time codes: what people are to copy from a message.

The rule is one that people can predict. A code is

- 4 to 8 digits, in one group, in two of three or four ("123 456"), in several of two ("12-34-56"), or one by one;
- or capitals and digits, some of both, in one group of 5 to 10 ("X7K9QP") or in several ("G-482913", "X7K9-QP2M").

It counts where it stands alone on its line, or where its sentence has a word for it: code, PIN, OTP, TAN, token,
password, verify, sign in, log in. It does not count in a URL, behind "#", "+" or the sign of a currency, before a
currency or "%", or as part of something longer: a date, a telephone number, an address. A year counts only where its
sentence has nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD = re.compile(
    r"\b(?:\w*[ck]odes?|kod|c[oó]digo|codice|pin|otp|tan|2fa|token|passwor[dt]|one[- ]time|verif\w*|(?:sign|log)[- ]?in)\b",
    re.IGNORECASE,
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}+://\S*+", re.IGNORECASE)
_CODE = re.compile(
    r"""
    (?<![^\W_]) (?<![$€£¥#+©/@.,&%-]) (?<!\d[ :-]) (?<![#+$€£¥©]\ )
    (?:
        \d{4,8} | \d{3}[ -]\d{3} | \d{4}[ -]\d{4} | \d\d(?:[ -]\d\d){1,3} | \d(?:[ -]\d){3,7}
      | (?= [A-Z-]*+ \d) (?= [\d-]*+ [A-Z]) (?: [A-Z\d]{5,10} | [A-Z\d]{1,8} (?: - [A-Z\d]{2,8}){1,4} )
    )
    (?! [^\W_] | [%/@€$£¥-] | [.,:]\d | \ ?\d | \ ?(?:%|[$€£¥]|EUR\b|USD\b|GBP\b) )
    """,
    re.VERBOSE,
)
#: How many signs may stand around a code that stands alone.
_SIGNS = 40
_YEAR = re.compile(r"(?:19|20)\d\d")
#: Also an empty line, but not behind a colon: "Your code is:".
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<!:)(?<!:[ \t])\n[ \t]*\n\s*")


def find_codes(text: str, pattern: str | re.Pattern[str] | None = None) -> list[str]:
    """Return the codes in a text as they are printed, each once, in order.

    With a pattern, they are what it finds: its first group if it has one, else all of it.
    """
    if pattern is not None:
        found = re.finditer(pattern, text)
        return list(dict.fromkeys((match[1] if match.re.groups else None) or match[0] for match in found))
    without_urls = _URL.sub("URL", text)
    return list(dict.fromkeys(_find_by_rule(without_urls)))


def _find_by_rule(text: str) -> Iterator[str]:
    start = 0
    for end, following in [*((match.start(), match.end()) for match in _SENTENCE_END.finditer(text)), (len(text), 0)]:
        named = _WORD.search(text, start, end) is not None
        found = [match[0] for match in _CODE.finditer(text, start, end) if named or _is_alone(match)]
        yield from (code for code in found if len(found) == 1 or not _YEAR.fullmatch(code))
        start = following


def _is_alone(match: re.Match[str]) -> bool:
    """Whether there is nothing else on the line, but a few signs."""
    text, start, end = match.string, match.start(), match.end()
    before = text[max(0, start - _SIGNS) : start].rpartition("\n")
    behind = text[end : end + _SIGNS].partition("\n")
    begins = bool(before[1]) or start < _SIGNS
    ends = bool(behind[1]) or end + _SIGNS > len(text)
    return begins and ends and not any(map(str.isalnum, before[2] + behind[0]))
