"""Large payloads: kept in the blob store on every way that a value takes, read back, and missed loudly."""

import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource

from engine_trial import until, with_log
from kafka_backend import TEST_SETTINGS, KafkaBackend
from log_backend import PATIENCE_S, MemoryBackend, SqliteBackend
from refold import (
    CheckpointSettings,
    Engine,
    PayloadError,
    PayloadTooLarge,
    Status,
    Workflow,
    WorkflowConflict,
    WorkflowParked,
    continue_as_new,
    publish,
    receive,
    receive_sync,
    requests,
    run_child,
    run_child_sync,
    run_step,
    run_step_sync,
    send,
    step,
    stream,
    workflow,
)
from refold.log.blob_directory import DirectoryBlobs
from refold.log.blob_garbage import verify
from refold.log.blobs import blobs_of, reference_in
from refold.log.errors import BlobMissing, BlobsUnavailable
from refold.log.memory import MemoryLog
from refold.log.protocol import Channel, Entry, Log

THRESHOLD = 1_000
SMALL = "s" * 10
LARGE = "lärge " * 1_000


@dataclass
class Namespace:
    """A namespace with a directory of blobs.

    Args:
        log: Makes a log over it.
        directory: Where its blobs are.
    """

    log: Callable[[], Log]
    directory: Path

    def engine(
        self, *workflows: Workflow[..., Any], worker: bool = True, threshold: int = THRESHOLD
    ) -> Engine:
        """An engine that keeps payloads above a thousand bytes as blobs."""
        return Engine(
            self.log(),
            workflows=workflows,
            worker=worker,
            blob_threshold_bytes=threshold,
            drain_s=PATIENCE_S,
        )

    @property
    def blobs(self) -> list[Path]:
        """The files."""
        return [path for path in self.directory.glob("*/*") if len(path.name) == 64]

    def take_away(self) -> None:
        """Let all blobs be gone."""
        shutil.move(self.directory, self.directory.with_name("away"))

    def give_back(self) -> None:
        """Restore them."""
        if self.directory.is_dir():
            shutil.rmtree(self.directory)
        else:
            self.directory.unlink(missing_ok=True)
        shutil.move(self.directory.with_name("away"), self.directory)


def in_memory(path: Path) -> Namespace:
    store, directory = MemoryBackend().store, path / "blobs"
    return Namespace(
        lambda: MemoryLog(store=store, rebalance_s=0.01, blobs=DirectoryBlobs(directory)), directory
    )


def in_a_file(path: Path) -> Namespace:
    backend = SqliteBackend(path)
    return Namespace(backend.log, Path(f"{backend.path}.blobs"))


def on_kafka(path: Path, bootstrap: str) -> Namespace:
    place = (path / "shared").as_uri()
    backend = KafkaBackend(bootstrap, settings=replace(TEST_SETTINGS, blobs=place))
    return Namespace(backend.log, path / "shared" / backend.namespace)


@pytest.fixture(params=["memory", "sqlite"])
def namespace(request: pytest.FixtureRequest, tmp_path: Path) -> Namespace:
    """A fresh namespace, in memory and in a file in turn."""
    return in_memory(tmp_path) if request.param == "memory" else in_a_file(tmp_path)


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_namespace(request: pytest.FixtureRequest, tmp_path: Path) -> Namespace:
    """A fresh namespace on each log in turn."""
    if request.param == "kafka":
        return on_kafka(tmp_path, request.getfixturevalue("kafka_bootstrap"))
    return in_memory(tmp_path) if request.param == "memory" else in_a_file(tmp_path)


class Refusal(Exception):
    """An error whose argument is large."""


@step
def enlarge(text: str) -> str:
    return f"{LARGE}{text}"


@step
async def enlarge_async(text: str) -> str:
    stream("log").write(f"{LARGE}1")
    return f"{LARGE}{text}"


@step
def refuse(text: str) -> str:
    raise Refusal(text)


@workflow
async def doubles(text: str) -> str:
    return text + text


@workflow
async def gives_up(text: str) -> str:
    raise Refusal(text)


@workflow
async def everything(text: str) -> list[str]:
    """Each way that a value takes, one after the other."""
    found = [text, await run_step(enlarge, "a"), await run_step(enlarge_async, "b")]
    try:
        await run_step(refuse, LARGE)
    except Refusal as error:
        found.append(f"step {error.args[0]}")
    publish("value", found[1])
    stream("log").write(f"{LARGE}2")
    found.append(await receive("in", str))
    found.append(await run_child(doubles, found[-1]))
    try:
        await run_child(gives_up, LARGE)
    except Refusal as error:
        found.append(f"child {error.args[0]}")
    async for request in requests("asked", str):
        request.reply(f"{request.value}!")
        found.append(request.value)
        break
    await send(found[-1][:8], "in", LARGE)
    return found


@workflow
def everything_sync(text: str) -> list[str]:
    """The same for a `def` workflow, in short."""
    found = [text, run_step_sync(enlarge, "a")]
    try:
        run_step_sync(refuse, LARGE)
    except Refusal as error:
        found.append(f"step {error.args[0]}")
    publish("value", found[1])
    found.append(receive_sync("in", str))
    found.append(run_child_sync(doubles, found[-1]))
    for request in requests("asked", str):
        request.reply(f"{request.value}!")
        found.append(request.value)
        break
    return found


@workflow
async def waits_for_one() -> str:
    return await receive("in", str)


@workflow
async def counts(number: int, text: str) -> str:
    if number > 0:
        continue_as_new(number - 1, f"{text}{number}")
    return f"{text} {len(await run_step(enlarge, text))}"


@workflow
async def two_steps(text: str) -> int:
    first = await run_step(enlarge, text)
    return len(await run_step(enlarge, first)) + int(await receive("in", str))


def payloads(engine: Engine, run: str) -> list[str]:
    """The payloads of a run's events."""
    found = [getattr(event, "payload", None) for event in engine.history(run)]
    return [payload for payload in found if payload is not None]


def assert_all_whole(namespace: Namespace) -> None:
    """Every blob that the log names is there."""

    async def check(log: Log) -> int:
        store = blobs_of(log)
        assert store is not None
        found = await verify(log, store)
        assert found.damages == []
        return found.named

    assert with_log(Logged(namespace), check) > 0


class Logged:
    """A namespace as what makes logs."""

    name = "large"

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def log(self, *, queue_entries: int | None = None) -> Log:
        """A log over it."""
        return self._namespace.log()


ALL = (everything, everything_sync, doubles, gives_up, waits_for_one, counts, two_steps)


class TestEveryWay:
    def test_a_value_comes_back_from_each(self, any_namespace: Namespace) -> None:
        """Given large values on every way into and out of a run, all come back, no record holds one, and so again
        from another process's engine after a restart."""
        with any_namespace.engine(*ALL) as engine:
            other = engine.start(waits_for_one, id="question")
            handle = engine.start(everything, LARGE, id="run")
            assert handle.value("value", str) == f"{LARGE}a"
            handle.send("in", f"{LARGE}sent")
            assert handle.ask("asked", f"question{LARGE}", str) == f"question{LARGE}!"
            found = handle.result()
            assert found == [
                LARGE,
                f"{LARGE}a",
                f"{LARGE}b",
                f"step {LARGE}",
                f"{LARGE}sent",
                f"{LARGE}sent" * 2,
                f"child {LARGE}",
                f"question{LARGE}",
            ]
            assert other.result() == LARGE
            assert list(handle.stream("log", str)) == [f"{LARGE}1", f"{LARGE}2"]
            kept = payloads(engine, "run")
            assert max(map(len, kept)) < THRESHOLD
            assert sum(reference_in(payload) is not None for payload in kept) >= 14
        assert_all_whole(any_namespace)
        with any_namespace.engine(*ALL) as engine:
            assert engine.handle("run", everything).result() == found
            assert engine.handle("run").value("value", str) == f"{LARGE}a"
            assert list(engine.handle("run").stream("log", str, start=1)) == [f"{LARGE}2"]

    def test_a_blob_is_there_before_the_record_that_names_it(self, namespace: Namespace) -> None:
        """Given a log that looks at each record before it is appended, every blob that one names is in the store."""
        named: list[bool] = []
        log = cast(Log, _Watched(namespace.log(), named))
        with Engine(log, workflows=ALL, blob_threshold_bytes=THRESHOLD) as engine:
            engine.start(waits_for_one, id="question")
            handle = engine.start(everything, LARGE, id="run")
            handle.send("in", f"{LARGE}sent")
            handle.ask("asked", f"question{LARGE}", str)
            handle.result()
        assert len(named) > 20
        assert all(named)

    def test_a_def_workflow_gets_them_too(self, namespace: Namespace) -> None:
        """Given a `def` workflow that is replayed in the midst of it, its large values come back."""
        with namespace.engine(*ALL) as engine:
            handle = engine.start(everything_sync, LARGE, id="run")
            handle.value("value", str)
        with namespace.engine(*ALL) as engine:
            handle = engine.handle("run", everything_sync)
            handle.send("in", f"{LARGE}sent")
            handle.ask("asked", LARGE, str)
            assert handle.result() == [
                LARGE,
                f"{LARGE}a",
                f"step {LARGE}",
                f"{LARGE}sent",
                f"{LARGE}sent" * 2,
                LARGE,
            ]

    def test_an_async_workflow_is_replayed_with_them(self, any_namespace: Namespace) -> None:
        """Given a run that waits, and an engine that knows nothing of it, it goes on with what it had."""
        with any_namespace.engine(*ALL) as engine:
            engine.start(two_steps, LARGE, id="run")
            until(lambda: engine.status("run").events == 3)
        with any_namespace.engine(*ALL) as engine:
            handle = engine.handle("run", two_steps)
            handle.send("in", "5")
            assert handle.result() == 3 * len(LARGE) + 5
            assert engine.status("run").events == 5

    def test_continuing_as_new_takes_a_large_input_on(self, namespace: Namespace) -> None:
        """Given a run that begins anew with a large input, it ends with it."""
        with namespace.engine(*ALL) as engine:
            text = f"{LARGE}21"
            assert engine.start(counts, 2, LARGE).result() == f"{text} {len(LARGE + text)}"

    def test_forks_and_rewound_runs_have_them(self, namespace: Namespace) -> None:
        """Given a run that has ended, its fork, and itself rewound, have the large values from before."""
        with namespace.engine(*ALL) as engine:
            handle = engine.start(two_steps, LARGE, id="run")
            handle.send("in", "5")
            handle.result()
            assert handle.fork(step=1, id="fork").result() == 3 * len(LARGE) + 5
            handle.rewind(1)
            assert handle.result() == 3 * len(LARGE) + 5
        assert_all_whole(namespace)

    def test_a_message_may_come_with_the_start(self, namespace: Namespace) -> None:
        """Given a start with a large message, the run receives it."""
        with namespace.engine(*ALL) as engine:
            assert engine.start(waits_for_one, message=("in", LARGE)).result() == LARGE


@step
async def larger_than_a_record() -> str:
    return "x" * LARGER


@workflow
async def passes_it_on() -> str:
    return await larger_than_a_record()


LARGER = 3_000_000


class TestLimits:
    def test_what_no_record_could_hold_is_taken(self, namespace: Namespace) -> None:
        """Given a result that is larger than any record of the log, it is kept and comes back."""
        with namespace.engine(passes_it_on) as engine:
            assert namespace.log().max_record_bytes < LARGER
            assert len(engine.start(passes_it_on, id="r").result(PATIENCE_S)) == LARGER

    @pytest.mark.parametrize(("clients", "workers"), [(THRESHOLD, 500_000), (500_000, THRESHOLD)])
    def test_the_same_input_is_the_same_start_whatever_the_thresholds(
        self, namespace: Namespace, clients: int, workers: int
    ) -> None:
        """Given clients and workers with other thresholds, the same start gets the run, another a conflict."""
        with (
            namespace.engine(*ALL, threshold=workers) as engine,
            namespace.engine(*ALL, worker=False, threshold=clients) as client,
        ):
            engine.start(doubles, LARGE, id="run").result()
            assert client.start(doubles, LARGE, id="run").result() == LARGE * 2
            with pytest.raises(WorkflowConflict):
                client.start(doubles, f"{LARGE}!", id="run")
            client.start(waits_for_one, id="open")
            client.start(doubles, LARGE, id="other").result()
            assert engine.start(doubles, LARGE, id="other").result() == LARGE * 2

    def test_the_same_payload_is_kept_once(self, namespace: Namespace) -> None:
        """Given ten runs with one large input, there are two blobs: the input, and the result of all."""
        with namespace.engine(*ALL) as engine:
            for number in range(10):
                engine.start(doubles, LARGE, id=f"run-{number}").result()
            assert len(namespace.blobs) == 2

    def test_small_ones_never_meet_the_store(self, namespace: Namespace) -> None:
        """Given small payloads, there is no directory of blobs at all."""
        with namespace.engine(*ALL) as engine:
            assert engine.start(doubles, SMALL).result() == SMALL * 2
        assert not namespace.directory.exists()

    def test_there_is_a_limit_still(self, namespace: Namespace) -> None:
        """Given more than the engine's limit, an input, and a result in the worker, are refused with the limit."""
        log = namespace.log()
        with Engine(log, workflows=ALL, max_payload_bytes=10_000) as engine:
            with pytest.raises(PayloadTooLarge, match="10,000"):
                engine.start(doubles, LARGE * 2)
            with pytest.raises(PayloadTooLarge, match="10,000"):
                engine.start(doubles, LARGE).result()


class TestMissing:
    @pytest.mark.parametrize("of", ["input", "result", "message"])
    def test_a_missing_blob_parks_the_run_and_resuming_goes_on(
        self, namespace: Namespace, of: str
    ) -> None:
        """Given blobs that are gone when a run is replayed, it is parked with what is missing; restored and resumed,
        it ends as if nothing had been."""
        text = {"input": LARGE, "result": SMALL, "message": SMALL}[of]
        body: Any = {"input": doubles_later, "result": two_steps, "message": waits_for_two}[of]
        with namespace.engine(*ALL, doubles_later, waits_for_two) as engine:
            handle = engine.start(body, text, id="run")
            if of == "message":
                handle.send("in", LARGE)
            events = {"input": 1, "result": 3, "message": 2}[of]
            until(lambda: engine.status("run").events == events)
        namespace.take_away()
        with namespace.engine(*ALL, doubles_later, waits_for_two) as engine:
            until(lambda: engine.status("run").status is Status.PARKED)
            with pytest.raises(WorkflowParked, match="backup") as told:
                engine.handle("run").result()
            assert namespace.directory.as_uri() in str(told.value)
            namespace.give_back()
            handle = engine.handle("run", body)
            handle.resume()
            handle.send("in", "7")
            expected = {
                "input": LARGE * 2,
                "result": 2 * len(LARGE) + len(SMALL) + 7,
                "message": f"{LARGE}7",
            }
            assert handle.result() == expected[of]
            assert engine.status("run").status is Status.COMPLETED

    def test_a_damaged_blob_parks_a_def_workflow(self, namespace: Namespace) -> None:
        """Given a `def` workflow whose message was changed on the disk, it is parked, and goes on when it is mended."""
        with namespace.engine(takes_two) as engine:
            handle = engine.start(takes_two, id="run")
            handle.send("in", LARGE)
        (blob,) = namespace.blobs
        whole = blob.read_bytes()
        blob.write_bytes(whole.replace(b"e", b"f"))
        with namespace.engine(takes_two) as engine:
            with pytest.raises(WorkflowParked, match="SHA-256"):
                engine.handle("run").result()
            blob.write_bytes(whole)
            handle = engine.handle("run", takes_two)
            handle.resume()
            handle.send("in", "!")
            assert handle.result() == f"{LARGE}!"

    def test_a_client_without_the_blob_is_told(self, namespace: Namespace) -> None:
        """Given a result whose blob is gone, a client gets an error that names run, digest and store."""
        with namespace.engine(*ALL) as engine:
            engine.start(doubles, LARGE, id="run").result()
        namespace.take_away()
        with (
            namespace.engine(*ALL, worker=False) as client,
            pytest.raises(BlobMissing) as told,
        ):
            client.handle("run").result()
        assert isinstance(told.value, PayloadError)
        for part in ("workflow 'run'", namespace.directory.as_uri()):
            assert part in str(told.value)

    def test_a_start_whose_input_is_elsewhere_is_parked(self, namespace: Namespace) -> None:
        """Given a client with a store of its own, the run that it starts is not refused: it waits for the blob."""
        elsewhere = namespace.directory.with_name("elsewhere")
        with (
            namespace.engine(*ALL) as engine,
            Engine(
                kept_elsewhere(namespace.log(), elsewhere),
                workflows=ALL,
                worker=False,
                blob_threshold_bytes=THRESHOLD,
            ) as client,
        ):
            client.start(doubles, LARGE, id="run")
            with pytest.raises(WorkflowParked, match="not in"):
                engine.handle("run").result()
            shutil.copytree(elsewhere, namespace.directory)
            engine.resume("run")
            assert engine.handle("run").result() == LARGE * 2

    def test_a_store_that_is_away_is_waited_for(self, tmp_path: Path) -> None:
        """Given a store that can't be written, a large result waits for it and is recorded when it is back."""
        namespace = in_a_file(tmp_path)
        namespace.directory.write_text("no directory")
        with namespace.engine(*ALL) as engine:
            handle = engine.start(counts, 0, SMALL, id="run")
            small = engine.start(doubles, SMALL, confirm=False)
            with pytest.raises(BlobsUnavailable):
                engine.start(doubles, LARGE)
            namespace.directory.unlink()
            assert handle.result() == f"{SMALL} {len(LARGE + SMALL)}"
            assert small.result() == SMALL * 2
            assert len([p for p in payloads(engine, "run") if reference_in(p)]) == 1

    def test_a_store_that_can_not_be_read_stops_nothing_for_good(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Given a store that is away while a run is replayed, the run is not parked, and goes on when it is back."""
        namespace = in_a_file(tmp_path)
        with namespace.engine(*ALL) as engine:
            engine.start(two_steps, SMALL, id="run")
            until(lambda: engine.status("run").events == 3)
        namespace.take_away()
        namespace.directory.write_text("no directory")
        with namespace.engine(*ALL) as engine:
            until(lambda: caplog.text.count("beginning again from the log") >= 2)
            assert engine.status("run").status is Status.RUNNING
            namespace.give_back()
            handle = engine.handle("run", two_steps)
            handle.send("in", "1")
            assert handle.result() == 2 * len(LARGE) + len(SMALL) + 1


@workflow
async def doubles_later(text: str) -> str:
    await receive("in", str)
    return text + text


@workflow
async def waits_for_two(text: str) -> str:
    return await receive("in", str) + await receive("in", str)


@workflow
def takes_two() -> str:
    return str(receive_sync("in", str)) + str(receive_sync("in", str))


def kept_elsewhere(log: Log, directory: Path) -> Log:
    """A log whose blobs are in another place than its own."""
    return cast(Log, _KeptElsewhere(log, directory))


class _KeptElsewhere:
    def __init__(self, log: Log, directory: Path) -> None:
        self._log = log
        self.blobs = DirectoryBlobs(directory)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class _Watched:
    """A log that notes for each reference that is appended whether its blob is there."""

    def __init__(self, log: Log, named: list[bool]) -> None:
        self._log = log
        self._named = named
        store = blobs_of(log)
        assert store is not None
        self.blobs = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(
        self, channel: Channel, partition: int, entries: Sequence[Entry], *, lazily: bool = False
    ) -> Sequence[int]:
        for entry in entries:
            for digest in re.findall(rb"blob:sha256:([0-9a-f]{64}):", entry.value):
                self._named.append(self.blobs.get(digest.decode()) is not None)
        return await self._log.append(channel, partition, entries, lazily=lazily)


@step
def as_long_as(text: str) -> str:
    return text[::-1]


@workflow
async def passes_on(text: str) -> str:
    return await run_step(as_long_as, text) + await receive("in", str)


def test_what_a_record_can_not_hold_goes_to_the_store(tmp_path: Path) -> None:
    """Given a log that takes less than the threshold, what is between the two goes to the store, checkpoints fit."""
    store, directory = MemoryBackend().store, tmp_path / "blobs"
    log = MemoryLog(store=store, max_record_bytes=20_000, blobs=DirectoryBlobs(directory))
    often = CheckpointSettings(min_bytes=1_000)
    text, note = "x" * 15_000, "y" * 9_000
    with Engine(log, workflows=[passes_on, waits_for_one], checkpoints=often) as engine:
        for number in range(200):  # open runs, for a checkpoint longer than a record
            engine.start(waits_for_one, id=f"{number}-{'long' * 50}")
        run = engine.start(passes_on, text, message=("in", note))
        assert run.result(PATIENCE_S) == text[::-1] + note
    fits = [
        len(record.value) <= 20_000
        for partition in range(store.partitions)
        for channel in (Channel.EVENTS, Channel.COMMANDS)
        for record in store.read(channel, partition, 0)
    ]
    assert all(fits)
    assert len(list(directory.glob("*/*"))) >= 2


@pytest.mark.kafka
def test_a_limit_that_is_lowered_under_open_logs_is_followed(
    tmp_path: Path, kafka_bootstrap: str
) -> None:
    """Given topics whose limit falls below the threshold, a payload that did fit goes to the store from then on."""
    place = (tmp_path / "shared").as_uri()
    backend = KafkaBackend(kafka_bootstrap, settings=replace(TEST_SETTINGS, blobs=place))
    text = random.Random(7).randbytes(30_000).hex()  # so that no compression makes it small
    worker = Engine(backend.log(), workflows=[passes_on], start_timeout_s=PATIENCE_S)
    client = Engine(backend.log(), worker=False, start_timeout_s=PATIENCE_S)
    with worker, client:
        runs = [client.start(passes_on, text)]
        lower_limit(backend, kafka_bootstrap)
        runs.append(client.start(passes_on, text))
        for run in runs:
            run.send("in", "!")
            assert run.result(PATIENCE_S) == text[::-1] + "!"


def lower_limit(backend: KafkaBackend, bootstrap: str) -> None:
    """Have the topics of commands and events take no more than 40,000 bytes, and wait until the broker says so."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
    topics = [f"{backend.namespace}.{channel}" for channel in (Channel.COMMANDS, Channel.EVENTS)]
    limit = {"max.message.bytes": "40000"}
    try:
        admin.alter_configs([ConfigResource("TOPIC", topic, limit) for topic in topics])

        def is_known() -> bool:
            told = admin.describe_configs([ConfigResource("TOPIC", topic) for topic in topics])
            return all(
                told["topic"][topic]["max.message.bytes"]["value"] == "40000" for topic in topics
            )

        until(is_known)
    finally:
        admin.close()
