"""The fold, over any prefix, any zombie's records in between, and any repetition of deliveries to the owner."""

from collections import deque
from dataclasses import replace
from typing import TypedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from claimed import NOW, claimed
from refold import publish, receive, send, start_child, step, workflow
from refold.engine.definitions import Catalogue
from refold.engine.digest import digest
from refold.engine.effects import Launch, Post, Succeeded
from refold.engine.fold import evolve
from refold.engine.owner import Owner, OwnerSettings
from refold.engine.runs import CodeRuns
from refold.engine.state import PartitionState
from refold.engine.thread_slots import ThreadSlots
from refold.log.codec import decode_event, encode_event
from refold.log.commands import (
    CancelWorkflow,
    Command,
    PauseWorkflow,
    ResumeWorkflow,
    SendMessage,
    StartWorkflow,
    TerminateWorkflow,
)
from refold.log.errors import WorkflowEnded, WorkflowNotFound
from refold.log.events import Event, PartitionClaimed, Unreadable
from refold.log.protocol import Entry, Record

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


@workflow
async def relay(to: str) -> str:
    """Passes messages on, a letter shorter, until it is told to stop; and shows the last one."""
    while (text := await receive("text", str)) != "stop":
        publish("last", text)
        try:
            if len(text) > 1:
                await send(to, "text", text[1:])
        except (WorkflowNotFound, WorkflowEnded) as error:
            publish("last", type(error).__name__)
    child = await start_child(total, [1], id=f"{to}-child")
    return str(await child)


IDS = ("a", "b", "c")
Asked = tuple[str, list[int] | str]
"""A start of `total` with these numbers, or of `relay` with "to:ID"; else a message, or "cancel", "pause", "resume"."""

asked_for = st.lists(
    st.tuples(
        st.sampled_from(IDS),
        st.lists(st.integers(0, 9), max_size=3)
        | st.sampled_from(
            ("to:a", "to:b", "to:c", "hello", "stop", "cancel", "pause", "resume", "terminate")
        ),
    ),
    min_size=1,
    max_size=12,
)


def carried_out(commands: list[tuple[int, Command]]) -> tuple[list[Record], PartitionState]:
    """What an owner writes who is delivered these commands (offset and command), and its own state.

    What its workflows send comes back as further commands, after all that were given.
    """
    state, log = claimed()
    runs = CodeRuns(Catalogue.of([total, relay]), "raise", ThreadSlots(1))
    owner = Owner(PARTITION, state, OwnerSettings(worker="w"), runs, lambda: 0.5, lambda: 0)
    end = max(offset for offset, _ in commands) + 1
    waiting = deque(commands)
    while waiting:
        owner.handle(*waiting.popleft(), NOW)
        while entries := owner.take_entries():
            offsets = range(len(log), len(log) + len(entries))
            log.extend(Record(at, NOW, *entry) for at, entry in zip(offsets, entries, strict=True))
            owner.acked(offsets)
            for effect in owner.take_effects():
                if isinstance(effect, Launch):
                    owner.step_done(effect, Succeeded("1", NOW), NOW)
                elif isinstance(effect, Post):
                    waiting.append((end, effect.command))
                    end += 1
                    owner.posted(effect.number)
    owner.abandon()
    return log, owner.state


def asked(wishes: list[Asked]) -> list[tuple[int, Command]]:
    """Wishes as commands, in log order."""
    return list(enumerate(_command(str(at), *wish) for at, wish in enumerate(wishes)))


def _command(command_id: str, workflow_id: str, wish: list[int] | str) -> Command:
    envelope: Envelope = {
        "command_id": command_id,
        "workflow_id": workflow_id,
        "reply_to": None,
        "requested_at": NOW,
    }
    match wish:
        case list():
            return StartWorkflow(**envelope, workflow="total", payload=f'{{"numbers":{wish}}}')
        case "cancel":
            return CancelWorkflow(**envelope)
        case "pause":
            return PauseWorkflow(**envelope)
        case "resume":
            return ResumeWorkflow(**envelope)
        case "terminate":
            return TerminateWorkflow(**envelope)
        case _ if wish.startswith("to:"):
            return StartWorkflow(**envelope, workflow="relay", payload=f'{{"to":"{wish[3:]}"}}')
        case _:
            return SendMessage(**envelope, name="text", payload=f'"{wish}"', message_id=command_id)


class Envelope(TypedDict):
    """What every command carries."""

    command_id: str
    workflow_id: str
    reply_to: None
    requested_at: int


def folded(records: list[Record], state: PartitionState | None = None) -> PartitionState:
    """The fold of records, on top of a state."""
    result = PartitionState() if state is None else state
    for record in records:
        result = evolve(result, decode_event(record), record.offset)
    return result


def stale(entry: Record) -> Entry | None:
    """The record as a zombie would have written it, under a claim that is none."""
    event: Event | Unreadable = decode_event(entry)
    if isinstance(event, PartitionClaimed | Unreadable):
        return None
    zombies = replace(event, claim=event.claim + 1_000, worker="zombie")
    return encode_event(zombies, bytes(32))[0]


@settings(deadline=None)  # a loaded machine is no failure
@given(asked_for, st.data())
def test_a_fold_may_stop_anywhere_and_go_on(wishes: list[Asked], data: st.DataObject) -> None:
    """Given any prefix, folding it and then the rest gives what folding all gives, and what the owner has."""
    log, owned = carried_out(asked(wishes))
    cut = data.draw(st.integers(0, len(log)))

    state = folded(log[cut:], folded(log[:cut]))

    assert digest(state) == digest(folded(log)) == digest(owned)
    assert not [run.broken for run in state.open.values() if run.broken is not None]


@settings(deadline=None)
@given(asked_for, st.data())
def test_deliveries_may_be_repeated(wishes: list[Asked], data: st.DataObject) -> None:
    """Given commands that are delivered again, in any later place, the owner writes the same log to the byte."""
    commands = asked(wishes)
    repeated: list[tuple[int, Command]] = []
    for number, command in enumerate(commands):
        repeated.append(command)
        again = data.draw(st.lists(st.sampled_from(commands[: number + 1]), max_size=2))
        repeated.extend(again)

    assert carried_out(repeated)[0] == carried_out(commands)[0]


@settings(deadline=None)
@given(asked_for, st.data())
def test_a_zombie_s_records_change_nothing(wishes: list[Asked], data: st.DataObject) -> None:
    """Given records under another claim anywhere between, every reader's state is as without them."""
    log, _ = carried_out(asked(wishes))
    disturbed: list[Record] = []
    for record in log:
        disturbed.append(record)
        zombies = stale(record)
        if zombies is not None and data.draw(st.booleans()):
            disturbed.append(Record(record.offset, NOW, *zombies))

    assert digest(folded(disturbed)) == digest(folded(log))
