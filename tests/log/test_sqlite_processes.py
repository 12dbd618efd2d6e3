"""SqliteLog between processes: SIGKILL, takeover, writers that race, a disk that is full for one of them."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from log_backend import PATIENCE_S, Worker, records_of
from refold.log.protocol import Channel, Entry
from refold.log.sqlite import SqliteLog, SqliteSettings

FAST = SqliteSettings(rebalance_s=0.01)

PROLOGUE = """
import asyncio, sys
from refold.log.errors import AppendUnknown, LogError, LogUnavailable
from refold.log.protocol import Channel, Entry
from refold.log.sqlite import SqliteLog

def say(*words):
    print(*words, flush=True)
"""


def start(code: str, path: Path) -> subprocess.Popen[str]:
    """Another process, which runs `code` with the log's path as its argument."""
    return subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + textwrap.dedent(code), str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the process ended with {process.wait()} before it said what was expected"
    return line.strip()


OWNER = """
class Listener:
    def assigned(self, partition): say("assigned", partition)
    def revoking(self, partition): pass
    def revoked(self, partition, lost): say("revoked", partition)
    def deliver(self, partition, records): pass

async def main():
    log = SqliteLog(sys.argv[1])
    await log.open()
    await log.join("other", Listener())
    await asyncio.sleep(3600)

asyncio.run(main())
"""

WRITER = """
async def main():
    log = SqliteLog(sys.argv[1])
    await log.open()
    for n in range(100_000):
        (offset,) = await log.append(Channel.EVENTS, 0, [Entry("wf", str(n).encode())])
        say(offset, n)

asyncio.run(main())
"""

COUNTED_WRITER = """
async def main():
    log = SqliteLog(sys.argv[1])
    await log.open()
    name = "w%d" % id(log)
    for n in range(200):
        await log.append(Channel.COMMANDS, 0, [Entry(name, str(n).encode()), Entry(name, b"+")])
    await log.close()

asyncio.run(main())
"""


VISITOR = """
async def main():
    log = SqliteLog(sys.argv[1])
    await log.open()
    end = (await log.bounds(Channel.EVENTS, 0)).end
    await log.close()
    say(end)

asyncio.run(main())
"""


def test_a_killed_owners_partition_is_taken_over(tmp_path: Path) -> None:
    """Given an owner in another process, SIGKILL frees its partition for the one who waits."""
    path = tmp_path / "log.db"

    async def scenario() -> None:
        with start(OWNER, path) as process:
            try:
                assert line_of(process) == "assigned 0"
                log = SqliteLog(path, settings=FAST)
                await log.open()
                worker = Worker("heir")
                await worker.join(log)
                assert worker.owned == set()
                process.send_signal(signal.SIGKILL)
                async with asyncio.timeout(PATIENCE_S):
                    await worker.until(lambda: worker.owned == {0})
                await log.close()
            finally:
                process.kill()

    asyncio.run(scenario())


@pytest.mark.parametrize("acknowledged", [1, 50, 333])
def test_what_was_acknowledged_survives_sigkill(tmp_path: Path, acknowledged: int) -> None:
    """Given a writer killed at some moment, every record that it was told is durable is there, at its offset."""
    path = tmp_path / "log.db"
    with start(WRITER, path) as process:
        try:
            told = [line_of(process).split() for _ in range(acknowledged)]
        finally:
            process.kill()

    async def found() -> dict[str, str]:
        log = SqliteLog(path)
        await log.open()
        records = await records_of(log, Channel.EVENTS)
        await log.append(Channel.EVENTS, 0, [Entry("wf", b"the log goes on")])
        await log.close()
        return {str(record.offset): record.value.decode() for record in records}

    records = asyncio.run(found())
    assert {offset: records.get(offset) for offset, _ in told} == dict(told)


def test_another_process_leaves_two_logs_of_this_one_what_they_write(tmp_path: Path) -> None:
    """Given two logs on one file here, when another process opens it and leaves, what is acknowledged after is kept."""
    path = tmp_path / "log.db"

    async def scenario() -> None:
        first, second = SqliteLog(path), SqliteLog(path)
        await first.open()
        await first.append(Channel.EVENTS, 0, [Entry("wf", b"before")])
        await second.open()
        with start(VISITOR, path) as process:
            assert line_of(process) == "1"
        await first.append(Channel.EVENTS, 0, [Entry("wf", b"after")])
        await second.append(Channel.EVENTS, 0, [Entry("wf", b"after")])
        with start(VISITOR, path) as process:
            assert line_of(process) == "3"
        await first.close()
        await second.close()

    asyncio.run(scenario())


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    """Given three processes that open a missing file and write, each one's records are all there, in its order."""
    path = tmp_path / "log.db"
    processes = [start(COUNTED_WRITER, path) for _ in range(3)]
    for process in processes:
        with process:
            assert process.wait(PATIENCE_S) == 0

    async def read() -> dict[str | None, list[bytes]]:
        log = SqliteLog(path)
        await log.open()
        by_writer: dict[str | None, list[bytes]] = {}
        for record in await records_of(log, Channel.COMMANDS):
            by_writer.setdefault(record.key, []).append(record.value)
        await log.close()
        return by_writer

    by_writer = asyncio.run(read())
    assert sum(map(len, by_writer.values())) == 3 * 400
    for values in by_writer.values():
        numbers = [int(value) for value in values if value != b"+"]
        assert numbers in (list(range(200)), sorted([*range(200)] * (len(numbers) // 200)))


def test_another_processs_records_reach_a_tail(tmp_path: Path) -> None:
    """Given a tail that waits, the records of a writer in another process arrive, in order, none twice."""
    path = tmp_path / "log.db"

    async def scenario() -> None:
        log = SqliteLog(path)
        await log.open()
        tail = log.tail(Channel.EVENTS, 0, 0)
        with start(WRITER, path) as process:
            try:
                values: list[bytes] = []
                async with asyncio.timeout(PATIENCE_S):
                    while len(values) < 200:
                        values += [record.value for record in await anext(tail)]
            finally:
                process.kill()
        assert values == [str(n).encode() for n in range(len(values))]
        await log.close()

    asyncio.run(scenario())


def test_a_failing_disk_is_told_and_survived(tmp_path: Path) -> None:
    """Given a file that may not grow, appends fail with an error of ours; when it may again, the log goes on whole."""
    code = """
    import resource

    async def main():
        log = SqliteLog(sys.argv[1])
        await log.open()
        await log.append(Channel.EVENTS, 0, [Entry("k", b"before")])
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        results = await asyncio.gather(
            log.append(Channel.EVENTS, 0, [Entry("k", b"x" * 500_000)]),
            log.append(Channel.EVENTS, 0, [Entry("k", b"behind")]),
            return_exceptions=True,
        )
        say(*(type(result).__name__ for result in results))
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        read = [r async for batch in log.read(Channel.EVENTS, 0, 0) for r in batch]
        offsets = await log.append(Channel.EVENTS, 0, [Entry("k", b"after")])
        say(len(read), *offsets)
        await log.close()

    asyncio.run(main())
    """
    path = tmp_path / "log.db"
    with start(code, path) as process:
        errors = line_of(process).split()
        assert set(errors) <= {"AppendUnknown", "LogUnavailable"}
        assert len(errors) == 2
        assert line_of(process) == "1 1"
        assert process.wait(PATIENCE_S) == 0
