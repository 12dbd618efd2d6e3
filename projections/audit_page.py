"""The page of an audit report: one HTML file that needs nothing else, and that proves in the browser what it shows.

Nothing is drawn here. The page carries the report as data, and a script that decodes the events' own bytes, checks
them, and shows what it has decoded: so what a reader sees is what was checked. A content security policy lets this one
script and this one style in and nothing else, neither from what was recorded nor from the network.
"""

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Final

from refold.log.errors import UsageError
from refold.log.flat_avro import columns_of
from refold.log.schema_ids import published, schema_of
from refold.projections.audit_report import AuditReport, read_report

_BEGINS: Final = '<script type="application/json" id="report">'
_ENDS: Final = "</script>"

_BODY: Final = """\
<h1>Audit report of a run</h1>
<div id="verdict" class="verdict">Not checked</div>
<noscript><p>A script in this page shows the events and their proof. Without it, use refold audit check.</p></noscript>
<ul id="checks"></ul>
<dl id="facts"></dl>
<div id="own-key" class="note" hidden>
<p>A signature is worth as much as the key is. Paste your own copy of the public key, or its id, as you were given it by
the one who seals:</p>
<textarea id="key" rows="3" spellcheck="false" aria-label="Your copy of the public key"></textarea>
<p id="key-answer"></p>
</div>
<section id="orders" hidden><h2>What people ordered</h2><div class="wide">
<table><thead><tr><th>When (UTC)</th><th>Order</th><th>By</th><th>Why</th></tr></thead>
<tbody id="order-rows"></tbody></table></div>
</section>
<section id="timeline" hidden><h2>Steps</h2><div id="bars"></div></section>
<section><h2>Events</h2><div class="wide">
<table><thead><tr><th>#</th><th>Recorded (UTC)</th><th>Kind</th><th>What</th><th>Data</th><th>Proof</th></tr></thead>
<tbody id="rows"></tbody></table></div></section>
<section><h2>What this shows, and what it does not</h2>
<div class="note">
<p><b>Sealed</b> means: whoever has the private key stated, at the time of the seal, that this very event stood at this
offset of the log, counted, and was taken in by the log at the time that is given with it. Nobody without that key can
change, add or move one of these events since, here or in the log, without its being found.</p>
<p>It does not show that what was recorded is true, only that it was recorded. It does not show that the run had no
event after the last one here, and a run that goes on will. Clocks are those of the workers and of the log.</p>
<p>A page can be changed along with what it says. Whoever does not trust where this file comes from checks it with a
program of their own: <span class="mono">refold audit check FILE --public-key FILE</span></p>
</div></section>
"""


def page_of(report: AuditReport) -> str:
    """The page."""
    script = _resource("audit_page.js")
    style = _resource("audit_page.css")
    columns = {
        str(one.id): columns_of(json.loads(one.text)) for one in published() if one.shape == "event"
    }
    columns["current"] = columns_of(schema_of("event"))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(report.workflow_id)}</title>\n<style>{style}</style></head>\n<body>\n{_BODY}"
        f"{_BEGINS}{_embedded(report.to_json())}{_ENDS}\n"
        f'<script type="application/json" id="schemas">{_embedded(json.dumps(columns))}{_ENDS}\n'
        f"<script>{script}{_ENDS}\n</body></html>\n"
    )


def report_in(page: str, where: str) -> AuditReport:
    """The report that a page carries.

    Args:
        page: The page.
        where: Its name, for messages.

    Raises:
        UsageError: It is no such page.
        LogCorrupt: Its report can't be read.
    """
    _, begun, rest = page.partition(_BEGINS)
    text, ended, _ = rest.partition(_ENDS)
    if not begun or not ended:
        raise UsageError(f"{where} is not a report that refold audit report has made")
    return read_report(text, where)


def _embedded(text: str) -> str:
    """JSON that can't end the element that it stands in."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _resource(name: str) -> str:
    return (files("refold.projections") / name).read_text(encoding="utf-8")
