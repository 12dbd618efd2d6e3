"""`refold worker --pool`: a process that carries out the steps of a pool for another that runs the workflows."""

import signal
import uuid
from pathlib import Path

from cli_process import CommandLine
from log_backend import PATIENCE_S
from refold import Engine
from refold.engine.stats import Stats
from refold.services.metrics import StatsCollector

PRESS = """
import os
from pathlib import Path
from refold import step, workflow

@step(pool="ink")
def print_page(number: int) -> str:
    Path("printed_by.txt").write_text(str(os.getpid()))
    return f"page {number}"

@workflow
def book(number: int) -> str:
    return print_page(number)
"""


def test_a_pools_worker_carries_out_its_steps(shop: Path, refold: CommandLine) -> None:
    """Given a worker and one of a pool, the pool's step is carried out by the latter, which owns no partition."""
    (shop / "press.py").write_text(PRESS)
    with refold.begin("worker", "press", "--pool-lease-s", "10") as owner:
        owner.until("owned=0")
        with refold.begin("worker", "--pool", "ink", "press") as pool:
            pool.until("steps=ink/print_page")
            done = refold("run", "press:book", "3", "--id", "b")
            assert done.stdout.strip().strip('"') == "page 3"
            assert (shop / "printed_by.txt").read_text() == str(pool.process.pid)
            assert pool.stopped(signal.SIGTERM) == 0
        assert owner.stopped(signal.SIGTERM) == 0


def test_steps_that_wait_for_a_pool_are_a_metric() -> None:
    """Given a worker's numbers, the steps that wait are told by pool."""
    stats = Stats(1, {}, 0, 0, 0, {"ink": 2, "gold": 1})
    (waiting,) = (
        metric
        for metric in StatsCollector(lambda: stats).collect()
        if metric.name == "refold_steps_waiting_for_pool"
    )
    assert [(s.labels, s.value) for s in waiting.samples] == [
        ({"pool": "gold"}, 1),
        ({"pool": "ink"}, 2),
    ]


def test_a_pool_without_steps_is_told(shop: Path, refold: CommandLine) -> None:
    """Given a module that has no step of the pool, the command says so; a log that is not there is not made."""
    (shop / "press.py").write_text(PRESS)
    refold("worker", "--pool", "ink", "press", code=4)
    assert not (shop / "shop.db").exists()
    refold("run", "shop:checkout", "1")
    refused = refold("worker", "--pool", "paper", "press", code=2)
    assert "no step or workflow of pool 'paper'" in refused.stderr


STUDIO = """
from refold import run_child, step, workflow

@step
def scene(number: int) -> str:
    return f"scene {number}"

@workflow(pool="studio")
def film(scenes: int) -> list[str]:
    return [scene(number) for number in range(scenes)]
"""
ADVERT = """
from refold import run_child_sync, workflow
from studio import film

@workflow
def advert(scenes: int) -> int:
    return len(run_child_sync(film, scenes))
"""


def test_a_worker_of_a_pool_of_workflows(kafka_bootstrap: str, shop: Path) -> None:
    """Given a namespace with a pool on Kafka, its worker runs the pool's workflows, and the doctor sees both groups."""
    refold = CommandLine(shop, f"kafka://{kafka_bootstrap}/cli-{uuid.uuid4().hex[:8]}")
    (shop / "studio.py").write_text(STUDIO)
    (shop / "advert.py").write_text(ADVERT)
    made = refold("topics", "create", "--partitions", "1", "--pool", "studio:2")
    assert "1 partition, and 2 of pool studio" in made.stdout
    with refold.begin("worker", "advert:advert") as common:
        common.until("owned=0 ")
        assert "no worker is there: the group" in refold("doctor", code=1).stdout
        with refold.begin("worker", "--pool", "studio", "studio") as studio:
            studio.until("workflows=film")
            studio.until("owned=1,2 ")
            run = refold("start", "studio:film", "2").stdout.strip()
            assert run.endswith("@studio")
            refused = refold("start", "studio:film", "2", "--id", "f", code=2)
            assert "use 'f@studio' in place of 'f'" in refused.stderr
            refold("start", "advert:advert", "2", "--id", "ad")
            with Engine(refold.url, worker=False) as client:
                assert client.handle("ad").result(timeout_s=PATIENCE_S) == 2
            assert (
                ".workers.studio: " in refold("doctor", code=1).stdout
            )  # one broker is worth a warning
            assert studio.stopped(signal.SIGTERM) == 0
        assert common.stopped(signal.SIGTERM) == 0
