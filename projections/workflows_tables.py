"""The tables of the workflows read model, for both databases.

    runs        a row for each run: how it stands, as `refold list` tells it
    attributes  its tags, each in the text form in which it stands in the log (`log/attributes.py`)
    steps       each step that came to something, or is between two attempts
    attempts    each attempt of a step, the failed ones with their errors
    messages    what came in, and what was sent to other workflows
    timers      each sleep and timeout
    schedules   each schedule: what it starts, when it is due next, what it has started
    queues      how many runs of a queue run at once, and who said so; how many do and wait is told by `runs`
    tag_tallies how many runs have a tag, by its value and how they stand
    tallies     how many runs there are of a workflow, a version and a status, by the day in which they were started
    floors      for each partition, which ended runs have been forgotten (`CheckpointBegun`)

Times are microseconds since 1970-01-01 UTC. Payloads are not kept: what went in and out of runs stays in the log alone,
where it can be encrypted and erased. A new feature of the engine gets tables of its own.
"""

from collections.abc import Sequence
from typing import Final

from refold.projections.projection import Dialect
from refold.projections.workflows_order import NO_DURATION, NO_END

RUN_COLUMNS: Final = (
    "workflow_id",
    "partition",
    "workflow",
    "version",
    "status",
    "started_at",
    "updated_at",
    "ended_at",
    "events",
    "code_version",
    "parent_id",
    "parent_step",
    "source_id",
    "due_at",
    "error_type",
    "error",
    "broken",
    "open_timers",
    "attributes",
    "patches",
    "queue",
    "waits",
)

_RUNS: Final = """
    workflow_id TEXT NOT NULL UNIQUE,
    partition BIGINT NOT NULL,
    workflow TEXT NOT NULL,
    version BIGINT NOT NULL,
    status TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    ended_at BIGINT,
    events BIGINT NOT NULL,
    code_version TEXT,
    parent_id TEXT,
    parent_step BIGINT,
    source_id TEXT,
    due_at BIGINT,
    error_type TEXT,
    error TEXT,
    broken BIGINT NOT NULL,
    open_timers BIGINT NOT NULL,
    attributes TEXT NOT NULL,
    patches TEXT NOT NULL,
    queue TEXT,
    waits BIGINT NOT NULL"""

_REST: Final = (
    # A database's index has room for some 2,700 bytes; a tag may be longer: `value_start` is its beginning.
    """CREATE TABLE attributes (
        workflow_id TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, value_start TEXT NOT NULL,
        started_at BIGINT NOT NULL, PRIMARY KEY (workflow_id, name))""",
    """CREATE TABLE steps (
        workflow_id TEXT NOT NULL, step BIGINT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
        attempts BIGINT NOT NULL, started_at BIGINT NOT NULL, ended_at BIGINT, due_at BIGINT, worker TEXT NOT NULL,
        error_type TEXT, error_message TEXT, undone_at BIGINT, PRIMARY KEY (workflow_id, step))""",
    """CREATE TABLE attempts (
        workflow_id TEXT NOT NULL, position BIGINT NOT NULL, step BIGINT NOT NULL, attempt BIGINT NOT NULL,
        status TEXT NOT NULL, started_at BIGINT NOT NULL, ended_at BIGINT NOT NULL, worker TEXT NOT NULL,
        error_type TEXT, error_message TEXT, PRIMARY KEY (workflow_id, position))""",
    """CREATE TABLE messages (
        workflow_id TEXT NOT NULL, direction TEXT NOT NULL, message_id TEXT NOT NULL, kind TEXT NOT NULL,
        name TEXT NOT NULL, other_id TEXT, recorded_at BIGINT NOT NULL, status TEXT NOT NULL, settled_at BIGINT,
        error_type TEXT, error_message TEXT, PRIMARY KEY (workflow_id, direction, message_id))""",
    """CREATE TABLE timers (
        workflow_id TEXT NOT NULL, step BIGINT NOT NULL, name TEXT NOT NULL, started_at BIGINT NOT NULL,
        due_at BIGINT NOT NULL, status TEXT NOT NULL, fired_at BIGINT, PRIMARY KEY (workflow_id, step))""",
    """CREATE TABLE schedules (
        workflow_id TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, workflow TEXT, cron TEXT,
        every_s DOUBLE PRECISION, timezone TEXT, overlap TEXT, start_at BIGINT, end_at BIGINT, paused BIGINT NOT NULL,
        next_due BIGINT, last_due BIGINT, last_id TEXT, last_started_at BIGINT, started BIGINT NOT NULL,
        skipped BIGINT NOT NULL, problem TEXT, updated_at BIGINT NOT NULL)""",
    """CREATE TABLE queues (
        name TEXT PRIMARY KEY, concurrency BIGINT NOT NULL, set_at BIGINT NOT NULL, set_by TEXT, reason TEXT)""",
    """CREATE TABLE tallies (
        partition BIGINT NOT NULL, day BIGINT NOT NULL, workflow TEXT NOT NULL, version BIGINT NOT NULL,
        status TEXT NOT NULL, runs BIGINT NOT NULL, PRIMARY KEY (partition, day, workflow, version, status))""",
    # Where a value is longer than its beginning, several may count as one.
    """CREATE TABLE tag_tallies (
        name TEXT NOT NULL, value_start TEXT NOT NULL, partition BIGINT NOT NULL, status TEXT NOT NULL,
        runs BIGINT NOT NULL, PRIMARY KEY (name, value_start, partition, status))""",
    """CREATE TABLE floors (
        partition BIGINT PRIMARY KEY, floor BIGINT NOT NULL, forgotten_before BIGINT NOT NULL)""",
)

INDEXES: Final = (
    # With what `tallies` knows, for the parts of days that they can't tell.
    "CREATE INDEX runs_started ON runs (started_at, workflow_id, status, workflow, version)",
    "CREATE INDEX runs_updated ON runs (updated_at, workflow_id)",
    # As `workflows_order.py` says it.
    f"CREATE INDEX runs_ended ON runs (coalesce(ended_at, {NO_END}), workflow_id)",
    f"CREATE INDEX runs_duration ON runs (coalesce(ended_at - started_at, {NO_DURATION}), workflow_id)",
    "CREATE INDEX runs_status ON runs (status, started_at, workflow_id)",
    "CREATE INDEX runs_workflow ON runs (workflow, started_at, workflow_id)",
    "CREATE INDEX runs_workflow_status ON runs (workflow, status, started_at, workflow_id)",
    "CREATE INDEX runs_version ON runs (version, started_at, workflow_id)",
    "CREATE INDEX runs_parent ON runs (parent_id, started_at, workflow_id) WHERE parent_id IS NOT NULL",
    "CREATE INDEX runs_queue ON runs (queue, started_at, workflow_id) WHERE queue IS NOT NULL",
    "CREATE INDEX runs_queue_open ON runs (queue, waits) WHERE queue IS NOT NULL AND ended_at IS NULL",
    "CREATE INDEX runs_error_type ON runs (error_type, started_at, workflow_id) WHERE error_type IS NOT NULL",
    "CREATE INDEX attributes_value ON attributes (name, value_start, started_at, workflow_id)",
    "CREATE INDEX steps_failed ON steps (name, ended_at) WHERE status <> 'completed'",
    "CREATE INDEX timers_running ON timers (due_at) WHERE status = 'running'",
)

# A text inside an error is found by the three-letter pieces that it consists of; a shorter one by a look at every error
# there is: they stand together, and are far fewer than the runs.
_SQLITE_SEARCH: Final = (
    "CREATE INDEX runs_error ON runs (started_at, workflow_id, error) WHERE error IS NOT NULL",
    "CREATE VIRTUAL TABLE run_errors USING fts5"
    " (error, content = 'runs', content_rowid = 'row_id', tokenize = 'trigram', detail = 'full')",
    """CREATE TRIGGER run_errors_added AFTER INSERT ON runs WHEN new.error IS NOT NULL BEGIN
        INSERT INTO run_errors (rowid, error) VALUES (new.row_id, new.error);
    END""",
    """CREATE TRIGGER run_errors_changed AFTER UPDATE OF error ON runs WHEN old.error IS NOT new.error BEGIN
        INSERT INTO run_errors (run_errors, rowid, error)
            SELECT 'delete', old.row_id, old.error WHERE old.error IS NOT NULL;
        INSERT INTO run_errors (rowid, error) SELECT new.row_id, new.error WHERE new.error IS NOT NULL;
    END""",
    """CREATE TRIGGER run_errors_removed AFTER DELETE ON runs WHEN old.error IS NOT NULL BEGIN
        INSERT INTO run_errors (run_errors, rowid, error) VALUES ('delete', old.row_id, old.error);
    END""",
)
_POSTGRESQL_SEARCH: Final = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public",
    "CREATE TABLE run_errors (workflow_id TEXT PRIMARY KEY, error TEXT NOT NULL)",
    "CREATE INDEX run_errors_text ON run_errors USING gin (error gin_trgm_ops)",
    """CREATE FUNCTION keep_run_error() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        DELETE FROM run_errors WHERE workflow_id = old.workflow_id;
        INSERT INTO run_errors SELECT new.workflow_id, new.error WHERE new.error IS NOT NULL;
        RETURN NULL;
    END $$""",
    """CREATE TRIGGER run_errors_added AFTER INSERT ON runs FOR EACH ROW WHEN (new.error IS NOT NULL)
        EXECUTE FUNCTION keep_run_error()""",
    """CREATE TRIGGER run_errors_changed AFTER UPDATE ON runs FOR EACH ROW
        WHEN (old.error IS DISTINCT FROM new.error) EXECUTE FUNCTION keep_run_error()""",
)


def tables(dialect: Dialect) -> Sequence[str]:
    """The statements that make them, with their indexes."""
    if dialect == "sqlite":
        runs = f"CREATE TABLE runs (row_id INTEGER PRIMARY KEY, {_RUNS})"
        rest = [f"{table} WITHOUT ROWID" for table in _REST]
        return [runs, *rest, *INDEXES, *_SQLITE_SEARCH]
    return [f"CREATE TABLE runs ({_RUNS})", *_REST, *INDEXES, *_POSTGRESQL_SEARCH]
