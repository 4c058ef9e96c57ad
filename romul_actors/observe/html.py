"""Self-contained HTML pages: text, tables and embedded pictures."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from romul_actors.observe.visible import visible

DPI = 110
"""Resolution of pictures, in dots per inch."""
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;
color:#222}table{border-collapse:collapse;display:block;overflow-x:auto}
td,th{padding:.15em .8em;text-align:left;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}
img{max-width:100%}code,pre{background:#f3f3f3;padding:.1em .3em}pre{overflow:auto}
code{display:block;white-space:pre-wrap;overflow-wrap:anywhere}"""


def write(file: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page from parts that are already HTML."""
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style><h1>{_text(title)}</h1>{''.join(parts)}</html>\n"
    )
    file.write_text(text, encoding="utf-8")


def _text(text: str) -> str:
    """Text inside of HTML."""
    return html.escape(visible(text))


def png(figure: Any) -> bytes:
    """A matplotlib figure as a PNG picture; the figure is not changed."""
    buffer = io.BytesIO()
    dpi, engine = figure.get_dpi(), figure.get_layout_engine()
    try:
        if engine is not None:
            # `savefig` would draw everything twice: the first time only to lay out the axes.
            figure.set_dpi(DPI)
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(buffer, format="png", dpi=DPI)
    finally:
        figure.set_dpi(dpi)
        figure.set_layout_engine(engine)
    return buffer.getvalue()


def image(name: str, picture: bytes) -> str:
    """A heading with a picture below."""
    data = base64.b64encode(picture).decode()
    title = _text(name)
    return f'<h2>{title}</h2><img alt="{title}" src="data:image/png;base64,{data}">'


def code(text: str) -> str:
    """Text in a monospaced font, such as a command."""
    return f"<p><code>{_text(text)}</code></p>"


def figures(values: Mapping[str, Any], meaning: Mapping[str, str] | None = None) -> str:
    """A table of names and values.

    Args:
        values: a row for each value; a mapping has a row for each of its own values.
        meaning: texts beside the values of a mapping, by their names.
    """
    rows = []
    for name, value in values.items():
        items = value.items() if isinstance(value, dict) else [("", value)]
        rows += [
            f"<tr><td>{_text(f'{name} {part}'.replace('_', ' '))}</td>"
            f"{_cell(one)}"
            f"<td>{_text((meaning or {}).get(part, ''))}</td></tr>"
            for part, one in items
            if one not in ("", {}, [])
        ]
    return f"<table>{''.join(rows)}</table>"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of rows with the same columns."""
    if not rows:
        return "<p>none</p>"
    head = "".join(f"<th>{_text(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(map(_cell, row.values())) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    """A cell of a table: numbers are right-aligned, and texts left-aligned."""
    kind = ' class="n"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{_text(short(value))}</td>"


def short(value: Any) -> str:
    """A value as short text."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {short(one)}" for name, one in value.items())
    return f"{value:.5g}" if isinstance(value, float) else str(value)
