"""The `refold` command: what there is, and where each part of it stands.

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
from collections.abc import Callable
from typing import Annotated

import typer

from refold.services.cli_acls import acls
from refold.services.cli_admin import create_topics, topics, version
from refold.services.cli_api import api
from refold.services.cli_archive import archive
from refold.services.cli_audit import audit, verify
from refold.services.cli_audit import log as audit_log
from refold.services.cli_audit_report import check as check_report
from refold.services.cli_audit_report import report
from refold.services.cli_blobs import blobs, gc
from refold.services.cli_blobs import check as check_blobs
from refold.services.cli_check import check
from refold.services.cli_debug import debug_run
from refold.services.cli_diff import diff
from refold.services.cli_doctor import doctor
from refold.services.cli_erase import erase_subject, keys, new, rewrap, rotate
from refold.services.cli_export import export
from refold.services.cli_list import list_runs
from refold.services.cli_metrics import metrics
from refold.services.cli_migrate import migrate
from refold.services.cli_orders import cancel, fork, pause, resume, rewind, terminate
from refold.services.cli_project import project
from refold.services.cli_queue import list_queues, queue, set_limit, show_queue
from refold.services.cli_read import history, show
from refold.services.cli_run import run
from refold.services.cli_schedule import (
    delete_schedule,
    list_schedules,
    pause_schedule,
    resume_schedule,
    schedule,
    set_schedule,
    show_schedule,
    trigger_schedule,
)
from refold.services.cli_schemas import (
    export_schemas,
    list_schemas,
    register_schemas,
    schemas,
    serve_schemas,
    show_schema,
)
from refold.services.cli_seal import keygen, seal
from refold.services.cli_shadow import shadow
from refold.services.cli_sink import sink
from refold.services.cli_sql import sql
from refold.services.cli_start import start
from refold.services.cli_tail import tail_log
from refold.services.cli_talk import ask, send, stream, value
from refold.services.cli_versions import versions
from refold.services.cli_whatif import whatif
from refold.services.cli_worker import worker
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

How to connect to Kafka (TLS, logins, compression) is said by options of that URL, by variables REFOLD_KAFKA_..., or
by a file that REFOLD_SETTINGS names: see docs/connecting.md."""

_WORK = "Run workflows"
_READ = "See what happened"
_TRY = "Try code on recorded history"
_TALK = "Talk to runs"
_STEER = "Steer runs, one or many"
_TAKE = "Take events elsewhere"
_MEND = "Set up"

app = typer.Typer(
    name="refold",
    help=_HELP,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # an unexpected error shows Python's own traceback
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(topics, name="topics", rich_help_panel=_MEND)
app.add_typer(blobs, name="blobs", rich_help_panel=_MEND)
app.add_typer(schemas, name="schemas", rich_help_panel=_MEND)
app.add_typer(audit, name="audit", rich_help_panel=_READ)
app.add_typer(queue, name="queue", rich_help_panel=_STEER)
app.add_typer(keys, name="keys", rich_help_panel=_MEND)
app.add_typer(schedule, name="schedule", rich_help_panel=_WORK)


def _add(
    command: Callable[..., None],
    name: str,
    panel: str,
    *examples: str,
    to: typer.Typer = app,
) -> None:
    """Register a command; its docstring is its help, with examples below the options."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    text = "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
    lines = "\n\n".join(f"  [bold]{example}[/bold]" for example in examples)
    to.command(name, help=text, rich_help_panel=panel, epilog=f"Examples:\n\n{lines}")(command)


_add(
    run,
    "run",
    _WORK,
    "refold run orders:checkout 42 express",
    "refold run orders:checkout --input '{\"order_id\": 42}' --id order-42",
)
_add(
    start,
    "start",
    _WORK,
    "refold start orders:checkout 42 --id order-42",
    "refold start checkout --input '{\"order_id\": 42}' --no-wait",
    "refold start orders:checkout 42 --deadline 2h --attribute customer=acme --attribute total=99.5",
    "refold start orders:checkout 42 --id order-42 --message 'payment={\"amount\": 5}'",
)
_add(
    worker,
    "worker",
    _WORK,
    "refold worker orders --url sqlite:///orders.db",
    "refold worker orders billing:monthly --url kafka://broker:9092/shop",
    "refold worker orders --metrics-port 9464",
)
_add(
    list_runs,
    "list",
    _READ,
    "refold list --status parked --status paused",
    "refold list --status failed --workflow checkout --since 2h",
    "refold list --attribute customer=acme --limit 0 --json",
)
_add(
    show,
    "show",
    _READ,
    "refold show order-42",
    "refold show order-42 --results --all",
    "refold show order-42 --at 2026-12-01T09:00Z",
)
_add(
    history,
    "history",
    _READ,
    "refold history order-42",
    "refold history order-42 --json | jq 'select(.kind == \"step.failed\")'",
)
_add(
    diff,
    "diff",
    _READ,
    "refold diff --from 1d",
    "refold diff --from 2026-12-01T00:00Z --to 2026-12-02T00:00Z --json",
    "refold diff order-42 --from 7 --to 12",
)
_add(
    metrics,
    "metrics",
    _READ,
    "refold metrics --since 30d",
    "refold metrics shop.figures --every 1w --json",
    "refold metrics shop.figures:revenue --keep /var/lib/refold/metrics --port 9465",
)
_add(
    tail_log,
    "tail",
    _READ,
    "refold tail",
    "refold tail --since 2h --kind step.failed --workflow checkout",
    "refold tail order-42 --since start --no-follow --json",
)
_add(
    versions,
    "versions",
    _READ,
    "refold versions",
    "refold versions orders billing:monthly --url kafka://broker:9092/shop",
)
_add(
    check,
    "check",
    _TRY,
    "refold check orders --url kafka://broker:9092/shop",
    "refold check orders billing:monthly --closed 200 --json",
)
_add(
    debug_run,
    "debug",
    _TRY,
    "refold debug order-42 --app orders",
    "refold debug order-42 --app orders --at charge#3 --url kafka://broker:9092/shop",
)
_add(
    project,
    "project",
    _READ,
    "refold project --url sqlite:///orders.db",
    "refold project workflows orders:Revenue --url kafka://broker:9092/shop --to postgresql://refold@db/shop",
    "refold project orders:Revenue --once --rebuild",
)
_add(
    api,
    "api",
    _READ,
    "refold api --url sqlite:///orders.db",
    "refold api --url kafka://broker:9092/shop --views postgresql://refold@db/shop --port 8088",
)
_add(
    whatif,
    "whatif",
    _TRY,
    "refold whatif order-42 --app orders --set stock=0",
    "refold whatif order-42 --app orders --fail charge#3=ConnectionError:gone --stub refund=true",
)
_add(
    shadow,
    "shadow",
    _TRY,
    "refold shadow orders --url kafka://broker:9092/shop --for 2h",
    "refold shadow orders --once --json",
)
_add(
    send,
    "send",
    _TALK,
    "refold send order-42 payment '{\"amount\": 5}'",
    "refold send order-42 payment 5 --message-id invoice-7",
)
_add(ask, "ask", _TALK, 'refold ask order-42 address \'{"city": "Oslo"}\' --timeout 10')
_add(value, "value", _TALK, "refold value order-42 progress --timeout 5")
_add(
    stream,
    "stream",
    _TALK,
    "refold stream chat-7 tokens --raw",
    "refold stream order-42 log --start 100 --json",
)
_add(
    cancel,
    "cancel",
    _STEER,
    "refold cancel order-42 --reason 'customer called'",
    "refold cancel --workflow checkout --attribute customer=acme --dry-run",
)
_add(
    pause,
    "pause",
    _STEER,
    "refold pause order-42 --reason 'gateway is down'",
    "refold pause --workflow checkout --yes --reason 'gateway is down'",
)
_add(
    resume,
    "resume",
    _STEER,
    "refold resume order-42 --reason 'renamed the step back'",
    "refold resume --status parked --parked-for 'used up its attempts' --dry-run",
    "refold resume --status failed --workflow checkout --since 1d --yes",
)
_add(terminate, "terminate", _STEER, "refold terminate order-42 --reason 'started by mistake'")
_add(
    set_limit,
    "set",
    _STEER,
    "refold queue set emails --concurrency 10 --why 'the provider takes ten'",
    to=queue,
)
_add(list_queues, "list", _STEER, "refold queue list", to=queue)
_add(show_queue, "show", _STEER, "refold queue show emails", to=queue)
_add(
    rewind,
    "rewind",
    _STEER,
    "refold rewind order-42 --step 3 --reason 'charged the wrong card'",
    "refold rewind --workflow checkout --status failed --step 0 --dry-run",
)
_add(
    fork,
    "fork",
    _STEER,
    "refold fork order-42 --step 3 --id order-42-again",
    "refold fork order-42 --version 2",
)
_add(
    acls,
    "acls",
    _MEND,
    "refold acls kafka://broker:9093/shop",
    "refold acls kafka://broker:9093/shop --worker shop-worker --client web --format commands",
)
_add(
    doctor,
    "doctor",
    _MEND,
    "refold doctor kafka://broker:9092/shop",
    "refold doctor --url sqlite:///orders.db --json | jq '.findings[] | select(.level != \"ok\")'",
)
_add(
    sql,
    "sql",
    _READ,
    "refold sql 'SELECT status, count(*) FROM workflows GROUP BY ALL'",
    "refold sql 'SELECT name, avg(took) FROM steps GROUP BY ALL' --archive archive --csv",
)
_add(
    sink,
    "sink",
    _TAKE,
    "refold sink parquet events --url kafka://broker:9092/shop",
    "refold sink postgres postgresql://etl@db/lake --types orders",
    "refold sink http https://example.org/events --state events.state",
)
_add(
    export,
    "export",
    _TAKE,
    "refold export duckdb shop.duckdb --types orders:checkout",
    "refold export jsonl events.jsonl --url sqlite:///orders.db --archive archive",
)
_add(
    migrate,
    "migrate",
    _MEND,
    "refold migrate sqlite:///orders.db kafka://broker:9092/orders --partitions 16 --dry-run",
    "refold migrate kafka://broker:9092/orders kafka://broker:9092/orders-2 --partitions 64 --fence",
)
_add(
    archive,
    "archive",
    _MEND,
    "refold archive kafka://broker:9092/shop --to /var/lib/refold/archive",
    "refold archive --url sqlite:///orders.db --to archive --older-than 90d --trim --dry-run",
)
_add(
    erase_subject,
    "erase",
    _STEER,
    "refold erase customer-7 --why 'request of 12 November' --dry-run",
    "refold erase customer-7 --why 'request of 12 November' --yes",
)
_add(
    set_schedule,
    "set",
    _WORK,
    "refold schedule set nightly reports:report eu --cron '0 3 * * *' --timezone Europe/Berlin",
    "refold schedule set sweep reports:sweep --every 15m --skip --reason 'disks fill up'",
    to=schedule,
)
_add(list_schedules, "list", _WORK, "refold schedule list --json", to=schedule)
_add(show_schedule, "show", _WORK, "refold schedule show nightly", to=schedule)
_add(
    pause_schedule,
    "pause",
    _WORK,
    "refold schedule pause nightly --reason 'the warehouse moves'",
    to=schedule,
)
_add(resume_schedule, "resume", _WORK, "refold schedule resume nightly", to=schedule)
_add(
    trigger_schedule,
    "trigger",
    _WORK,
    "refold schedule trigger nightly --reason 'last night was wrong'",
    to=schedule,
)
_add(delete_schedule, "delete", _WORK, "refold schedule delete nightly", to=schedule)
_add(new, "new", _MEND, "export REFOLD_MASTER_KEY=$(refold keys new)", to=keys)
_add(rotate, "rotate", _MEND, "refold keys rotate customer-7", to=keys)
_add(rewrap, "rewrap", _MEND, "REFOLD_MASTER_KEY=$NEW,$OLD refold keys rewrap", to=keys)
_add(version, "version", _MEND, "refold version")
_add(
    create_topics,
    "create",
    _MEND,
    "refold topics create --url kafka://broker:9092/shop --partitions 16",
    to=topics,
)
_add(list_schemas, "list", _MEND, "refold schemas list", to=schemas)
_add(
    show_schema,
    "show",
    _MEND,
    "refold schemas show event",
    "refold schemas show 1000000001",
    to=schemas,
)
_add(export_schemas, "export", _MEND, "refold schemas export avro/", to=schemas)
_add(
    register_schemas,
    "register",
    _MEND,
    "REFOLD_KAFKA_SCHEMA_REGISTRY=https://registry:8081 refold schemas register --url kafka://broker:9092/shop",
    to=schemas,
)
_add(
    serve_schemas,
    "serve",
    _MEND,
    "refold schemas serve --url kafka://broker:9092/shop",
    "refold schemas serve --port 8081 --address 0.0.0.0",
    to=schemas,
)


_add(
    gc,
    "gc",
    _MEND,
    "refold blobs gc sqlite:///orders.db --dry-run",
    "refold blobs gc --url kafka://broker:9092/shop --older-than 7d",
    to=blobs,
)
_add(check_blobs, "verify", _MEND, "refold blobs verify kafka://broker:9092/shop", to=blobs)
_add(
    audit_log,
    "log",
    _READ,
    "refold audit log --since 7d",
    "refold audit log --action terminate --action rewind --by anna --json",
    to=audit,
)
_add(
    verify,
    "verify",
    _READ,
    "refold audit verify sqlite:///orders.db",
    "refold audit verify --seals seals.jsonl --public-key seal.key.pub --archive /var/lib/refold/archive",
    to=audit,
)
_add(
    report,
    "report",
    _READ,
    "refold audit report order-42 -o order-42.html --seals seals.jsonl --public-key seal.key.pub",
    to=audit,
)
_add(
    check_report,
    "check",
    _READ,
    "refold audit check order-42.html --public-key seal.key.pub",
    to=audit,
)
_add(keygen, "keygen", _READ, "refold audit keygen seal.key", to=audit)
_add(
    seal,
    "seal",
    _READ,
    "refold audit seal --key seal.key --to seals.jsonl",
    "refold audit seal --key seal.key --to seals.jsonl --every 1h --url kafka://broker:9092/shop",
    to=audit,
)


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
            reconfigure(
                errors="backslashreplace"
            )  # a terminal that lacks a sign still shows the rest
    app()
