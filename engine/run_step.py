"""`run_step`: any function, lambda or closure as a step, without a decorator."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple, overload

from refold.engine.annotations import calling_frame, local_names, plain_function
from refold.engine.operations import StepCall, StepOptions
from refold.engine.payload import PayloadType
from refold.engine.retry import Retry
from refold.engine.scope import StepContext, current
from refold.engine.step_definitions import (
    AsyncStep,
    OnExhausted,
    SyncStep,
    checked_name,
    options_of,
    qualified_name,
    run_on_new_loop,
)
from refold.log.errors import DefinitionError, UsageError

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


@overload
def run_step(
    fn: Callable[[*Ts], Coroutine[Any, Any, R]],
    *args: *Ts,
    name: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    on_exhausted: OnExhausted = "fail",
) -> Coroutine[Any, Any, R]: ...
@overload
def run_step(
    fn: Callable[[*Ts], R],
    *args: *Ts,
    name: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    on_exhausted: OnExhausted = "fail",
) -> Coroutine[Any, Any, R]: ...
def run_step(
    fn: Callable[..., Any],
    *args: object,
    name: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    on_exhausted: OnExhausted = "fail",
) -> Coroutine[Any, Any, Any]:
    """In an `async def` workflow: run any function as a step. `def` workflows write `run_step_sync`.

    Args:
        fn: A `def` or `async def` function, a method, a closure, a `functools.partial`, or a lambda. Its result is
            recorded by its return annotation; plain JSON values where there is none.
        args: Its positional arguments. For keywords, pass a lambda.
        name: The recorded name; a lambda needs one.
        retry: As in `step`.
        timeout_s: As in `step`.
        total_timeout_s: As in `step`.
        on_exhausted: As in `step`.

    Returns:
        The awaitable result. In a step or outside of any workflow it comes from a plain call, of a `def` function
        in a thread.

    Raises:
        UsageError: The caller is a `def` workflow.
        DefinitionError: The function can't be a step, or an option is out of its range.
    """
    options = options_of(retry, timeout_s, total_timeout_s, on_exhausted)
    call = _any_call(fn, args, name, options, calling_frame())
    scope = current()
    if scope is None or isinstance(scope, StepContext):
        return _awaited(call)
    if scope.mode != "async":
        msg = f"Workflow {scope.workflow_id!r} is `def` and called run_step(...): write `run_step_sync(...)` there."
        raise UsageError(msg)
    return scope.perform(call)


@overload
def run_step_sync(
    fn: Callable[[*Ts], Coroutine[Any, Any, R]],
    *args: *Ts,
    name: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    on_exhausted: OnExhausted = "fail",
) -> R: ...
@overload
def run_step_sync(
    fn: Callable[[*Ts], R],
    *args: *Ts,
    name: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    on_exhausted: OnExhausted = "fail",
) -> R: ...
def run_step_sync(
    fn: Callable[..., Any],
    *args: object,
    name: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    on_exhausted: OnExhausted = "fail",
) -> Any:
    """In a `def` workflow: run any function as a step and return its result. Arguments as of `run_step`.

    In a step or outside of any workflow it is a plain call, of an `async def` function on a loop of its own.

    Raises:
        UsageError: The caller is an `async def` workflow: write `await run_step(...)`.
        DefinitionError: The function can't be a step, or an option is out of its range.
    """
    options = options_of(retry, timeout_s, total_timeout_s, on_exhausted)
    call = _any_call(fn, args, name, options, calling_frame())
    scope = current()
    if scope is None or isinstance(scope, StepContext):
        return (
            run_on_new_loop(call.call, f"run_step_sync({call.name!r})")
            if call.is_async
            else call.call()
        )
    if scope.mode != "sync":
        msg = (
            f"Workflow {scope.workflow_id!r} is `async def` and called run_step_sync(...), which would block it: "
            f"write `await run_step(...)` there."
        )
        raise UsageError(msg)
    return scope.perform_sync(call)


def _any_call(
    fn: Callable[..., Any],
    args: tuple[object, ...],
    name: str | None,
    options: StepOptions,
    frame: FrameType | None,
) -> StepCall:
    given: object = fn  # a step is a callable as well, and knows its name and its kind
    if isinstance(given, AsyncStep | SyncStep):
        recorded = given.name if name is None else checked_name(name, "step")
        is_async = isinstance(given, AsyncStep)
        if given.options.pool is not None:
            raise UsageError(
                f"run_step can't run step {given.name!r}, which is for pool {given.options.pool!r}: call it as a step"
            )
        return StepCall(
            recorded, functools.partial(fn, *args), is_async, options, given.result_type
        )
    plain = plain_function(fn)
    is_lambda = getattr(plain, "__name__", "") == "<lambda>"
    recorded = checked_name(_default_name(fn, plain, is_lambda) if name is None else name, "step")
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        msg = f"run_step can't run {recorded!r}: it is a generator; return a list, or run a step for each item."
        raise DefinitionError(msg)
    role = f"result of step {recorded!r}"
    result_type = PayloadType.of_return(plain, role, local_names(plain, frame))
    if is_lambda:
        return StepCall(
            recorded, functools.partial(settled_lambda, fn, args), True, options, result_type
        )
    return StepCall(recorded, functools.partial(fn, *args), _is_async(fn), options, result_type)


def _default_name(fn: object, plain: Callable[..., object], is_lambda: bool) -> str:
    if is_lambda or not hasattr(plain, "__qualname__"):
        what = "A lambda" if is_lambda else f"A {type(fn).__qualname__}"
        raise DefinitionError(
            f"{what} has no name to record: write run_step(..., name='what-it-does')."
        )
    return qualified_name(plain)


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


async def settled_lambda(fn: Callable[..., Any], args: tuple[object, ...]) -> Any:
    """Call a lambda in a thread: nothing says whether it blocks, or gives a coroutine to await here."""
    result: Any = await asyncio.to_thread(fn, *args)
    return await result if inspect.isawaitable(result) else result


async def _awaited(call: StepCall) -> Any:
    return await call.call() if call.is_async else await asyncio.to_thread(call.call)
