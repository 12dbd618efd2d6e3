"""The `refold` command: what there is (`cli_commands.py`), and where each part of it stands.

    run, start                  cli_run.py, cli_start.py
    worker                      cli_worker.py, worker_service.py, metrics.py
    list                        cli_list.py; its filter, and that of bulk orders: cli_filter.py
    show, history               cli_read.py, timeline.py, timeline_view.py
    diff                        cli_diff.py; moments of the past, as for --at: cli_moments.py
    metrics                     cli_metrics.py, metric_view.py, metric_exposition.py
    tail                        cli_tail.py; one event in words: event_words.py
    versions                    cli_versions.py, version_rows.py
    project                     cli_project.py, project_service.py
    api                         cli_api.py, runs_api.py, http_server.py
    debug                       cli_debug.py
    whatif                      cli_whatif.py, what_if_view.py
    shadow                      cli_shadow.py, shadowing.py
    check                       cli_check.py, checking.py, check_process.py, check_view.py
    send, ask, value, stream    cli_talk.py
    cancel, pause, resume, ...  cli_orders.py, cli_bulk.py
    erase, keys                 cli_erase.py
    topics, version             cli_admin.py
    blobs                       cli_blobs.py
    doctor                      cli_doctor.py, doctor.py
    acls                        cli_acls.py
    archive                     cli_archive.py, archiving.py
    migrate                     cli_migrate.py
    audit                       cli_audit.py, cli_audit_report.py, cli_seal.py
    sink, export                cli_sink.py, cli_export.py, sinks.py, payload_columns.py
    sql                         cli_sql.py, log_tables.py
    queue                       cli_queue.py
    schemas                     cli_schemas.py, schemas_service.py, http_server.py

Results go to standard output, everything else to standard error. Errors end in `exits.py`.
"""

import inspect
import sys
from typing import Annotated

import typer
from rich.markup import escape

from refold.services.cli_admin import version
from refold.services.cli_commands import COMMANDS, GROUPS, Command
from refold.services.exits import EXIT_CODES

_HELP = """Durable workflows for Python: plain functions whose every step is recorded, and which go on after a crash.

[bold]The shortest way[/bold] (a function with @workflow in orders.py; the log is a file, refold.db):

  refold run orders:checkout 42 --id order-42
  refold show order-42

[bold]With workers[/bold], which share the work and take over from each other:

  refold worker orders --url sqlite:///orders.db
  refold start orders:checkout 42 --id order-42 --url sqlite:///orders.db
  refold list --url sqlite:///orders.db

The log is named by --url or the variable REFOLD_URL: sqlite:///FILE, or kafka://HOST:PORT/NAMESPACE.

TLS, logins and compression on Kafka: by that URL, REFOLD_KAFKA_... or REFOLD_SETTINGS; see docs/connecting.md."""

app = typer.Typer(
    name="refold",
    help=_HELP,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # an unexpected error shows Python's own traceback
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(one: Command) -> None:
    """Register a command; its docstring is its help, with examples below the options."""
    paragraphs = inspect.cleandoc(one.function.__doc__ or "").split("\n\n")
    text = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    lines = "\n\n".join(f"  [bold]{escape(example)}[/bold]" for example in one.examples)
    (one.group or app).command(
        one.name, help=text, rich_help_panel=one.panel, epilog=f"Examples:\n\n{lines}"
    )(one.function)


for _name, _group, _panel in GROUPS:
    app.add_typer(_group, name=_name, rich_help_panel=_panel)
for _command in COMMANDS:
    _add(_command)


def _say_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _refold(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which release this is.", callback=_say_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options of `refold` itself; its help is `_HELP`."""


def main() -> None:
    """Entry point of the `refold` script and of `python -m refold`."""
    for output in (sys.stdout, sys.stderr):
        reconfigure = getattr(output, "reconfigure", None)
        if reconfigure is not None:
            # A terminal that lacks a sign still shows the rest.
            reconfigure(errors="backslashreplace")
    app()
