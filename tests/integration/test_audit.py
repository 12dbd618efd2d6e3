"""Auditing what engines have written, on every log."""

import asyncio
from collections.abc import Sequence
from itertools import chain, repeat
from pathlib import Path

import pytest

from chronicle import drawn
from engine_trial import with_log
from log_backend import PATIENCE_S, LogBackend, MemoryBackend, SqliteBackend
from refold import CheckpointSettings, Engine, step, workflow
from refold.log.archive import identity_of
from refold.log.archive_log import ArchiveLog
from refold.log.archive_writer import ArchiveSettings
from refold.log.memory import MemoryLog, MemoryStore
from refold.log.protocol import Channel, Log
from refold.projections.audit import PartitionReport, check_are_of, stand_of, verify_partition
from refold.projections.audit_actions import Action, Wanted, read_actions
from refold.projections.audit_check import check_report
from refold.projections.audit_report import AuditReport, make_report
from refold.projections.audit_walk import Standing
from refold.projections.seal import Seal, SealKey
from refold.services.archiving import Order, archive_log

KEY = SealKey.generate()
LENGTH = 25


@step
async def note(text: str) -> str:
    return text * 20


@workflow
async def notes(text: str) -> list[str]:
    return [await note(f"{text}{n}") for n in range(3)]


async def verified(log: Log, seals: Sequence[Seal] = ()) -> list[PartitionReport]:
    check_are_of(seals, log, identity_of(log))
    return [await verify_partition(log, partition, seals) for partition in range(log.partitions)]


async def sealed(log: Log) -> Seal:
    stood = [(await stand_of(log, p, Standing()))[0] for p in range(log.partitions)]
    return KEY.seal(log.namespace, identity_of(log), 1, stood, None)


def test_what_engines_write_is_verified_sealed_and_reported(any_backend: LogBackend) -> None:
    """Given runs of two engines, with orders and checkpoints, nothing is found, and a report proves a run's history."""
    often = CheckpointSettings(min_bytes=2_000)
    for number in range(2):
        with Engine(any_backend.log(), workflows=[notes], checkpoints=often) as engine:
            handles = [engine.start(notes, "x", id=f"run-{number}-{n}") for n in range(10)]
            for handle in handles:
                handle.result(PATIENCE_S)
    with Engine(any_backend.log(), workflows=[notes], requested_by="anna@desk") as engine:
        engine.handle("run-0-1").rewind(1, "wrong note")

    async def audit(log: Log) -> tuple[list[PartitionReport], AuditReport, list[Action]]:
        seal = await sealed(log)
        found = await verified(log, [seal])
        report = await make_report(log, "run-0-1", 1, (seal, KEY.public))
        return found, report, [action async for action in read_actions(log, Wanted())]

    found, report, actions = with_log(any_backend, audit)
    assert [one.findings for one in found] == [(), ()]
    assert all(one.sealed == one.standing.end > 0 for one in found)
    assert check_report(report, [KEY.public]).verdict == "verified"
    assert [(one.name, one.by, one.why) for one in actions] == [
        ("reopen", "anna@desk", "wrong note")
    ]


@pytest.mark.parametrize("offset", [4, LENGTH - 1])
def test_a_doctored_topic_is_found_at_its_event(kafka_backend: LogBackend, offset: int) -> None:
    """Given a topic that somebody has filled with a history and one changed event in it, that event is the finding."""
    made = drawn(1, LENGTH)
    offset = max(at for at in made.events() if at <= offset)
    entries = list(made.entries)
    value = entries[offset].value
    entries[offset] = entries[offset]._replace(value=value[:-1] + bytes([value[-1] ^ 1]))

    async def doctor(log: Log) -> list[PartitionReport]:
        await log.append(Channel.EVENTS, 0, entries)
        return await verified(log)

    doctored, untouched = with_log(kafka_backend, doctor)
    assert (doctored.findings[0].kind, doctored.findings[0].offset) == ("chain", offset)
    assert untouched.findings == ()


def test_a_topic_that_is_shorter_than_its_seal_was_cut_off(kafka_backend: LogBackend) -> None:
    """Given a seal over more than the topic has, as after a restore from an old backup, it is told."""
    made = drawn(1, LENGTH)

    async def cut(log: Log) -> PartitionReport:
        await log.append(Channel.EVENTS, 0, made.entries[:20])
        batches = log.read(Channel.EVENTS, 0, 0)
        times = [record.timestamp async for batch in batches for record in batch]
        times_left = chain(times, repeat(times[-1]))
        longer = MemoryLog("longer", store=MemoryStore(now_us=lambda: next(times_left)))
        await longer.open()
        for entry in made.entries:
            await longer.append(Channel.EVENTS, 0, [entry])
        return await verify_partition(log, 0, [await sealed(longer)])

    finding = with_log(kafka_backend, cut).findings[0]
    assert (finding.kind, finding.offset) == ("seal", 20)


def test_a_trimmed_log_is_held_against_its_seals_without_its_archive(tmp_path: Path) -> None:
    """Given a log that was sealed, trimmed, written on and sealed again, what is left is verified."""
    backend = SqliteBackend(tmp_path)
    often = CheckpointSettings(min_bytes=2_000)

    def live(prefix: str) -> None:
        with Engine(backend.log(), workflows=[notes], checkpoints=often) as engine:
            for handle in [engine.start(notes, "x", id=f"{prefix}-{n}") for n in range(20)]:
                handle.result(PATIENCE_S)

    live("one")
    first = with_log(backend, sealed)
    order = Order(str(tmp_path / "a"), ArchiveSettings("avro"), None, trim=True, dry_run=False)
    with_log(backend, lambda log: archive_log(log, order))
    live("two")

    async def seal_again(log: Log) -> Seal:
        stood = [(await stand_of(log, p, one))[0] for p, one in enumerate(first.partitions)]
        return KEY.seal(log.namespace, identity_of(log), 2, stood, first)

    seals = [first, with_log(backend, seal_again)]
    for found in with_log(backend, lambda log: verified(log, seals)):
        assert found.start > 0
        assert (found.findings, found.sealed) == ((), found.standing.end)
    forged = seals[1].partitions[0]._replace(stale=seals[1].partitions[0].stale + 1)
    other = KEY.seal("x", seals[1].identity, 2, [forged, *seals[1].partitions[1:]], first)
    denied, _ = with_log(backend, lambda log: verified(log, [first, other]))
    assert (denied.findings[0].kind, denied.findings[0].offset) == ("seal", first.partitions[0].end)


@workflow(pool="gpu")
async def film(text: str) -> str:
    return await note(text)


def test_a_run_of_a_pool_has_a_report_also_from_its_archive_alone(tmp_path: Path) -> None:
    """Given a namespace with partitions of a pool, a run there is found and proved, in the log and in its archive."""
    backend = MemoryBackend((("gpu", 2),))
    with Engine(backend.log(), workflows=[film], worker=False, pools=["gpu"]) as studio:
        studio.start(film, "x", id="film-7@gpu").result(PATIENCE_S)

    async def report(log: Log) -> AuditReport:
        seal = await sealed(log)
        return await make_report(log, "film-7@gpu", 1, (seal, KEY.public))

    order = Order(str(tmp_path / "a"), ArchiveSettings("avro"), None, trim=False)
    with_log(backend, lambda log: archive_log(log, order))

    async def report_from_archive() -> AuditReport:
        log = ArchiveLog(str(tmp_path / "a"))
        await log.open()
        return await report(log)

    for found in (with_log(backend, report), asyncio.run(report_from_archive())):
        assert found.partition >= 2
        assert check_report(found, [KEY.public]).verdict == "verified"
