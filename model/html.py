"""What the HTML pages share: a look that is light or dark as the system says, tables, and pictures inside the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --soft: #626a73; --paper: #ffffff; --card: #f5f6f8; --line: #d8dce1; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa3ad; --paper: #16191d; --card: #20242a; --line: #363c44; }
}
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .7rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
p { max-width: 48rem; } .soft { color: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.4rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem 1.2rem; }
.card b { display: block; font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } .number { text-align: right; }
td { overflow-wrap: anywhere; }
figure { margin: 0 0 1.2rem; } figcaption { color: var(--soft); font-size: .85rem; margin-bottom: .25rem; }
img { max-width: 100%; border-radius: .4rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1.2rem;
  overflow-x: auto; }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--soft); }
"""


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table, the first row its head; cells that read as numbers stand to the right."""

    def cell(tag: str, text: str) -> str:
        kind = ' class="number"' if _is_number(text) else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head, *body = rows
    header = f"<thead><tr>{''.join(cell('th', text) for text in head)}</tr></thead>" if any(head) else ""
    lines = "\n".join(f"<tr>{''.join(cell('td', text) for text in row)}</tr>" for row in body)
    return f"<table>{header}<tbody>\n{lines}\n</tbody></table>"


def picture(png: bytes, description: str) -> str:
    """A PNG that is part of the page."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{data}">'


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True
