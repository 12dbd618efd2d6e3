"""The command line on a real Kafka broker: topics, two workers as processes, SIGKILL of one."""

import itertools
import json
import os
import re
import signal
import uuid
from pathlib import Path

import pytest

from cli_process import PATIENCE_S, CommandLine, Gate, Running
from refold import Engine
from refold.log.partitioner import partition_of

PARTITIONS = 4


def an_id_in(partition: int) -> str:
    """A workflow id that belongs to a partition."""
    ids = (f"run-{n}" for n in itertools.count())
    return next(id_ for id_ in ids if partition_of(id_, PARTITIONS) == partition)


def owned_at_last(worker: Running) -> set[str]:
    """The partitions that a worker last said it owns."""
    lists = re.findall(r"owned=(\S+)", worker.said)
    return set(lists[-1].split(",")) - {"none"} if lists else set()


@pytest.mark.slow
def test_two_workers_share_the_work_and_the_survivor_finishes_it(
    kafka_bootstrap: str, shop: Path
) -> None:
    """Given two workers with runs under way in both, SIGKILL of one leaves nothing unfinished."""
    refold = CommandLine(shop, f"kafka://{kafka_bootstrap}/cli-{uuid.uuid4().hex[:8]}")
    missing = refold("worker", "shop", code=4)
    assert "refold topics create" in missing.stderr
    assert "4 partitions" in refold("topics", "create", "--partitions", "4").stdout
    assert "there already" in refold("topics", "create", "--partitions", "4").stdout
    assert "has 4 partitions, not 8" in refold("topics", "create", code=4).stderr

    gates = {
        an_id_in(partition): Gate(shop / f"gate-{partition}") for partition in range(PARTITIONS)
    }
    with (
        refold.begin("worker", "shop", "--name", "first") as first,
        refold.begin("worker", "shop", "--name", "second") as second,
    ):
        for worker in (first, second):
            worker.until("claimed=")
        for run_id, gate in gates.items():
            refold("start", "shop:gated", str(gate.path), "--id", run_id, "--no-wait")
        held = [
            gate.reached() for gate in gates.values()
        ]  # every run is in its step, here or there
        first.process.kill()
        first.ended()
        for gate in gates.values():
            gate.leave_open()
        for descriptor in held:
            os.close(descriptor)  # the survivor's steps end; those of the killed begin again
        with Engine(refold.url, worker=False) as engine:
            results = [engine.handle(run_id).result(PATIENCE_S) for run_id in gates]
        assert results == ["through"] * PARTITIONS
        assert owned_at_last(second) == {"0", "1", "2", "3"}
        assert second.stopped(signal.SIGTERM) == 0

    runs = [json.loads(line) for line in refold("list", "--json").stdout.splitlines()]
    assert sorted(run["workflow_id"] for run in runs) == sorted(gates)
    assert {run["status"] for run in runs} == {"completed"}
    assert "taken over by worker second" in "".join(
        refold("show", run["workflow_id"]).stdout for run in runs
    )
