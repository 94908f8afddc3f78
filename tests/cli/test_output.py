"""Tables for people: whatever their width, nothing of them is cut."""

import contextlib
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from moai_planner.cli.output import print_table

WORDS = st.text("abcdefgh", min_size=1, max_size=14)
CELLS = st.one_of(
    st.builds(" ".join, st.lists(WORDS, min_size=1, max_size=8)),
    st.builds("{} ms ({} ms to {} ms)".format, *[st.integers(0, 10**6)] * 3),
)


@given(st.lists(st.lists(CELLS, min_size=9, max_size=9), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_no_character_of_a_table_is_lost(rows):
    """Law: tables wider than the page fold their words or grow; every cell is there in full."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        print_table("", [f"column {index}" for index in range(9)], rows)
    below_the_rule = page.getvalue().partition("─\n")[2]
    assert letters(below_the_rule) == letters("".join(cell for row in rows for cell in row))


def letters(text: str) -> list[str]:
    return sorted(filter(str.isalnum, text))
