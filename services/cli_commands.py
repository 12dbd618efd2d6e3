"""The commands of `refold`: how each is called, where it stands in the help, and examples of its use."""

from collections.abc import Callable
from typing import Final, NamedTuple

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

WORK: Final = "Run workflows"
READ: Final = "See what happened"
TRY: Final = "Try code on recorded history"
TALK: Final = "Talk to runs"
STEER: Final = "Steer runs, one or many"
TAKE: Final = "Take events elsewhere"
SETUP: Final = "Set up"


class Command(NamedTuple):
    """A command.

    Args:
        function: What it does; its docstring is its help.
        name: What it is called.
        panel: Under which heading of the help it stands.
        examples: Of its use, as they are typed.
        group: The command of which it is a part.
    """

    function: Callable[..., None]
    name: str
    panel: str
    examples: tuple[str, ...]
    group: typer.Typer | None = None


GROUPS: Final = (
    ("topics", topics, SETUP),
    ("blobs", blobs, SETUP),
    ("schemas", schemas, SETUP),
    ("audit", audit, READ),
    ("queue", queue, STEER),
    ("keys", keys, SETUP),
    ("schedule", schedule, WORK),
)
"""Commands that have parts."""

# As a table: a command, and its examples.
# fmt: off

COMMANDS: Final = (
    Command(run, "run", WORK, (
        "refold run orders:checkout 42 express",
        "refold run orders:checkout --input '{\"order_id\": 42}' --id order-42",
    )),
    Command(start, "start", WORK, (
        "refold start orders:checkout 42 --id order-42",
        "refold start checkout --input '{\"order_id\": 42}' --no-wait",
        "refold start orders:checkout 42 --deadline 2h --attribute customer=acme --attribute total=99.5",
        "refold start orders:checkout 42 --id order-42 --message 'payment={\"amount\": 5}'",
    )),
    Command(worker, "worker", WORK, (
        "refold worker orders --url sqlite:///orders.db",
        "refold worker orders billing:monthly --url kafka://broker:9092/shop",
        "refold worker orders --metrics-port 9464",
    )),
    Command(list_runs, "list", READ, (
        "refold list --status parked --status paused",
        "refold list --status failed --workflow checkout --since 2h",
        "refold list --attribute customer=acme --limit 0 --json",
    )),
    Command(show, "show", READ, (
        "refold show order-42",
        "refold show order-42 --results --all",
        "refold show order-42 --at 2026-12-01T09:00Z",
    )),
    Command(history, "history", READ, (
        "refold history order-42",
        "refold history order-42 --json | jq 'select(.kind == \"step.failed\")'",
    )),
    Command(diff, "diff", READ, (
        "refold diff --from 1d",
        "refold diff --from 2026-12-01T00:00Z --to 2026-12-02T00:00Z --json",
        "refold diff order-42 --from 7 --to 12",
    )),
    Command(metrics, "metrics", READ, (
        "refold metrics --since 30d",
        "refold metrics shop.figures --every 1w --json",
        "refold metrics shop.figures:revenue --keep /var/lib/refold/metrics --port 9465",
    )),
    Command(tail_log, "tail", READ, (
        "refold tail",
        "refold tail --since 2h --kind step.failed --workflow checkout",
        "refold tail order-42 --since start --no-follow --json",
    )),
    Command(versions, "versions", READ, (
        "refold versions",
        "refold versions orders billing:monthly --url kafka://broker:9092/shop",
    )),
    Command(check, "check", TRY, (
        "refold check orders --url kafka://broker:9092/shop",
        "refold check orders billing:monthly --closed 200 --json",
    )),
    Command(debug_run, "debug", TRY, (
        "refold debug order-42 --app orders",
        "refold debug order-42 --app orders --at charge#3 --url kafka://broker:9092/shop",
    )),
    Command(project, "project", READ, (
        "refold project --url sqlite:///orders.db",
        "refold project workflows orders:Revenue --url kafka://broker:9092/shop --to postgresql://refold@db/shop",
        "refold project orders:Revenue --once --rebuild",
    )),
    Command(api, "api", READ, (
        "refold api --url sqlite:///orders.db",
        "refold api --url kafka://broker:9092/shop --views postgresql://refold@db/shop --port 8088",
    )),
    Command(whatif, "whatif", TRY, (
        "refold whatif order-42 --app orders --set stock=0",
        "refold whatif order-42 --app orders --fail charge#3=ConnectionError:gone --stub refund=true",
    )),
    Command(shadow, "shadow", TRY, (
        "refold shadow orders --url kafka://broker:9092/shop --for 2h",
        "refold shadow orders --once --json",
    )),
    Command(send, "send", TALK, (
        "refold send order-42 payment '{\"amount\": 5}'",
        "refold send order-42 payment 5 --message-id invoice-7",
    )),
    Command(ask, "ask", TALK, ('refold ask order-42 address \'{"city": "Oslo"}\' --timeout 10',)),
    Command(value, "value", TALK, ("refold value order-42 progress --timeout 5",)),
    Command(stream, "stream", TALK, (
        "refold stream chat-7 tokens --raw",
        "refold stream order-42 log --start 100 --json",
    )),
    Command(cancel, "cancel", STEER, (
        "refold cancel order-42 --reason 'customer called'",
        "refold cancel --workflow checkout --attribute customer=acme --dry-run",
    )),
    Command(pause, "pause", STEER, (
        "refold pause order-42 --reason 'gateway is down'",
        "refold pause --workflow checkout --yes --reason 'gateway is down'",
    )),
    Command(resume, "resume", STEER, (
        "refold resume order-42 --reason 'renamed the step back'",
        "refold resume --status parked --parked-for 'used up its attempts' --dry-run",
        "refold resume --status failed --workflow checkout --since 1d --yes",
    )),
    Command(terminate, "terminate", STEER, ("refold terminate order-42 --reason 'started by mistake'",)),
    Command(set_limit, "set", STEER, (
        "refold queue set emails --concurrency 10 --why 'the provider takes ten'",
    ), queue),
    Command(list_queues, "list", STEER, ("refold queue list",), queue),
    Command(show_queue, "show", STEER, ("refold queue show emails",), queue),
    Command(rewind, "rewind", STEER, (
        "refold rewind order-42 --step 3 --reason 'charged the wrong card'",
        "refold rewind --workflow checkout --status failed --step 0 --dry-run",
    )),
    Command(fork, "fork", STEER, (
        "refold fork order-42 --step 3 --id order-42-again",
        "refold fork order-42 --version 2",
    )),
    Command(acls, "acls", SETUP, (
        "refold acls kafka://broker:9093/shop",
        "refold acls kafka://broker:9093/shop --worker shop-worker --client web --format commands",
    )),
    Command(doctor, "doctor", SETUP, (
        "refold doctor kafka://broker:9092/shop",
        "refold doctor --url sqlite:///orders.db --json | jq '.findings[] | select(.level != \"ok\")'",
    )),
    Command(sql, "sql", READ, (
        "refold sql 'SELECT status, count(*) FROM workflows GROUP BY ALL'",
        "refold sql 'SELECT name, avg(took) FROM steps GROUP BY ALL' --archive archive --csv",
    )),
    Command(sink, "sink", TAKE, (
        "refold sink parquet events --url kafka://broker:9092/shop",
        "refold sink postgres postgresql://etl@db/lake --types orders",
        "refold sink http https://example.org/events --state events.state",
    )),
    Command(export, "export", TAKE, (
        "refold export duckdb shop.duckdb --types orders:checkout",
        "refold export jsonl events.jsonl --url sqlite:///orders.db --archive archive",
    )),
    Command(migrate, "migrate", SETUP, (
        "refold migrate sqlite:///orders.db kafka://broker:9092/orders --partitions 16 --dry-run",
        "refold migrate kafka://broker:9092/orders kafka://broker:9092/orders-2 --partitions 64 --fence",
    )),
    Command(archive, "archive", SETUP, (
        "refold archive kafka://broker:9092/shop --to /var/lib/refold/archive",
        "refold archive --url sqlite:///orders.db --to archive --older-than 90d --trim --dry-run",
    )),
    Command(erase_subject, "erase", STEER, (
        "refold erase customer-7 --why 'request of 12 November' --dry-run",
        "refold erase customer-7 --why 'request of 12 November' --yes",
    )),
    Command(set_schedule, "set", WORK, (
        "refold schedule set nightly reports:report eu --cron '0 3 * * *' --timezone Europe/Berlin",
        "refold schedule set sweep reports:sweep --every 15m --skip --reason 'disks fill up'",
    ), schedule),
    Command(list_schedules, "list", WORK, ("refold schedule list --json",), schedule),
    Command(show_schedule, "show", WORK, ("refold schedule show nightly",), schedule),
    Command(pause_schedule, "pause", WORK, ("refold schedule pause nightly --reason 'the warehouse moves'",), schedule),
    Command(resume_schedule, "resume", WORK, ("refold schedule resume nightly",), schedule),
    Command(trigger_schedule, "trigger", WORK, (
        "refold schedule trigger nightly --reason 'last night was wrong'",
    ), schedule),
    Command(delete_schedule, "delete", WORK, ("refold schedule delete nightly",), schedule),
    Command(new, "new", SETUP, ("export REFOLD_MASTER_KEY=$(refold keys new)",), keys),
    Command(rotate, "rotate", SETUP, ("refold keys rotate customer-7",), keys),
    Command(rewrap, "rewrap", SETUP, ("REFOLD_MASTER_KEY=$NEW,$OLD refold keys rewrap",), keys),
    Command(version, "version", SETUP, ("refold version",)),
    Command(create_topics, "create", SETUP, (
        "refold topics create --url kafka://broker:9092/shop --partitions 16",
    ), topics),
    Command(list_schemas, "list", SETUP, ("refold schemas list",), schemas),
    Command(show_schema, "show", SETUP, ("refold schemas show event", "refold schemas show 1000000001"), schemas),
    Command(export_schemas, "export", SETUP, ("refold schemas export avro/",), schemas),
    Command(register_schemas, "register", SETUP, (
        "REFOLD_KAFKA_SCHEMA_REGISTRY=https://registry:8081 refold schemas register --url kafka://broker:9092/shop",
    ), schemas),
    Command(serve_schemas, "serve", SETUP, (
        "refold schemas serve --url kafka://broker:9092/shop",
        "refold schemas serve --port 8081 --address 0.0.0.0",
    ), schemas),
    Command(gc, "gc", SETUP, (
        "refold blobs gc sqlite:///orders.db --dry-run",
        "refold blobs gc --url kafka://broker:9092/shop --older-than 7d",
    ), blobs),
    Command(check_blobs, "verify", SETUP, ("refold blobs verify kafka://broker:9092/shop",), blobs),
    Command(audit_log, "log", READ, (
        "refold audit log --since 7d",
        "refold audit log --action terminate --action rewind --by anna --json",
    ), audit),
    Command(verify, "verify", READ, (
        "refold audit verify sqlite:///orders.db",
        "refold audit verify --seals seals.jsonl --public-key seal.key.pub --archive /var/lib/refold/archive",
    ), audit),
    Command(report, "report", READ, (
        "refold audit report order-42 -o order-42.html --seals seals.jsonl --public-key seal.key.pub",
    ), audit),
    Command(check_report, "check", READ, ("refold audit check order-42.html --public-key seal.key.pub",), audit),
    Command(keygen, "keygen", READ, ("refold audit keygen seal.key",), audit),
    Command(seal, "seal", READ, (
        "refold audit seal --key seal.key --to seals.jsonl",
        "refold audit seal --key seal.key --to seals.jsonl --every 1h --url kafka://broker:9092/shop",
    ), audit),
)
# fmt: on
