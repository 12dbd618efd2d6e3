"""Several engines on one log or on several, in one process and in several."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine_trial import engine_on, kinds, until
from log_backend import PATIENCE_S, LogBackend, SqliteBackend
from refold import Engine, ResultTimeout, Status, step, workflow

TOOLS = Path(__file__).parents[2] / "tools"

PROGRAM = """
import sys
from refold import Engine, step, workflow

@step
async def whose() -> str:
    return "the other process"

@workflow
async def ask(number: int) -> str:
    return f"{await whose()} {number}"
"""


@step
async def whose() -> str:
    return "this process"


@workflow
async def ask(number: int) -> str:
    return f"{await whose()} {number}"


@contextmanager
def other_process(code: str, path: Path) -> Generator[subprocess.Popen[str], None, None]:
    """Another process that runs `code` after PROGRAM, with the log's url as its argument."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + textwrap.dedent(code), f"sqlite:///{path}?partitions=2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


FORKS = """
import multiprocessing

def use(engine: Engine, heard: multiprocessing.Queue) -> None:
    try:
        engine.start(ask, 2)
    except Exception as error:
        heard.put(f"{type(error).__name__}: {error}")
    engine.__exit__()

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that a process with threads is forked
    with Engine("memory://") as engine:
        context = multiprocessing.get_context("fork")
        heard = context.Queue()
        child = context.Process(target=use, args=(engine, heard))
        child.start()
        print(heard.get(timeout=120))
        child.join(120)
        print(child.exitcode, engine.start(ask, 1).result())
        try:
            multiprocessing.get_context("spawn").Process(target=use, args=(engine, heard)).start()
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
"""


def test_an_engine_stays_in_its_process(tmp_path: Path) -> None:
    """Given an open engine, when its process forks, then the copy refuses calls, closing it does nothing, the engine
    goes on, and to pickle it is refused with what to do."""
    program = tmp_path / "forks.py"
    program.write_text("import warnings" + PROGRAM + FORKS)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=240, check=False
    )
    forked, still, spawned = done.stdout.splitlines()
    assert forked.startswith("EngineClosed: the engine was opened in process ")
    assert forked.endswith("in a forked process open an Engine of its own, for the same log")
    assert still == "0 the other process 1"
    assert spawned.startswith("UsageError: an Engine can't be sent to another process")


WORKER = """
with Engine(sys.argv[1]) as engine:
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_client_alone_gets_results_from_a_worker_elsewhere(tmp_path: Path) -> None:
    """Given a worker in another process, an engine without a worker starts a run and gets its result."""
    backend = SqliteBackend(tmp_path)
    with other_process(WORKER, backend.path) as worker:
        assert line_of(worker) == "ready"
        with engine_on(backend, worker=False) as client:
            assert client.start(ask, 1, id="a-1").result(PATIENCE_S) == "the other process 1"
            assert client.owned_partitions == []
        assert worker.stdin is not None
        worker.stdin.close()
        assert worker.wait(PATIENCE_S) == 0


def test_another_process_attaches_by_id_and_waits(tmp_path: Path) -> None:
    """Given a run under way here, another process attaches to it by its id and hears its result when it ends."""
    gate = asyncio.Event()

    @step
    async def wait() -> str:
        await gate.wait()
        return "opened"

    @workflow
    async def gated() -> str:
        return await wait()

    attach = """
    with Engine(sys.argv[1], worker=False) as engine:
        handle = engine.handle("gated-1")
        print(handle.status().status, flush=True)
        print(handle.result(60), flush=True)
    """

    async def scenario() -> None:
        backend = SqliteBackend(tmp_path)
        async with engine_on(backend, gated) as engine:
            await engine.start_async(gated, id="gated-1")
            with other_process(attach, backend.path) as client:
                assert await asyncio.to_thread(line_of, client) == "running"
                gate.set()
                assert await asyncio.to_thread(line_of, client) == "opened"
                assert await asyncio.to_thread(client.wait, PATIENCE_S) == 0

    asyncio.run(scenario())


def test_a_client_without_any_worker_is_told_so_and_loses_nothing(backend: LogBackend) -> None:
    """Given no worker, a start times out and says that its command is durable; a later worker carries it out."""
    client = Engine(backend.log(), worker=False, start_timeout_s=0.01)
    with client, pytest.raises(ResultTimeout, match=r"'later'.*start a worker"):
        client.start(ask, 5, id="later")
    with engine_on(backend, ask) as engine:
        until(lambda: [info.status for info in engine.list()] == [Status.COMPLETED])
        assert engine.handle("later", ask).result() == "this process 5"


def test_engines_on_different_logs_do_not_meet(tmp_path: Path) -> None:
    """Given two engines in one process on two files, the same id names a run of its own in each."""
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.mkdir()
    one, two = (engine_on(SqliteBackend(path), ask) for path in paths)
    with one, two:
        handles = [one.start(ask, 1, id="same"), two.start(ask, 2, id="same")]
        assert [handle.result() for handle in handles] == ["this process 1", "this process 2"]
        assert [len(engine.list()) for engine in (one, two)] == [1, 1]


def test_a_second_engine_stands_by_and_takes_over(backend: LogBackend) -> None:
    """Given two engines on one log of two partitions, they share it; when one closes, the other owns it all."""
    first, second = engine_on(backend, ask), engine_on(backend, ask)
    with second:
        with first:
            until(lambda: len(first.owned_partitions) == len(second.owned_partitions) == 1)
            assert {*first.owned_partitions, *second.owned_partitions} == {0, 1}
            results = [first.start(ask, n, id=f"run-{n}").result() for n in range(8)]
            assert results == [f"this process {n}" for n in range(8)]
        until(lambda: list(second.owned_partitions) == [0, 1])
        again = [second.start(ask, n, id=f"run-{n}").result() for n in range(8)]
        assert again == results
        assert kinds(second, "run-0").count("workflow.started") == 1


def test_a_third_engine_on_two_partitions_waits_for_its_turn(tmp_path: Path) -> None:
    """Given a file of one partition and two engines, the second owns nothing until the first has closed."""
    url = f"sqlite:///{tmp_path}/log.db"
    second = Engine(url, workflows=[ask])
    with Engine(url, workflows=[ask]) as first:
        until(lambda: list(first.owned_partitions) == [0])
        second.__enter__()
        assert second.start(ask, 3, id="s").result() == "this process 3"  # by the first
        assert list(second.owned_partitions) == []
    try:
        until(lambda: list(second.owned_partitions) == [0])
        assert second.handle("s", ask).result() == "this process 3"
    finally:
        second.__exit__()
