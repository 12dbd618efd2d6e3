"""What a fault run was made of, in numbers: operations, faults, throughput, and how long partitions stood idle."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chaos_case import Case
from chaos_client_rules import values_that_went_back
from chaos_history import Fault, Operation
from chaos_log_rules import late_attempts

SECOND_US: Final = 1_000_000

CAUSES: Final = {
    "worker.kill": "killed",
    "worker.pause": "stopped for a moment",
    "worker.pause_past_session": "stopped past its session",
    "worker.freeze": "stopped as an append was acknowledged",
    "worker.drain": "drained",
    "worker.add": "drained",
}
REBALANCED: Final = "its partitions moved"


@dataclass(frozen=True, slots=True)
class Gap:
    """How long a partition had no owner that wrote, when it came to another.

    Args:
        partition: Which.
        began_us: When its last owner was broken, or had last written where it was not.
        ended_us: When the next claim was accepted.
        cause: What had become of the last owner.
        owner: The next owner.
    """

    partition: int
    began_us: int
    ended_us: int
    cause: str
    owner: str

    @property
    def length_s(self) -> float:
        """In seconds."""
        return (self.ended_us - self.began_us) / SECOND_US


@dataclass(frozen=True, slots=True)
class Second:
    """A second of the run.

    Args:
        at_s: Which, from the run's first operation on.
        outcomes: Operations that came to their end in it, by outcome.
        latencies_ms: How long those took that came to an answer, but for waits for results.
        events: Records that the log took.
    """

    at_s: int
    outcomes: Mapping[str, int]
    latencies_ms: Sequence[float]
    events: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers of a run.

    Args:
        origin_us: When its first operation began.
        length_s: From then to the end of the last.
        wall_s: How long everything took, in seconds.
        operations: How many, by kind and outcome.
        faults: How many, by kind.
        seconds: The run, second by second.
        gaps: Hand-overs.
        counts: Other numbers, by what they count.
    """

    origin_us: int
    length_s: float
    wall_s: float
    operations: Mapping[str, Mapping[str, int]]
    faults: Mapping[str, int]
    seconds: Sequence[Second]
    gaps: Sequence[Gap]
    counts: Mapping[str, int]

    @property
    def operations_in_all(self) -> int:
        """How many."""
        return sum(sum(outcomes.values()) for outcomes in self.operations.values())

    def gaps_by_cause(self) -> dict[str, list[float]]:
        """Lengths in seconds, sorted."""
        found: dict[str, list[float]] = defaultdict(list)
        for gap in self.gaps:
            found[gap.cause].append(gap.length_s)
        return {cause: sorted(lengths) for cause, lengths in sorted(found.items())}


def figures_of(case: Case, wall_s: float) -> Figures:
    """Count."""
    operations = case.recorded.operations
    origin_us = min((operation.began_us for operation in operations), default=0)
    last_us = max((operation.ended_us or 0 for operation in operations), default=origin_us)
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for operation in operations:
        by_kind[operation.kind][operation.outcome] += 1
    late = list(late_attempts(case))
    begun = [(line.workflow_id, line.step, line.attempt) for line in case.begun]
    return Figures(
        origin_us,
        (last_us - origin_us) / SECOND_US,
        wall_s,
        {kind: dict(outcomes) for kind, outcomes in sorted(by_kind.items())},
        dict(sorted(Counter(fault.kind for fault in case.recorded.faults).items())),
        _seconds(case, origin_us, last_us),
        gaps(case),
        {
            "runs in the log": len(case.audited.streams),
            "records of events": sum(map(len, case.events)),
            "records that do not count (written under an old claim)": case.audited.stale,
            "accepted claims": len(case.audited.claims),
            "lives of workers": len(case.recorded.lives)
            - sum(not life.name.startswith("worker") for life in case.recorded.lives),
            "attempts of steps": len(begun),
            "attempts that were begun again after a loss": len(begun) - len(set(begun)),
            "attempts begun by a worker just woken, as the design allows": sum(
                one.excused for one in late
            ),
            "reads of a value that gave an older one than before": len(values_that_went_back(case)),
        },
    )


def _seconds(case: Case, origin_us: int, last_us: int) -> list[Second]:
    outcomes: dict[int, Counter[str]] = defaultdict(Counter)
    latencies: dict[int, list[float]] = defaultdict(list)
    events: Counter[int] = Counter()
    for operation in case.recorded.operations:
        at_s = ((operation.ended_us or operation.began_us) - origin_us) // SECOND_US
        outcomes[at_s][operation.outcome] += 1
        if operation.outcome == "ok" and operation.kind != "result":
            latencies[at_s].append(_latency_ms(operation))
    for records in case.events:
        events.update((record.timestamp - origin_us) // SECOND_US for record in records)
    return [
        Second(at_s, dict(outcomes[at_s]), sorted(latencies[at_s]), events[at_s])
        for at_s in range((last_us - origin_us) // SECOND_US + 1)
    ]


def _latency_ms(operation: Operation) -> float:
    return ((operation.ended_us or operation.began_us) - operation.began_us) / 1_000


def gaps(case: Case) -> list[Gap]:
    """Every hand-over from one life to another: from the fault, or the last owner's last record, to the new claim."""
    last_us: dict[int, dict[str, int]] = defaultdict(dict)  # of each partition, by worker
    for stream in case.audited.streams.values():
        for event in stream:
            place = case.audited.places[event.workflow_id or "", event.position or 0]
            seen = last_us[place.partition]
            seen[event.worker] = max(place.timestamp, seen.get(event.worker, 0))
    found: list[Gap] = []
    owner: dict[int, str] = {}
    for place, claim in zip(case.audited.claimed, case.audited.claims, strict=True):
        before = owner.get(place.partition)
        owner[place.partition] = claim.worker
        if before is None or before == claim.worker:
            continue
        wrote_us = last_us[place.partition].get(before)
        fault = _fate(case, before, place.timestamp)
        if fault is not None:
            began_us, cause = fault.began_us, CAUSES[fault.kind]
        elif wrote_us is not None and wrote_us < place.timestamp:
            began_us, cause = wrote_us, REBALANCED
        else:
            continue
        if cause == "drained" and wrote_us is not None:
            began_us = max(began_us, wrote_us)  # it goes on writing until it has handed over
        found.append(Gap(place.partition, began_us, place.timestamp, cause, claim.worker))
    return found


def _fate(case: Case, worker: str, claimed_us: int) -> Fault | None:
    """What befell a worker last, before another took over from it, if that is why."""
    for fault in reversed(case.recorded.faults):
        if fault.target != worker or fault.kind not in CAUSES:
            continue
        left_us = fault.ended_us if fault.kind == "worker.add" else fault.began_us
        if left_us is not None and left_us <= claimed_us:
            return fault
    return None


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of sorted values; 0 of none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def median(values: Sequence[float]) -> float:
    """The median; 0 of none."""
    return statistics.median(values) if values else 0.0
