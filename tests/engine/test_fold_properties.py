"""The fold, over any prefix, any zombie's records in between, and any repetition of deliveries to the owner."""

from hypothesis import given, settings
from hypothesis import strategies as st

from refold import step, workflow
from refold.engine.definitions import Catalogue
from refold.engine.effects import Launch, Succeeded
from refold.engine.fold import PartitionState, Status, digest, evolve
from refold.engine.owner import Owner, OwnerSettings
from refold.engine.runs import CodeRuns
from refold.engine.thread_slots import ThreadSlots
from refold.log.codec import decode_event, encode_event
from refold.log.commands import StartWorkflow
from refold.log.events import Event, PartitionClaimed, StepCompleted, Unreadable
from refold.log.protocol import Entry, Record

NOW = 1_700_000_000_000_000
PARTITION = 0


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def total(numbers: list[int]) -> int:
    result = 0
    for number in numbers:
        result = await add(result, number)
    return result


starts = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.lists(st.integers(0, 9), max_size=3)),
    min_size=1,
    max_size=6,
)


def claimed() -> tuple[PartitionState, list[Record]]:
    """A partition that has just been claimed, and its log."""
    claim = PartitionClaimed(
        workflow_id=None,
        position=None,
        recorded_at=NOW,
        claim=-1,
        command=-1,
        worker="w",
        partition=PARTITION,
    )
    state = PartitionState()
    entry, _ = encode_event(claim, state.chain)
    record = Record(0, NOW, *entry)
    return evolve(state, decode_event(record), 0), [record]


def carried_out(commands: list[tuple[int, StartWorkflow]]) -> tuple[list[Record], PartitionState]:
    """What an owner writes who is delivered these commands (offset and command), and its own state."""
    state, log = claimed()
    runs = CodeRuns(Catalogue.of([total]), "raise", ThreadSlots(1))
    owner = Owner(PARTITION, state, OwnerSettings(worker="w"), runs, lambda: 0.5)
    for offset, command in commands:
        owner.handle(offset, command, NOW)
        while entries := owner.take_entries():
            offsets = range(len(log), len(log) + len(entries))
            log.extend(Record(at, NOW, *entry) for at, entry in zip(offsets, entries, strict=True))
            owner.acked(offsets)
            for effect in owner.take_effects():
                if isinstance(effect, Launch):
                    owner.step_done(effect, Succeeded("1", NOW), NOW)
    return log, owner.state


def asked(starts: list[tuple[str, list[int]]]) -> list[tuple[int, StartWorkflow]]:
    """Starts as commands, in log order."""
    return [
        (
            offset,
            StartWorkflow(
                command_id=str(offset),
                workflow_id=workflow_id,
                reply_to=None,
                requested_at=NOW,
                workflow="total",
                payload=f'{{"numbers":{numbers}}}',
            ),
        )
        for offset, (workflow_id, numbers) in enumerate(starts)
    ]


def folded(records: list[Record], state: PartitionState | None = None) -> PartitionState:
    """The fold of records, on top of a state."""
    result = PartitionState() if state is None else state
    for record in records:
        result = evolve(result, decode_event(record), record.offset)
    return result


def stale(entry: Record) -> Entry | None:
    """The record as a zombie would have written it, under a claim that is none."""
    event: Event | Unreadable = decode_event(entry)
    if not isinstance(event, StepCompleted):
        return None
    zombies = StepCompleted(
        workflow_id=event.workflow_id,
        position=event.position,
        recorded_at=event.recorded_at,
        claim=event.claim + 1_000,
        command=event.command,
        worker="zombie",
        step=event.step,
        name=event.name,
        payload="99",
        attempt=event.attempt,
        started_at=event.started_at,
    )
    return encode_event(zombies, bytes(32))[0]


@settings(deadline=None)  # a loaded machine is no failure
@given(starts, st.data())
def test_a_fold_may_stop_anywhere_and_go_on(
    asked_for: list[tuple[str, list[int]]], data: st.DataObject
) -> None:
    """Given any prefix, folding it and then the rest gives what folding all gives, and what the owner has."""
    log, owned = carried_out(asked(asked_for))
    cut = data.draw(st.integers(0, len(log)))

    state = folded(log[cut:], folded(log[:cut]))

    assert digest(state) == digest(folded(log)) == digest(owned)
    assert all(closed.status is Status.COMPLETED for closed in state.closed.values())


@settings(deadline=None)
@given(starts, st.data())
def test_deliveries_may_be_repeated(
    asked_for: list[tuple[str, list[int]]], data: st.DataObject
) -> None:
    """Given commands that are delivered again, in any later place, the owner writes the same log to the byte."""
    commands = asked(asked_for)
    repeated: list[tuple[int, StartWorkflow]] = []
    for number, command in enumerate(commands):
        repeated.append(command)
        again = data.draw(st.lists(st.sampled_from(commands[: number + 1]), max_size=2))
        repeated.extend(again)

    assert carried_out(repeated)[0] == carried_out(commands)[0]


@settings(deadline=None)
@given(starts, st.data())
def test_a_zombie_s_records_change_nothing(
    asked_for: list[tuple[str, list[int]]], data: st.DataObject
) -> None:
    """Given records under another claim anywhere between, every reader's state is as without them."""
    log, _ = carried_out(asked(asked_for))
    disturbed: list[Record] = []
    for record in log:
        disturbed.append(record)
        zombies = stale(record)
        if zombies is not None and data.draw(st.booleans()):
            disturbed.append(Record(record.offset, NOW, *zombies))

    assert digest(folded(disturbed)) == digest(folded(log))
