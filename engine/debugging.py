"""A recorded run in Python's debugger: its code is replayed, and stands still where it asks for an operation.

What pdb shows is the code itself, on its own event loop or thread, with the variables that it had: the debugger is
entered from the run (`_ask`), in the frame of the user's that makes the call. What is not the user's is skipped as one
steps. Nothing is carried out: the run has no owner, so a step that is asked for is never launched, and what is typed at
the prompt may not reach outside either (`PromptGuard`), nor make durable calls (`_AtPrompt`).
"""

import pdb  # noqa: T100 - this is the debugger
import sys
from bdb import BdbQuit
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import IO, Final, cast

from refold.engine.active import facts_of
from refold.engine.async_run import AsyncRun
from refold.engine.base_run import BaseRun
from refold.engine.blobs import IN_RECORDS, Blobs
from refold.engine.callsite import is_boundary, is_user_file, wait_frame
from refold.engine.definitions import Catalogue
from refold.engine.guard import Guard, arm, disarm
from refold.engine.matching import (
    described_outcome,
    described_request,
    kind_of_outcome,
    kind_of_request,
)
from refold.engine.operations import Answered, DurableScope, Emitted, Ending, Request
from refold.engine.places import Named, Place, read_place
from refold.engine.rehearsal import History, shown
from refold.engine.runs import CodeRuns
from refold.engine.scope import ContinueAsNew, Suspended, enter
from refold.engine.sync_run import SyncRun
from refold.engine.thread_slots import ThreadSlots
from refold.log.errors import RefoldError, UsageError
from refold.log.events import DeliveryRefused, StepCompleted, StepFailed

SKIPPED: Final = ("refold", "refold.*", "asyncio", "asyncio.*", "threading", "contextlib")
"""Modules in which stepping does not stop."""

MAX_VALUE_CHARS: Final = 300

PATIENCE_S: Final = 7 * 24 * 3600.0
"""How long a thread may stand at the prompt before it is reported as one that does not come back."""

_TYPED: Final = frozenset({"<stdin>", "<string>"})
"""Files of what is typed at the prompt, as pdb compiles it."""

_READABLE: Final = frozenset({"facts", "max_payload_bytes", "now_us", "told", "workflow_id"})
"""What the prompt may ask a run: it changes nothing."""


class Left(BaseException):
    """The person has left the debugger: workflow code must let this pass."""


class PromptGuard(Guard):
    """A run's guard that takes what is typed at the prompt for the code's; the common one lets pdb do anything."""

    def judge(self, event: str, args: tuple[object, ...]) -> None:
        """Refuse what `event` announces, unless it is no doing of the workflow's or the person's.

        Raises:
            SideEffectError: It is refused.
        """
        frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        typed = False
        while frame is not None and not is_boundary(frame):
            typed = typed or frame.f_code.co_filename in _TYPED
            if (
                frame.f_code.co_filename == pdb.__file__
            ):  # what is further out has called the prompt
                if typed:
                    self.refuse(event, args, "at the debugger's prompt")
                break
            frame = frame.f_back
        super().judge(event, args)


class _AtPrompt:
    """A run as what is typed at the prompt sees it: it may be looked at, and not asked for anything."""

    def __init__(self, run: BaseRun | None) -> None:
        self._run = run

    def __getattr__(self, name: str) -> object:
        if name not in _READABLE:
            raise UsageError(
                "nothing durable can be called at the debugger's prompt: it is not in the history, and the replay "
                "would not go on as the run did"
            )
        return getattr(self._run, name)


class _Debugged(BaseRun):
    """A run that stands still where it asks for an operation."""

    _debugger: "Debugger | None" = None

    def debug_with(self, debugger: "Debugger | None") -> None:
        """Stand still where this debugger wants it; nowhere any more with None."""
        self._debugger = debugger
        self._guard = PromptGuard(self.workflow_id, "raise")

    def waiting_frame(self) -> FrameType | None:
        """Where the workflow's function waits."""
        raise NotImplementedError

    @contextmanager
    def guarded(self) -> Generator[None, None, None]:
        """Inside, this thread is held to what workflow code is held to."""
        assert self._guard is not None
        arm(self._guard)
        try:
            yield
        finally:
            disarm()

    def _ask(self, request: Request) -> int:
        if self._debugger is not None:
            self._debugger.asked(request, self)
        return super()._ask(request)

    def _end_raised(self, error: BaseException) -> None:
        if self._debugger is not None:
            self._debugger.raised(error)
        super()._end_raised(error)


class DebuggedAsync(_Debugged, AsyncRun):
    """An `async def` run under a debugger."""

    def waiting_frame(self) -> FrameType | None:
        """Where the workflow's function waits."""
        return None if self._main is None else wait_frame(self._main.get_coro())


class DebuggedSync(_Debugged, SyncRun):
    """A `def` run under a debugger. Its thread may stand still for as long as a person thinks."""

    def debug_with(self, debugger: "Debugger | None") -> None:
        """As of every run under a debugger."""
        super().debug_with(debugger)
        self._stall_report_s = PATIENCE_S

    def waiting_frame(self) -> FrameType | None:
        """Where the workflow's function waits."""
        return None if self._stay is None else _user_frame(self._stay.frame())


class DebuggedRuns(CodeRuns):
    """Makes such runs."""

    async_run = DebuggedAsync
    sync_run = DebuggedSync


class Debugger(pdb.Pdb):
    """pdb, with commands for operations: `op` goes on to the next one, `ops` shows them.

    Args:
        history: The run.
        at: Where to stand still first; at the first operation where not given.
        blobs: Where payloads are read that are not in the records.
        stdin: Where commands are read; the terminal's where not given.
        stdout: Where it writes.
    """

    def __init__(
        self,
        history: History,
        at: Place | None = None,
        blobs: Blobs = IN_RECORDS,
        stdin: IO[str] | None = None,
        stdout: IO[str] | None = None,
    ) -> None:
        super().__init__(stdin=stdin, stdout=stdout, skip=SKIPPED, nosigint=True)
        self.prompt = "(refold) "
        self.asked_for: list[Named] = []
        self.has_left = False
        self.blobs = blobs
        self._recorded = recorded_outcomes(history)
        self._run: BaseRun | None = None
        self._began = False
        self._over = False
        self._at: Place | None = at
        self._armed = True

    @property
    def missed(self) -> Place | None:
        """The operation at which to stand still first, where the code did not come to it."""
        return self._at if self._armed and not self._began else None

    def follow(self, run: BaseRun) -> None:
        """This is the run that is debugged."""
        self._run = run

    def end(self) -> None:
        """Stop no more: what the code does as its run is put away is no part of the history."""
        self._over = True
        sys.settrace(None)

    # From the run -----------------------------------------------------------------------------------------

    def asked(self, request: Request, run: _Debugged) -> None:
        """The code asks for an operation: stand still if that is wanted here.

        Args:
            request: What it asks for.
            run: The run.

        Raises:
            Left: The person has left.
        """
        if self.has_left:
            raise Left
        operation = Named(request.step, request.name)
        self.asked_for.append(operation)
        recorded = self._recorded.get(request.step)
        parted = recorded is not None and (
            kind_of_outcome(recorded) != kind_of_request(request) or recorded.name != request.name
        )
        wanted = self._armed and (self._at is None or self._at.means(operation))
        if not (wanted or parted):
            if sys.gettrace() is not None:  # one who steps is told what is passed
                self.message(self._line(request, recorded))
            return
        self._armed, self._at, self._began = False, None, True
        # Gathered steps have no code of the user's on their stack: then it is where that waits for them.
        frame = _user_frame(sys._getframe()) or run.waiting_frame()  # pyright: ignore[reportPrivateUsage]
        if frame is None:
            self.message(self._line(request, recorded))
            return
        self._stand(frame, self._line(request, recorded))

    def raised(self, error: BaseException) -> None:
        """The code has ended by an error: look at it where it was raised."""
        if isinstance(error, Left | BdbQuit):
            self.has_left = True
        if self.has_left or isinstance(error, Suspended | ContinueAsNew):
            return
        stack: TracebackType | None = error.__traceback__
        while stack is not None and not is_user_file(stack.tb_frame.f_code.co_filename):
            stack = stack.tb_next
        if stack is None:
            return
        sys.settrace(None)
        self.message(f"the workflow raises {type(error).__qualname__}: {error}")
        self.reset()
        self.interaction(None, stack)
        self.has_left = self.quitting

    def rests(self, run: _Debugged) -> None:
        """The history has been told, and the code waits: look at it once more where that is wanted."""
        frame = run.waiting_frame()
        wanted = self._armed or self.stoplineno != -1  # by `op`, or by one who steps
        if self.has_left or self.missed is not None or not wanted or frame is None:
            return
        sys.settrace(None)
        self.reset()
        self.botframe = _outermost(frame)
        missed = "" if self._at is None else f", with no operation {self._at}"
        self.message(f"the history ends here{missed}, and the code waits")
        with run.guarded():
            self.interaction(frame, None)
        self.has_left = self.quitting

    def _stand(self, frame: FrameType, line: str) -> None:
        self.set_trace(frame)
        sys.settrace(None)  # the prompt itself is not to be traced
        self._step_by_lines(frame)
        self.botframe = _outermost(frame)  # what is further out is refold's
        self.message(line)
        self.interaction(frame, None)
        if self.quitting:
            self.has_left = True
            raise Left
        if self.breaks or self.stoplineno != -1:  # else it goes on without stopping
            sys.settrace(self.trace_dispatch)

    def _step_by_lines(self, frame: FrameType) -> None:
        """Take back that pdb is to stop at the next instruction, as `set_trace` wants it from Python 3.13 on.

        It would do so in the middle of the very line that `next` is to step over: the prompt is here already.
        """
        self.set_step()
        outer: FrameType | None = frame
        while outer is not None:
            outer.f_trace_opcodes = False
            outer = outer.f_back

    # pdb --------------------------------------------------------------------------------------------------

    def message(self, msg: str, end: str = "\n") -> None:
        """Write a line, or a part of one."""
        if not self._over:
            print(msg, end=end, file=self.stdout)  # as pdb, which knows `end` since 3.13

    def interaction(  # pyright: ignore[reportIncompatibleMethodOverride] - named otherwise from 3.13 on
        self, frame: FrameType | None, traceback: TracebackType | BaseException | None
    ) -> None:
        """The prompt. What is typed there may look at the run and ask it for nothing."""
        if self._over:
            return
        with enter(cast("DurableScope", _AtPrompt(self._run))):
            # An error itself is what pdb takes from 3.13 on, and only where it is the one that makes it.
            super().interaction(frame, cast("TracebackType | None", traceback))

    def get_stack(
        self, f: FrameType | None, t: TracebackType | None
    ) -> tuple[list[tuple[FrameType, int]], int]:
        """The stack as it is shown: what is the user's, from the workflow's function inwards."""
        stack, at = super().get_stack(f, t)
        start = 1 + max((n for n, (frame, _) in enumerate(stack) if is_boundary(frame)), default=-1)
        shown = [
            n for n in range(start, len(stack)) if is_user_file(stack[n][0].f_code.co_filename)
        ]
        if not shown:
            return stack, at
        return [stack[n] for n in shown], max(0, sum(n <= at for n in shown) - 1)

    def do_op(self, arg: str) -> bool | None:
        """Op [NUMBER | NAME | NAME#NUMBER]

        Go on to the next operation, or to the one that is named.
        """
        try:
            self._at = read_place(arg.strip()) if arg.strip() else None
        except RefoldError as error:
            self.error(str(error))
            return None
        self._armed, self._began = True, True
        self.set_continue()
        return True

    def do_ops(self, _arg: str) -> None:
        """Ops

        Show the operations that the history has, and which the code has asked for.
        """
        asked = {operation.step for operation in self.asked_for}
        for step, outcome in sorted(self._recorded.items()):
            sign = "✓" if step in asked else " "
            self.message(f" {sign} {step:>4}  {outcome.name}  {self._outcome(outcome)}")
        for operation in self.asked_for:
            if operation.step not in self._recorded:
                self.message(f" ▸ {operation.step:>4}  {operation.name}  has no outcome")

    # In words --------------------------------------------------------------------------------------------

    def _line(self, request: Request, recorded: Answered | Emitted | None) -> str:
        """What the code asks for, and what the history has of it."""
        asked = f"operation {request.step}: {described_request(request)}"
        if recorded is None:
            return f"{asked}: the history ends before its outcome"
        if kind_of_outcome(recorded) == kind_of_request(request) and recorded.name == request.name:
            return f"{asked}: {self._outcome(recorded)}"
        had = described_outcome(kind_of_outcome(recorded), recorded.name)
        return f"{asked}: DIVERGES, the history has {had} here: {self._outcome(recorded)}"

    def _outcome(self, outcome: Answered | Emitted) -> str:
        match outcome:
            case StepCompleted():
                what = f"result of step {outcome.step}"
                return _short(f"completed with {shown(self.blobs, outcome.payload, what)}")
            case StepFailed() | DeliveryRefused():
                return _short(f"failed with {outcome.error_type}: {outcome.error_message}")
            case _:
                return (
                    "recorded" if isinstance(outcome, Emitted) else outcome.kind.replace(".", " ")
                )


def debug(workflows: Catalogue, history: History, debugger: Debugger) -> Ending | None:
    """Replay a run under a debugger, in this thread (`def` code in one of its own), with no effect.

    Args:
        workflows: The code.
        history: The run.
        debugger: Who stands still.

    Returns:
        How the run ended; None where it waits, or where the person has left.

    Raises:
        UsageError: The code does not come to the operation at which it was to stand still.
        UnknownWorkflow: The code is not here.
        PayloadError: The input does not fit the workflow's parameters, or can't be had.
    """
    state = history.state
    if state.started is None or state.broken is not None:
        raise UsageError(
            f"workflow {history.workflow_id!r} can't be replayed: {state.broken or 'its start is not in the log'}"
        )
    runs = DebuggedRuns(workflows, "raise", ThreadSlots(1), debugger.blobs)
    run = runs.create(facts_of(history.workflow_id, state), state.started.payload)
    assert isinstance(run, DebuggedAsync | DebuggedSync)
    debugger.follow(run)
    run.debug_with(debugger)
    try:
        run.replay(state.outcomes)
        if run.ending is None:
            debugger.rests(run)
    except Left:
        return None
    finally:
        debugger.end()
        run.debug_with(None)
        run.close()
    return None if debugger.has_left else run.ending


def recorded_outcomes(history: History) -> Mapping[int, Answered | Emitted]:
    """The outcomes of a run's operations, by their numbers."""
    return {
        outcome.step: outcome
        for outcome in history.state.outcomes
        if isinstance(outcome, Answered | Emitted)
    }


def _user_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's on a stack, within workflow code."""
    while frame is not None and not is_boundary(frame):
        if is_user_file(frame.f_code.co_filename):
            return frame
        frame = frame.f_back
    return None


def _outermost(frame: FrameType) -> FrameType:
    """The outermost frame of workflow code on a stack."""
    while frame.f_back is not None and not is_boundary(frame.f_back):
        frame = frame.f_back
    return frame


def _short(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"
