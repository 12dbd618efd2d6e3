"""Scenes of runs that wait in queues: whose limit is one, is set late, raised, lowered; whose runs end otherwise."""

import asyncio
from collections.abc import Sequence

from tests.simulation.scene import Play, Scene
from tests.simulation.scenes_children import cancelled, either
from tests.simulation.shapes import Expectation, echo, lengthy, returns

from refold.engine.children import run_child
from refold.engine.definitions import workflow
from refold.engine.messages import receive
from refold.engine.versions import continue_as_new
from refold.log.events import Event, SlotGranted, StepCompleted, WorkflowTerminated


@workflow
async def working() -> str:
    return await lengthy("worked")


@workflow
def working_plainly() -> str:
    return echo.sync("worked")


@workflow
async def working_in_turns(rounds: int) -> str:
    await echo(f"{rounds} to go")
    if rounds:
        continue_as_new(rounds - 1)
    return "worked"


@workflow
async def waiting_in_turn() -> list[str]:
    return [await receive("go", str), await receive("go", str)]


@workflow
async def sharing(queue: str) -> list[str]:
    return await asyncio.gather(*(run_child(working, queue=queue) for _ in range(2)))


def _unless_it_was_its_turn(expectation: Expectation) -> Expectation:
    """It ended so, and nothing of it had begun; or it had its turn before, as when its clients are slow."""

    def judge(stream: Sequence[Event]) -> str | None:
        if any(isinstance(event, SlotGranted) for event in stream):
            return either(expectation, returns("worked"))(stream)
        if any(isinstance(event, StepCompleted) for event in stream):
            return f"it has run: {stream}"
        return expectation(stream)

    return judge


def _terminated(stream: Sequence[Event]) -> str | None:
    return None if isinstance(stream[-1], WorkflowTerminated) else f"ended with {stream[-1]}"


def _one_by_one(play: Play) -> None:
    queue = play.id("line", 2)
    play.at(0, play.clients.set_queue(queue, 1))
    for number, works in enumerate((working, working_plainly, working)):
        play.start(
            play.id(f"{works.name}-{number}", number),
            works,
            expected=returns("worked"),
            queue=queue,
        )


def _limits(play: Play) -> None:
    queue = play.id("gate", 0)
    for number in range(4):
        play.start(
            play.id(f"gated-{number}", number), working, expected=returns("worked"), queue=queue
        )
    play.at(2, play.clients.set_queue(queue, 2))
    play.at(3, play.clients.set_queue(queue, 1))
    play.at(10, play.clients.set_queue(queue, 3))
    play.at(10, play.clients.look_at_queue(queue))


def _ends_otherwise(play: Play) -> None:
    queue = play.id("stop", 1)
    play.at(0, play.clients.set_queue(queue, 1))
    first = play.id("first", 0)
    play.start(first, waiting_in_turn, expected=returns(["a", "b"]), queue=queue)
    unwanted, ended = play.id("unwanted", 1), play.id("ended", 2)
    never = _unless_it_was_its_turn(cancelled())
    play.start(unwanted, working, after_s=1, expected=never, queue=queue)
    play.start(
        ended, working, after_s=1, expected=_unless_it_was_its_turn(_terminated), queue=queue
    )
    late = play.id("late", 0)
    play.start(late, working, after_s=1, expected=never, deadline_s=5, queue=queue)
    last = play.id("last", 2)
    play.start(last, waiting_in_turn, after_s=1.5, expected=returns(["c", "d"]), queue=queue)
    play.at(2, play.clients.cancel(unwanted))
    play.at(2, play.clients.terminate(ended))
    play.at(2, play.clients.send(last, "go", '"c"'))
    play.at(2, play.clients.pause(last))
    for topic, to, at_s in (("a", first, 3), ("b", first, 8), ("d", last, 9)):
        play.at(at_s, play.clients.send(to, "go", f'"{topic}"'))
    play.at(12, play.clients.resume(last))


def _turns_and_children(play: Play) -> None:
    queue = play.id("share", 2)
    play.at(0, play.clients.set_queue(queue, 1))
    play.start(play.id("turns", 0), working_in_turns, 2, expected=returns("worked"), queue=queue)
    play.start(play.id("parent", 1), sharing, queue, expected=returns(["worked", "worked"]))


def _again(play: Play) -> None:
    queue = play.id("again", 1)
    play.at(0, play.clients.set_queue(queue, 1))
    ended = play.id("ended", 0)
    expected = either(_terminated, returns("worked"))
    play.start(ended, working, expected=expected, queue=queue)
    play.at(1, play.clients.terminate(ended))
    play.start(play.id("other", 2), working, after_s=2, expected=returns("worked"), queue=queue)
    play.do(3, lambda: play.stage.reopen(ended, None))
    play.do(4, lambda: play.stage.fork(ended, play.id("fork", 2), None))


SCENES: tuple[Scene, ...] = (
    Scene("one by one", (working, working_plainly), _one_by_one),
    Scene("limits", (working,), _limits, large=True),
    Scene("queue left", (waiting_in_turn, working), _ends_otherwise, large=True),
    Scene("turns and children", (working_in_turns, sharing, working), _turns_and_children),
    Scene("queue again", (working,), _again),
)
