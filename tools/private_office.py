"""A namespace whose payloads are encrypted, with its keys and all that is kept of it in one place, for tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine_trial import records, with_log
from log_backend import PATIENCE_S, LogBackend, MemoryBackend
from refold import (
    AskRefused,
    Engine,
    Workflow,
    publish,
    receive,
    requests,
    run_child,
    step,
    stream,
    workflow,
)
from refold.engine.checkpoints import CheckpointSettings
from refold.log.chain_walk import ChainWalk
from refold.log.errors import KeysUnavailable
from refold.log.key_directory import DirectoryKeys
from refold.log.key_master import LocalMaster
from refold.log.keys import Erasure, KeyRing
from refold.log.protocol import Channel, Log

PLAIN = "bob-4711@example.com"
LARGE = PLAIN + "x" * 2_000
MASTER = bytes(range(32))


class Flaky:
    """A key store that can be away."""

    def __init__(self, keys: DirectoryKeys) -> None:
        self._keys = keys
        self.away = False
        self.asked = 0
        self.url = keys.url

    def _here(self) -> DirectoryKeys:
        self.asked += 1
        if self.away:
            raise KeysUnavailable("the key store is away")
        return self._keys

    def ring_for(self, name: str) -> KeyRing:
        """See `KeyProvider`."""
        return self._here().ring_for(name)

    def rings_of(self, name: str) -> Sequence[KeyRing | Erasure]:
        """See `KeyProvider`."""
        return self._here().rings_of(name)

    def ring(self, ring_id: str) -> KeyRing | Erasure | None:
        """See `KeyProvider`."""
        return self._here().ring(ring_id)

    def erase(self, name: str, at: int, by: str | None, why: str) -> Sequence[str]:
        """See `KeyProvider`."""
        return self._here().erase(name, at, by, why)


@dataclass
class Office:
    """A namespace, its keys, and all that is kept of it.

    Args:
        backend: The namespace.
        place: A directory with the keys and, of a file, the log.
    """

    backend: LogBackend
    place: Path

    def keys(self, master: bytes = MASTER) -> DirectoryKeys:
        """The namespace's keys, as another process has them."""
        return DirectoryKeys(self.place / "keys", LocalMaster([master]))

    def engine(
        self,
        *workflows: Workflow[..., Any],
        keys: Any = "own",
        worker: bool = True,
        threshold: int = 1_000,
        checkpoints: CheckpointSettings | None = None,
        pools: Sequence[str] = (),
    ) -> Engine:
        """An engine with the namespace's keys, or others, or none."""
        return Engine(
            self.backend.log(),
            workflows=workflows,
            worker=worker,
            keys=self.keys() if keys == "own" else keys,
            blob_threshold_bytes=threshold,
            checkpoints=checkpoints,
            pools=pools,
            drain_s=PATIENCE_S,
        )

    def holds(self, text: str = PLAIN) -> bool:
        """Whether a text stands anywhere: in a record of any channel, or in any file."""
        wanted = text.encode()
        values = [r.value for channel in Channel for r in records(self.backend, channel)]
        files = [path.read_bytes() for path in self.place.rglob("*") if path.is_file()]
        if isinstance(self.backend, MemoryBackend):
            values += [
                self.backend.store.blobs.get(b.digest) or b""
                for b in self.backend.store.blobs.stored()
            ]
        return any(wanted in data for data in (*values, *files))

    def chains_hold(self) -> bool:
        """Walk every partition from its first event to its last."""

        async def walk(log: Log) -> bool:
            for partition in range(log.partitions):
                chain = ChainWalk(partition)
                async for batch in log.read(Channel.EVENTS, partition, 0):
                    for record in batch:
                        chain.take(record)
            return True

        return with_log(self.backend, walk)


@step
async def look_up(email: str) -> dict[str, object]:
    """Return something that holds its argument."""
    return {"email": email, "orders": 3}


@step
async def fail_with(email: str) -> None:
    """Fail, and say for whom."""
    raise LookupError(f"nobody has {email}")


@workflow
async def greet(email: str) -> str:
    """Return something that holds its argument as well."""
    return f"dear {email}"


def polite(question: str) -> None:
    """Refuse what is not polite, in words that quote it."""
    if not question.startswith("please"):
        raise ValueError(f"{question} is not polite")


@workflow
async def everything(email: str, large: str) -> str:
    """Have its input go every way that a value can go."""
    found = await look_up(email)
    try:
        await fail_with(email)
    except LookupError as error:
        publish("problem", str(error))
    stream("mails").write(email)
    async for question in requests("may I", str, validate=polite):
        question.reply(f"{question.value}: {email}")
        break
    said = await receive("news", str)
    greeted = await run_child(greet, email)
    kept = await look_up(large)
    return f"{found['email']} {said} {greeted} {kept['email']}"


def run_everything(
    engine: Engine, email: str = PLAIN, id_: str = "run-1", subject: str | None = "bob"
) -> str:
    """Start it for somebody, answer what it waits for, and give its result."""
    large = email + LARGE[len(PLAIN) :]
    run = engine.start(everything, email, large, id=id_, subject=subject)
    assert run.value("problem") == f"nobody has {email}"
    with pytest.raises(AskRefused, match=f"{email} is not polite"):
        run.ask("may I", email)
    assert run.ask("may I", f"please {email}") == f"please {email}: {email}"
    run.send("news", email)
    result = run.result(PATIENCE_S)
    assert list(run.stream("mails", str)) == [email]
    return result
