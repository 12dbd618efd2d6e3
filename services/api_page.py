"""`/docs` of what is served over HTTP: a page for people, made from the OpenAPI description, with nothing to fetch.

FastAPI's own page loads its script from another host: there is none where there is no way out, and who serves data has
to trust what runs in readers' browsers. This one has no script at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final, cast

from refold.services.http_server import FastAPI, Response

Schema = Mapping[str, Any]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: .5rem 0 1rem; }
h2 { font: 600 1.1rem ui-monospace, monospace; margin: .7rem 0 .2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0; }
th, code, td:first-child { font-family: ui-monospace, monospace; font-weight: 400; font-size: .9rem; }
p, td { overflow-wrap: anywhere; }
td:first-child { width: 12rem; overflow-wrap: normal; }
td:nth-child(2) { width: 22rem; }
.dim { opacity: .7; }
"""


def with_page(app: FastAPI) -> FastAPI:
    """The application with `/docs`; it was made without a page of its own."""
    app.add_api_route("/docs", lambda: _answer(app), methods=["GET"], include_in_schema=False)
    return app


def _answer(app: FastAPI) -> Response:
    headers = {"Content-Security-Policy": _POLICY}
    return Response(page_of(app.openapi()), media_type="text/html", headers=headers)


def page_of(told: Schema) -> str:
    """The page for an OpenAPI description."""
    title = escape(told["info"]["title"])
    sections = "\n".join(
        _section(path, method, operation, told.get("components", {}).get("schemas", {}))
        for path, operations in told["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n<p>{escape(told['info'].get('description', ''))} "
        'For programs: <a href="openapi.json">openapi.json</a></p>\n'
        f"{sections}\n</html>\n"
    )


def _section(path: str, method: str, operation: Schema, schemas: Schema) -> str:
    shown = escape(path)
    named = (
        shown if "{" in path or method != "get" else f'<a href="{shown.lstrip("/")}">{shown}</a>'
    )
    parts = [f"<section><h2>{method.upper()} {named}</h2>"]
    parts.append(f"<p>{escape(operation.get('summary', ''))}</p>")
    if parameters := operation.get("parameters", []):
        rows = (
            _row(one["name"], one["schema"], one.get("description", ""), schemas)
            for one in parameters
        )
        parts.append(_table("Parameter", rows))
    answer = operation.get("responses", {}).get("200", {}).get("content", {})
    for content in answer.values():
        parts.extend(_tables(content.get("schema", {}), schemas, set()))
    return "\n".join([*parts, "</section>"])


def _tables(schema: Schema, schemas: Schema, seen: set[str]) -> Iterator[str]:
    """The fields of an answer, and of what is in it."""
    for name in _names(schema):
        if name in seen or "properties" not in schemas[name]:
            continue
        seen.add(name)
        fields: Mapping[str, Schema] = schemas[name]["properties"]
        rows = (
            _row(field, one, one.get("description", ""), schemas) for field, one in fields.items()
        )
        yield _table(name, rows)
        for one in fields.values():
            yield from _tables(one, schemas, seen)


def _table(title: str, rows: Iterator[str]) -> str:
    return (
        f'<table><tr><th class="dim" colspan="3">{escape(title)}</th></tr>{"".join(rows)}</table>'
    )


def _row(name: str, schema: Schema, description: str, schemas: Schema) -> str:
    default = schema.get("default")
    said = "" if default is None or default == [] else f", {default} if not given"
    kind = escape(_kind(schema, schemas) + said)
    return f"<tr><td>{escape(name)}</td><td>{kind}</td><td>{escape(description)}</td></tr>"


def _kind(schema: Schema, schemas: Schema) -> str:
    """What a value is, in a few words."""
    if "$ref" in schema:
        name = _named(schema)
        return name if "properties" in schemas[name] else _kind(schemas[name], schemas)
    if "enum" in schema:
        return ", ".join(map(str, cast("Sequence[object]", schema["enum"])))
    if "anyOf" in schema:
        kinds = (_kind(one, schemas) for one in schema["anyOf"])
        return " or ".join(kinds)
    if schema.get("type") == "array":
        return f"several: {_kind(schema.get('items', {}), schemas)}"
    return str(schema.get("format") or schema.get("type") or "any")


def _names(schema: Schema) -> Iterator[str]:
    """Names of the objects that a value may be, or hold."""
    if "$ref" in schema:
        yield _named(schema)
    for one in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        yield from _names(one)


def _named(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]
