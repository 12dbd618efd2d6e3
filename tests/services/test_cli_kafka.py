"""The command line on a real Kafka broker: topics, two workers as processes, SIGKILL of one."""

import json
import os
import re
import signal
import uuid
from pathlib import Path

import pytest

from cli_process import CommandLine, Gate, Running

RUNS = 12


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

    gates = [Gate(shop / f"gate-{n}") for n in range(RUNS)]
    with (
        refold.begin("worker", "shop", "--name", "first") as first,
        refold.begin("worker", "shop", "--name", "second") as second,
    ):
        for worker in (first, second):
            worker.until("claimed=")
        for n, gate in enumerate(gates):
            refold("start", "shop:gated", str(gate.path), "--id", f"run-{n}", "--no-wait")
        held = [
            gate.reached() for gate in gates
        ]  # every run is in its step, in one worker or the other
        first.process.kill()
        first.ended()
        for descriptor in held:
            os.close(descriptor)  # those of the survivor end; those of the killed begin again
        for n in range(RUNS):
            finish(refold, gates[n], f"run-{n}")
        assert owned_at_last(second) == {"0", "1", "2", "3"}
        assert second.stopped(signal.SIGTERM) == 0

    runs = [json.loads(line) for line in refold("list", "--json").stdout.splitlines()]
    assert sorted(run["workflow_id"] for run in runs) == sorted(f"run-{n}" for n in range(RUNS))
    assert {run["status"] for run in runs} == {"completed"}
    assert "taken over by worker second" in "".join(
        refold("show", run["workflow_id"]).stdout for run in runs
    )


def finish(refold: CommandLine, gate: Gate, run_id: str) -> None:
    """Wait for a run's end; let its step pass if it is at the gate again."""
    with refold.begin("run", "shop:gated", str(gate.path), "--id", run_id, "--quiet") as waiting:
        while waiting.process.poll() is None:
            try:
                os.close(os.open(gate.path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:  # nobody is at the gate now
                continue
        assert waiting.ended() == 0
