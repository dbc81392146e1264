"""The README's code, for the tests that run it."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
#: The language and the code of each block.
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def find_block(text: str) -> str:
    """Return the only block of Python in the README that contains this text."""
    [block] = [code for language, code in BLOCKS if language == "python" and text in code]
    return str(block)
