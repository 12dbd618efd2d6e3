"""`refold migrate` as people run it."""

import json
import uuid
from pathlib import Path

import pytest

from cli_process import PATIENCE_S, CommandLine
from refold import CheckpointSettings, Engine, workflow


def sqlite_url(shop: Path, name: str) -> str:
    """The URL of a file in the shop's directory."""
    return f"sqlite:///{shop / name}.db"


def with_a_parked_run(refold: CommandLine) -> None:
    """One run has completed, and one is parked."""
    refold("run", "shop:checkout", "42", "--id", "order-42")
    refold("run", "shop:parking", "--id", "stuck", code=3)


def test_a_namespace_moves_and_its_runs_go_on_there(refold: CommandLine, shop: Path) -> None:
    """Given a parked run, after the move a worker refuses the old log, and in the new one it is resumed to its end."""
    with_a_parked_run(refold)
    target = sqlite_url(shop, "new")
    moved = refold("migrate", "sqlite:///shop.db", target, "--partitions", "4")
    assert "4 partitions, from 1 of sqlite:///" in moved.stdout
    assert "1 open runs, 1 that have ended" in moved.stdout
    refused = refold("worker", "shop", code=4)
    assert f"moves, or has moved, to {target}" in refused.stderr
    examined = refold("doctor", code=1).stdout.replace("\n", " ")
    assert "closed by `refold migrate`" in " ".join(examined.split())
    assert "stuck" in refold("list").stdout  # the old one can be read for ever

    (shop / "mended").touch()
    there = CommandLine(shop, target)
    with there.begin("worker", "shop") as worker:
        worker.until("owned=0,1,2,3")
        there("resume", "stuck")
        with Engine(target, worker=False) as engine:
            assert engine.handle("stuck").result(PATIENCE_S) == "mended"
    assert (shop / "journal.txt").read_text().count("reserve") == 1
    assert there("history", "order-42").stdout.count("step.completed") == 2


def test_a_second_time_there_is_nothing_left_to_do(refold: CommandLine, shop: Path) -> None:
    """Given a complete migration, running it again says so; its target can't be filled from elsewhere."""
    with_a_parked_run(refold)
    words = "migrate", "sqlite:///shop.db", sqlite_url(shop, "new")
    report = json.loads(refold(*words, "--json").stdout)
    assert (report["source_partitions"], report["target_partitions"]) == (1, 1)
    assert (report["open"], report["closed"], report["complete_before"]) == (1, 1, False)
    assert len(report["chains"]) == len(report["digests"]) == 1
    assert "all was there already" in refold(*words).stdout
    elsewhere = CommandLine(shop, "sqlite:///other.db")
    with_a_parked_run(elsewhere)
    refused = elsewhere("migrate", "sqlite:///other.db", sqlite_url(shop, "new"), code=4)
    assert "fresh namespace" in refused.stderr
    assert "owned" not in elsewhere("list").stdout
    assert "released to workers" in refold(*words, "--abandon", code=4).stderr


def test_a_dry_run_changes_nothing(refold: CommandLine, shop: Path) -> None:
    """Given a namespace, a dry run says what there is, makes no target, and workers go on."""
    with_a_parked_run(refold)
    words = "migrate", "sqlite:///shop.db", sqlite_url(shop, "new"), "--dry-run"
    found = json.loads(refold(*words, "--json").stdout)
    assert (found["partitions"], found["open"], found["closed"]) == (1, 1, 1)
    assert (found["holders"], found["moved_to"]) == ({}, None)
    assert "1 open runs, 1 that have ended" in refold(*words).stdout
    assert not (shop / "new.db").exists()
    refold("run", "shop:checkout", "43")


def test_a_source_with_a_worker_is_refused(refold: CommandLine, shop: Path) -> None:
    """Given a worker at work, the migration says who is in the way, and what to do; with --fence it goes on."""
    with_a_parked_run(refold)
    words = "migrate", "sqlite:///shop.db", sqlite_url(shop, "new")
    with refold.begin("worker", "shop") as worker:
        worker.until("owned=0")
        refused = refold(*words, code=4)
        assert "is at work: its partitions 0 are held by a worker" in refused.stderr
        assert "--fence" in refused.stderr
        assert "workers are at work on partitions 0" in refold(*words, "--dry-run").stdout
        assert "workers may open it" in refold(*words, "--fence").stdout


def test_what_can_not_be_is_refused(refold: CommandLine, shop: Path) -> None:
    """Given logs that are missing, in memory or one and the same, the command says what is wrong."""
    with_a_parked_run(refold)
    here, new = "sqlite:///shop.db", sqlite_url(shop, "new")
    assert "no log file" in refold("migrate", "sqlite:///no.db", new, code=4).stderr
    assert "is gone when this command ends" in refold("migrate", here, "memory://", code=2).stderr
    itself = refold("migrate", here, sqlite_url(shop, "shop"), code=4)
    assert "can't be migrated into itself" in itself.stderr
    goes_alone = refold("migrate", here, new, "--abandon", "--fence", code=2)
    assert "--abandon goes alone" in goes_alone.stderr
    secret = refold("migrate", here, "kafka://me:secret@broker:9092/shop", code=2)
    assert "secret" not in secret.stderr.replace("sasl_password_file", "")
    refold("migrate", here, f"{new}?partitions=2")
    assert "has 2 partitions" in refold("migrate", here, new, "--partitions", "3", code=2).stderr


def test_trimmed_history_moves_from_its_archive(refold: CommandLine, shop: Path) -> None:
    """Given a log that was archived and trimmed, the migration asks for the archive, and moves whole streams."""
    often = CheckpointSettings(min_bytes=1)
    with Engine(sqlite_url(shop, "shop"), workflows=[echo], checkpoints=often) as engine:
        for number in range(40):
            engine.start(echo, number, id=f"run-{number}").result(PATIENCE_S)
    refold("archive", "--to", "archive", "--format", "avro", "--trim")
    words = "migrate", "sqlite:///shop.db", sqlite_url(shop, "new")
    assert "--archive DIR" in refold(*words, code=4).stderr
    refold(*words, "--archive", "archive")
    with Engine(sqlite_url(shop, "new"), worker=False) as engine:
        assert len(engine.history("run-0")) == 2


@workflow
async def echo(number: int) -> int:
    return number


@pytest.mark.kafka
@pytest.mark.slow
def test_a_file_moves_to_kafka(refold: CommandLine, shop: Path, kafka_bootstrap: str) -> None:
    """Given no such namespace on Kafka, its topics are made, and runs go on there."""
    with_a_parked_run(refold)
    target = f"kafka://{kafka_bootstrap}/moved-{uuid.uuid4().hex[:8]}"
    blobs = f"{target}?blobs=file://{shop}/blobs"
    moved = refold("migrate", "sqlite:///shop.db", blobs, "--partitions", "3")
    assert "with 3 partitions" in moved.stderr
    assert "3 partitions, from 1" in moved.stdout
    with Engine(target, worker=False) as engine:
        assert {info.workflow_id for info in engine.list()} == {"order-42", "stuck"}
