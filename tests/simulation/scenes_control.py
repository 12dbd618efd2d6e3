"""Scenes of runs that are cancelled, paused, terminated, rewound, reopened, forked, continued as new, and patched."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.simulation.scene import Play, Scene
from tests.simulation.scenes_children import cancelled, either
from tests.simulation.shapes import Expectation, echo, lengthy, outside, returns, write

from refold.engine.definitions import Workflow, step, workflow
from refold.engine.messages import receive, receive_sync
from refold.engine.scope import sleep_sync
from refold.engine.versions import continue_as_new, patched
from refold.log.errors import WorkflowCancelled as CancelledError
from refold.log.events import Event, WorkflowCancelled, WorkflowTerminated

# Cancel ---------------------------------------------------------------------------------------------------


@workflow
async def tidy() -> str:
    try:
        await echo("book")
        await asyncio.sleep(36_000)
    except asyncio.CancelledError:
        await echo("undo")
        raise
    finally:
        await echo("close")
    return "never"


@workflow
def tidy_plainly() -> str:
    try:
        echo.sync("book")
        sleep_sync(36_000)
    except CancelledError:
        echo.sync("undo")
        raise
    finally:
        echo.sync("close")
    return "never"


@workflow
async def stubborn() -> str:
    try:
        await asyncio.sleep(36_000)
    except asyncio.CancelledError:
        return await echo("went on")
    return "never"


@workflow
def stubborn_plainly() -> str:
    try:
        sleep_sync(36_000)
    except CancelledError:
        return echo.sync("went on")
    return "never"


def _cancels(play: Play) -> None:
    for number, tidies in enumerate((tidy, tidy_plainly)):
        cancelled_id = play.id(tidies.name, number)
        play.start(cancelled_id, tidies, expected=cancelled("undo", "close"))
        play.at(2, play.clients.cancel(cancelled_id))


def _cancels_in_vain(play: Play) -> None:
    for number, swallows in enumerate((stubborn, stubborn_plainly)):
        asked = play.id(swallows.name, number)
        play.start(asked, swallows, expected=either(returns("went on"), cancelled()))
        play.at(2, play.clients.cancel(asked))
        play.at(2.02, play.clients.cancel(asked))


# Pause and terminate --------------------------------------------------------------------------------------


@workflow
async def pausable() -> list[str]:
    return [await lengthy("done"), await receive("go", str), await echo("over")]


@workflow
def pausable_plainly() -> list[str]:
    return [lengthy.sync("done"), receive_sync("go", str), echo.sync("over")]


def _pauses(play: Play) -> None:
    for number, pauses in enumerate((pausable, pausable_plainly)):
        paused = play.id(pauses.name, number)
        play.start(paused, pauses, expected=returns(["done", "go", "over"]))
        play.at(5, play.clients.pause(paused))
        play.at(6, play.clients.send(paused, "go", '"go"'))
        play.at(30, play.clients.resume(paused))


@workflow
async def endless() -> str:
    await asyncio.gather(lengthy("in vain"), asyncio.sleep(36_000), receive("never"))
    return "never"


def _terminates(play: Play) -> None:
    ended = play.id("endless", 0)

    def judge(stream: Sequence[Event]) -> str | None:
        return None if isinstance(stream[-1], WorkflowTerminated) else f"ended with {stream[-1]}"

    play.start(ended, endless, expected=judge)
    play.at(2, play.clients.terminate(ended))
    play.at(3, play.clients.terminate(ended))
    play.at(3, play.clients.send(ended, "never", "1"))


# Continue as new ------------------------------------------------------------------------------------------


@workflow
async def generations(number: int, got: list[int]) -> list[int]:
    got = [*got, await receive("item", int)]
    await echo(f"generation {number}")
    if number < 4:
        continue_as_new(number + 1, got)
    return [*got, await receive("item", int)]


@workflow
def generations_plainly(number: int, got: list[int]) -> list[int]:
    got = [*got, receive_sync("item", int)]
    write(f"generation {number}")
    if number < 4:
        continue_as_new(number + 1, got)
    return [*got, receive_sync("item", int)]


def _continues(play: Play, plainly: bool) -> None:
    lives = generations_plainly if plainly else generations
    living = play.id(lives.name, 1 if plainly else 0)
    play.start(living, lives, 0, [], expected=returns([0, 1, 2, 3, 4, 5]))
    for item in range(6):
        play.at(0.01 if item < 4 else 1, play.clients.send(living, "item", str(item)))


@workflow
async def restless(generation: int) -> str:
    """Begins anew at once, some times over; so somebody may end it when it has not begun again yet."""
    if generation < 3:
        continue_as_new(generation + 1)
    return await receive("never", str)


def _ends_between(play: Play) -> None:
    terminated, stopped = play.id("restless", 0), play.id("restless", 1)
    told = play.id("restless", 2)
    play.start(terminated, restless, 0, expected=_ended)
    play.start(stopped, restless, 0, expected=_ended)
    play.start(told, restless, 0, expected=returns("told"))
    play.at(0, play.clients.terminate(terminated))
    play.at(0, play.clients.cancel(stopped))
    play.at(0, play.clients.send(told, "never", '"told"'))


def _ended(stream: Sequence[Event]) -> str | None:
    known = isinstance(stream[-1], WorkflowTerminated | WorkflowCancelled)
    return None if known else f"ended with {stream[-1]}"


# Change of code -------------------------------------------------------------------------------------------


@workflow(name="patching")
async def patching() -> str:
    await asyncio.sleep(5)
    return await echo("old")


@workflow(name="patching")
async def patched_now() -> str:
    await asyncio.sleep(5)
    return await echo("new" if patched("in-euros") else "old")


def _patches(play: Play) -> None:
    def deploy() -> None:
        play.stage.version = 2

    play.start(play.id("patching", 0), patching, expected=returns("old", "new"))
    play.do(2, deploy)
    play.start(play.id("late", 1), patching, after_s=3, expected=returns("old", "new"))


# Rewind, reopen, fork -------------------------------------------------------------------------------------


@step
async def mended() -> str:
    if not outside.get().mended:
        raise ValueError("out of order")
    return "mended"


@workflow
async def rewindable() -> list[str]:
    trail = [await echo("a"), await echo("b")]
    await asyncio.sleep(10)
    trail.append(await receive("go", str))
    return [*trail, await echo("c")]


@workflow
def rewindable_plainly() -> list[str]:
    trail = [echo.sync("a"), echo.sync("b")]
    sleep_sync(10)
    trail.append(receive_sync("go", str))
    return [*trail, echo.sync("c")]


@workflow
async def breaking() -> list[str]:
    trail = [await echo("a"), await receive("go", str)]
    return [*trail, await mended()]


def _rewinds(play: Play) -> None:
    for number, rewinds in enumerate((rewindable, rewindable_plainly)):
        back = play.id(rewinds.name, number)
        play.start(back, rewinds, expected=returns(["a", "b", "go", "c"]))
        play.at(1, play.clients.send(back, "go", '"go"'))
        play.at(3, play.clients.rewind(back, 1))
        play.at(5, play.clients.rewind(back, 0))


def _failed_or(expectation: Expectation) -> Expectation:
    def judge(stream: Sequence[Event]) -> str | None:
        message = getattr(stream[-1], "error_message", None)
        return None if message == "out of order" else expectation(stream)

    return judge


def _reopens(play: Play) -> None:
    broken = play.id("breaking", 0)
    fork = play.id("fork", 1)
    play.start(broken, breaking, expected=_failed_or(returns(["a", "go", "mended"])))
    play.at(1, play.clients.send(broken, "go", '"go"'))

    def mend() -> None:
        outside.get().mended = True

    play.do(5, mend)
    play.do(6, lambda: play.stage.fork(broken, fork, 1))
    play.do(6, lambda: play.stage.reopen(broken, 1))


SCENES: tuple[Scene, ...] = (
    Scene("cancels", (tidy, tidy_plainly), _cancels),
    Scene("cancels in vain", (stubborn, stubborn_plainly), _cancels_in_vain),
    Scene("pauses", (pausable, pausable_plainly), _pauses),
    Scene("terminates", (endless,), _terminates),
    Scene("generations", (generations,), lambda play: _continues(play, False)),
    Scene("generations plainly", (generations_plainly,), lambda play: _continues(play, True)),
    Scene("ends between", (restless,), _ends_between),
    Scene("patching", (patching,), _patches),
    Scene("rewinds", (rewindable, rewindable_plainly), _rewinds),
    Scene("reopens", (breaking,), _reopens),
)

VERSION_2: dict[str, Workflow[..., Any]] = {"patching": patched_now}
"""Code that differs in version 2 of the deployment."""
