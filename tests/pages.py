"""Reads code blocks of documentation pages, so that tests can run them unchanged."""

import textwrap
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def page_code(page, heading, number=0):
    """The Python block under a heading of a page, without the indentation of a list."""
    text = (DOCS / page).read_text().split(f"# {heading}\n")[1]
    return textwrap.dedent(text.split("```python\n")[number + 1].split("```")[0])
