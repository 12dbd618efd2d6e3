"""What clients did and what was done to the system: append-only JSON Lines, one file for each process that writes.

The form is Jepsen's (https://jepsen.io): an operation is written down when it is asked for (`invoke`) and again when it
is known what came of it: `ok` it happened, `fail` it did not and never will, `info` nobody knows. An operation whose
process died is `info` as well. Faults have a beginning and an end, processes of workers a life. Times are the wall
clock's, microseconds since 1970-01-01 UTC: everything runs on one machine, so there is one clock.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeVar, cast

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Outcome = Literal["ok", "fail", "info"]
T = TypeVar("T")

HISTORY: Final = "history"
"""Directory of the files, inside a run's."""


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that a client asked for.

    Args:
        process: The client's process, and its life: `client-2.1`.
        session: Which of its sessions; a session does one thing after the other.
        number: Counts the process's operations.
        kind: `start`, `send`, `ask`, `value`, `cancel` or `result`.
        workflow_id: Of which run.
        asked: What was asked for.
        began_us: When.
        outcome: What is known to have come of it.
        ended_us: When that was known; None for never.
        answer: What came back.
        error: The error's type and message.
    """

    process: str
    session: int
    number: int
    kind: str
    workflow_id: str
    asked: Mapping[str, Json]
    began_us: int
    outcome: Outcome = "info"
    ended_us: int | None = None
    answer: Json = None
    error: str | None = None

    def __str__(self) -> str:
        took = (
            ""
            if self.ended_us is None
            else f" after {(self.ended_us - self.began_us) / 1e3:.1f} ms"
        )
        came = self.error if self.error is not None else json.dumps(self.answer)
        return (
            f"{self.process}/{self.session} #{self.number} {self.kind} {self.workflow_id}"
            f" {json.dumps(dict(self.asked))} at {self.began_us}: {self.outcome}{took} {came}"
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that the nemesis did.

    Args:
        number: Counts them.
        kind: What, as `worker.kill`.
        target: To whom: `worker-1.3`, `broker-2`, `client-1 - broker-3`.
        began_us: When.
        ended_us: When it was healed; None where it never was.
        pid: The process, where it is one.
        detail: How, for a person.
    """

    number: int
    kind: str
    target: str
    began_us: int
    ended_us: int | None = None
    pid: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        length = (
            "" if self.ended_us is None else f" for {(self.ended_us - self.began_us) / 1e6:.2f} s"
        )
        return f"#{self.number} {self.kind} of {self.target} at {self.began_us}{length} {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class Life:
    """A worker's process.

    Args:
        name: Its name in events: no two lives share one.
        pid: Its process.
        began_us: When it was started.
        ended_us: When its end was seen; None while it lives.
        exit_code: As `subprocess` gives it.
    """

    name: str
    pid: int
    began_us: int
    ended_us: int | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """All that was written down in a run's directory."""

    operations: tuple[Operation, ...] = ()
    faults: tuple[Fault, ...] = ()
    lives: tuple[Life, ...] = ()


class Scribe:
    """Appends to a file of the history, so that whatever it returned from is there when its process is killed.

    Args:
        directory: The run's directory.
        process: Whose file.
    """

    def __init__(self, directory: Path, process: str) -> None:
        self.process = process
        (directory / HISTORY).mkdir(parents=True, exist_ok=True)
        path = directory / HISTORY / f"{process}.jsonl"
        self._file: TextIOWrapper = path.open("a", encoding="utf-8")
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self._file.close()

    def invoked(
        self, session: int, kind: str, workflow_id: str, asked: Mapping[str, Json]
    ) -> Operation:
        """Write down what is about to be asked for."""
        self._count += 1
        operation = Operation(
            self.process, session, self._count, kind, workflow_id, asked, now_us()
        )
        self.write("invoke", operation)
        return operation

    def write(self, what: str, value: Operation | Fault | Life) -> None:
        """Write a line: an operation, a fault or a life, as it is known now. The last one counts."""
        line = {"is": type(value).__name__, "what": what, **asdict(value)}
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()


def load(directory: Path) -> Recorded:
    """Read what was written down in a run's directory; a last line that was cut short counts for nothing."""
    operations: dict[tuple[str, int], Operation] = {}
    faults: dict[int, Fault] = {}
    lives: dict[str, Life] = {}
    for path in sorted((directory / HISTORY).glob("*.jsonl")):
        for line in _whole_lines(path):
            match line["is"]:
                case "Operation":
                    operation = _made(Operation, line)
                    operations[operation.process, operation.number] = operation
                case "Fault":
                    fault = _made(Fault, line)
                    faults[fault.number] = fault
                case _:
                    life = _made(Life, line)
                    lives[life.name] = life
    return Recorded(
        tuple(sorted(operations.values(), key=lambda operation: operation.began_us)),
        tuple(faults[number] for number in sorted(faults)),
        tuple(lives.values()),
    )


def _whole_lines(path: Path) -> Iterable[dict[str, Json]]:
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [cast("dict[str, Json]", json.loads(line)) for line in whole.splitlines()]


def _made(kind: type[T], line: Mapping[str, Json]) -> T:
    """A dataclass of this project's own making, read back from what `Scribe.write` wrote of it."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return kind(**{name: value for name, value in line.items() if name in names})
