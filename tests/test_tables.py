"""The README's tables that are made from the code."""

from __future__ import annotations

from make_tables import make_tables, replace_tables
from readme import README


def test_the_tables_are_up_to_date() -> None:
    """The README's tables are what `python tests/make_tables.py` would write, and none of them is left out."""
    text = README.read_text("utf-8")
    assert replace_tables(text) == text
    for name, table in make_tables().items():
        assert text.count(f"<!-- table: {name} -->\n{table}<!-- end -->\n") == 1
