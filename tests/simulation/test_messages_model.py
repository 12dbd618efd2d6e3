"""Messages, questions, values, pausing and cancelling against a model that is a few lists: whatever comes in whatever
order, and whoever owns the partitions meanwhile, a client sees what the model says.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydantic_core import from_json
from tests.simulation.checker import problems
from tests.simulation.history import History
from tests.simulation.scene import PARTITIONS
from tests.simulation.world import World

from refold.engine.definitions import Catalogue, workflow
from refold.engine.messages import publish, receive, requests, send
from refold.log.commands import Command, Reply
from refold.log.errors import WorkflowEnded, WorkflowNotFound

IDS = ("box-0", "box-1", "box-2")
ids = st.sampled_from(IDS)
numbers = st.integers(0, 9)


@workflow
async def mailbox() -> list[int]:
    """Takes numbers as it is told to, and shows them; hands some on; cleans up when it is cancelled."""
    taken: list[int] = []

    async def answer() -> None:
        async for question in requests("sum", int, validate=_even):
            question.reply(sum(taken) + question.value)

    answering = asyncio.create_task(answer())
    try:
        while (order := await receive("order", str)) != "end":
            if order == "take":
                taken.append(await receive("number", int))
                publish("taken", taken)
            else:
                try:
                    await send(order, "number", len(taken))
                except (WorkflowNotFound, WorkflowEnded) as error:
                    publish("error", type(error).__name__)
    except asyncio.CancelledError:
        publish("taken", [-1])
        raise
    finally:
        answering.cancel()
    return taken


def _even(number: int) -> None:
    if number % 2:
        raise ValueError("odd")


@dataclass
class Box:
    """A mailbox as the model has it.

    Args:
        numbers: Sent and not taken.
        orders: Given and not carried out.
        taken: Taken, in order.
        values: What it has published, by key.
        paused: Whether it was told to pause.
        ended: How it ended; None while it is open.
    """

    numbers: list[int] = field(default_factory=list[int])
    orders: list[str] = field(default_factory=list[str])
    taken: list[int] = field(default_factory=list[int])
    values: dict[str, object] = field(default_factory=dict[str, object])
    paused: bool = False
    ended: str | None = None


class Mailboxes(RuleBasedStateMachine):
    """Three mailboxes on three partitions, and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(1, partitions=PARTITIONS, code=Catalogue.of([mailbox]))
        self.boxes: dict[str, Box] = {}
        self.late: list[tuple[str, Command]] = []  # questions that came in a pause
        self.sent: list[tuple[str, str, int]] = []  # message id, box, number

    @initialize()
    def begin(self) -> None:
        """Two mailboxes are there from the beginning."""
        for box in IDS[:2]:
            self.start(box)

    # What clients do --------------------------------------------------------------------------------------

    @rule(box=ids)
    def start(self, box: str) -> None:
        """Starting it again changes nothing."""
        reply = self._ask(self.world.clients.start(box, mailbox))
        assert reply.status != "refused"
        self.boxes.setdefault(box, Box())

    @rule(box=ids, number=numbers)
    def send_number(self, box: str, number: int) -> None:
        """It is accepted where there is an open one."""
        message_id = f"message-{len(self.sent)}"
        self.sent.append((message_id, box, number))
        reply = self._ask(self.world.clients.send(box, "number", str(number), message_id))
        assert (reply.status == "accepted") == self._is_open(box)
        if self._is_open(box):
            self.boxes[box].numbers.append(number)
            self._run()

    @precondition(lambda self: bool(self.sent))
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """The same message counts once."""
        message_id, box, number = data.draw(st.sampled_from(self.sent))
        first_came = self._received(box, message_id)
        reply = self._ask(self.world.clients.send(box, "number", str(number), message_id))
        assert (reply.status == "accepted") == self._is_open(box)
        if self._is_open(box) and not first_came:  # it was not there when the first was sent
            self.boxes[box].numbers.append(number)
            self._run()

    @rule(box=ids, order=st.sampled_from(("take", "take", "take", *IDS, "end")))
    def give_order(self, box: str, order: str) -> None:
        """Take a number, hand one on to another mailbox, or end."""
        busy = any(state.orders or state.paused for state in self.boxes.values())
        if order in IDS and busy:
            return  # mailboxes that set each other going would race, and the model knows no time
        reply = self._ask(self.world.clients.send(box, "order", f'"{order}"'))
        assert (reply.status == "accepted") == self._is_open(box)
        if self._is_open(box):
            self.boxes[box].orders.append(order)
            self._run()

    @rule(box=ids, number=numbers)
    def ask(self, box: str, number: int) -> None:
        """An even number is answered, now or when it goes on; an odd one is refused where its code is there."""
        command = self.world.clients.ask(box, "sum", str(number))
        reply = self._ask(command)
        if not self._is_open(box):
            assert reply.status == "refused"
            return
        state = self.boxes[box]
        if not state.paused:
            if number % 2:
                assert reply.status == "refused"
                return
            assert reply.status == "answered"
            assert from_json(reply.payload or "") == sum(state.taken) + number
            return
        assert reply.status == "accepted"  # its code is not in memory
        self.late.append((box, command))

    @rule(box=ids, key=st.sampled_from(("taken", "error")))
    def read_value(self, box: str, key: str) -> None:
        """The last one published, also after the end."""
        reply = self._ask(self.world.clients.value(box, key))
        state = self.boxes.get(box)
        if state is not None and key in state.values:
            assert reply.status == "value"
            assert from_json(reply.payload or "") == state.values[key]
        else:
            assert reply.status == ("accepted" if self._is_open(box) else "refused")

    @rule(box=ids)
    def cancel(self, box: str) -> None:
        """It cleans up and ends, also where it was paused."""
        reply = self._ask(self.world.clients.cancel(box))
        assert (reply.status == "accepted") == self._is_open(box)
        if not self._is_open(box):
            return
        state = self.boxes[box]
        state.paused = False
        self._run()  # what came before it
        if state.ended is None:
            state.values["taken"] = [-1]
            state.ended = "cancelled"

    @rule(box=ids)
    def pause(self, box: str) -> None:
        """Only a running one can be paused."""
        state = self.boxes.get(box)
        can = state is not None and state.ended is None and not state.paused
        reply = self._ask(self.world.clients.pause(box))
        assert (reply.status == "accepted") == can
        if state is not None and can:
            state.paused = True

    @rule(box=ids)
    def resume(self, box: str) -> None:
        """Only a paused one can be resumed; it takes up what came meanwhile."""
        state = self.boxes.get(box)
        can = state is not None and state.ended is None and state.paused
        reply = self._ask(self.world.clients.resume(box))
        assert (reply.status == "accepted") == can
        if state is not None and can:
            state.paused = False
            self._run()

    # What happens to workers ------------------------------------------------------------------------------

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def crash(self, partition: int) -> None:
        """An owner dies; another takes over."""
        self.world.kill(partition)
        self.world.live()

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def hand_over(self, partition: int) -> None:
        """The group gives the partition to another worker, while its owner lives."""
        self.world.hand_over(partition)
        self.world.live()

    # What must be so --------------------------------------------------------------------------------------

    @invariant()
    def runs_end_as_in_the_model(self) -> None:
        """Each run is open, or has ended, as the model says; what was taken came in the order in which it was sent."""
        self.world.audit.advance()
        for box, state in self.boxes.items():
            ended = self.world.audit.ended(box)
            found = None if ended is None else ended.kind.removeprefix("workflow.")
            assert found == state.ended, f"{box} is {found}, and should be {state.ended}"

    @invariant()
    def late_questions_are_answered(self) -> None:
        """What was asked in a pause, and is asked again once that is over, has its answer, unless it is refused."""
        for box, command in [late for late in self.late if not self.boxes[late[0]].paused]:
            self.late.remove((box, command))
            assert self._ask(command).status in {"answered", "refused"}

    def teardown(self) -> None:
        """In the end every invariant of the simulation holds."""
        self.world.settle([])
        self.world.close()
        assert not problems(History(self.world.store, self.world.journal, {}))

    # The model --------------------------------------------------------------------------------------------

    def _is_open(self, box: str) -> bool:
        state = self.boxes.get(box)
        return state is not None and state.ended is None

    def _received(self, box: str, message_id: str) -> bool:
        stream = self.world.audit.stream(box)
        return any(getattr(event, "message_id", None) == message_id for event in stream)

    def _run(self) -> None:
        """Let all mailboxes carry out what they can."""
        while sum(self._step(state) for state in self.boxes.values()):
            pass

    def _step(self, state: Box) -> bool:
        if state.ended is not None or state.paused or not state.orders:
            return False
        order = state.orders[0]
        if order == "end":
            state.ended = "completed"
        elif order == "take":
            if not state.numbers:
                return False
            state.taken.append(state.numbers.pop(0))
            state.values["taken"] = list(state.taken)
        elif self._is_open(order):
            self.boxes[order].numbers.append(len(state.taken))
        else:
            known = order in self.boxes
            state.values["error"] = "WorkflowEnded" if known else "WorkflowNotFound"
        del state.orders[0]
        return True

    def _ask(self, command: Command) -> Reply:
        """Give a command, let all come to rest, and return the last reply to it."""
        self.world.submit(command)
        self.world.live()
        replies: Sequence[Reply] = [
            given.reply
            for given in self.world.journal.answers
            if given.reply.command_id == command.command_id and given.reply.status != "unknown"
        ]
        assert replies, f"nobody answered {command}"
        return replies[-1]


Mailboxes.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMailboxes = Mailboxes.TestCase
