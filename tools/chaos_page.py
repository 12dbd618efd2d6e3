"""The look of the pages that fault runs and soaks leave behind: one file each, with nothing to fetch."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --ink:#1b1f24; --dim:#69707a; --line:#e3e6ea; --back:#fff; --card:#f6f7f9;
  --good:#1a7f4b; --bad:#c62f3b; --ok:#3f7fd6; --fail:#aab2bd; --info:#e5a32a;
  --worker:#d9534f; --broker:#7d5bbe; --link:#e08a3c; --client:#3a9d9d; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6e8eb; --dim:#99a1ab; --line:#30363d; --back:#15181c;
  --card:#1e2228; --good:#4cc38a; --bad:#ff6a73; --ok:#6ea2ea; --fail:#5d6670; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 28px 24px 60px; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 34px 0 10px; }
p { margin: 4px 0; } .dim { color: var(--dim); } code, pre { font: 12.5px/1.5 ui-monospace, monospace; }
code { background: var(--card); padding: 2px 6px; border-radius: 4px; }
.badge { display: inline-block; padding: 2px 12px; border-radius: 12px; color: #fff; font-size: 15px;
  vertical-align: 4px; margin-left: 10px; }
.badge.good { background: var(--good); } .badge.bad { background: var(--bad); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0 6px; }
.tile { background: var(--card); border-radius: 8px; padding: 10px 16px; min-width: 120px; }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; } .tile span { color: var(--dim); }
.side { display: flex; flex-wrap: wrap; gap: 40px; align-items: flex-start; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 12px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { color: var(--dim); font-weight: 500; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); } svg .label { text-anchor: end; }
svg .tick { fill: var(--dim); } svg .middle { text-anchor: middle; } svg .name { font-weight: 600; }
svg .inside { fill: #fff; font-size: 10px; pointer-events: none; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--dim); }
.worker { fill: var(--worker); } .broker { fill: var(--broker); } .link { fill: var(--link); }
.client { fill: var(--client); } .shadow { opacity: .09; pointer-events: none; }
.ok { fill: var(--ok); } .fail { fill: var(--fail); } .info { fill: var(--info); }
.median, .events, .line { fill: none; stroke: var(--ok); stroke-width: 1.6; } .slowest { fill: var(--info); }
.claim, .middle-line { stroke: var(--bad); stroke-width: 1.6; } .dot { fill: var(--ok); opacity: .65; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 6px 0 16px;
  vertical-align: -1px; }
details { background: var(--card); border-radius: 8px; margin: 8px 0; padding: 8px 14px; }
summary { cursor: pointer; } summary b { color: var(--bad); }
pre { overflow-x: auto; white-space: pre; margin: 8px 0 0; }
"""


def page(title: str, good: bool, verdict: str, body: Iterable[str]) -> str:
    """A whole page.

    Args:
        title: Its heading.
        good: Whether the verdict is good.
        verdict: In a few words.
        body: HTML.
    """
    badge = f'<span class="badge {"good" if good else "bad"}">{escape(verdict)}</span>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}: {escape(verdict)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}{badge}</h1>{''.join(body)}</body></html>\n"
    )


def tiles(values: Iterable[tuple[str, str]]) -> str:
    """Numbers to see first: value and what it counts."""
    shown = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for value, what in values
    )
    return f'<div class="tiles">{shown}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what stands in its first column is text, the rest are numbers."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def key(names: Iterable[str]) -> str:
    """What the colours mean; each has the name of its variable in the style sheet."""
    shown = "".join(f'<i style="background:var(--{name})"></i>{name}' for name in names)
    return f'<p class="key dim">{shown}</p>'
