"""Steps as users write them: the `@step` decorator. (`run_step`, for functions without it, is in `run_step.py`.)

The same call means three things, and the scope that it is made in decides:

| called in | what happens |
|---|---|
| workflow code of the step's own kind | the run records the outcome, and replays it |
| workflow code of the other kind | `UsageError` that names the right spelling (`.sync`, `.aio`) |
| a step, or no workflow at all | a plain call of the function |
"""

import asyncio
import functools
import inspect
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import FrameType
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
)

from refold.engine.annotations import calling_frame, local_names, signature_of
from refold.engine.input_type import InputType
from refold.engine.operations import DurableScope, StepCall, StepOptions
from refold.engine.payload import MAX_PAYLOAD_BYTES, PayloadType, check_size
from refold.engine.pool_steps import declare
from refold.engine.retry import Retry
from refold.engine.scope import StepContext, current
from refold.log.errors import DefinitionError, UsageError

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

OnExhausted = Literal["fail", "park"]

MAX_NAME_CHARS = 200
"""Names stand in every event and in metrics; a longer one is a mistake."""


class _Step(Generic[P, R]):
    """What steps of both kinds are: a function, a name, and how to carry it out.

    Attributes:
        name: The recorded name.
        fn: The function itself, to be called plainly.
        options: Retries and timeouts.
        result_type: How the result is recorded and comes back.
        input_type: How the arguments are written for a worker of the step's pool; None where it has none.
    """

    name: str
    options: StepOptions
    result_type: PayloadType[Any]
    input_type: InputType | None

    def __init__(
        self, fn: Callable[..., Any], name: str, options: StepOptions, frame: FrameType | None
    ) -> None:
        self.fn, self._binding = _unbound(fn)
        self.name = name
        self.options = options
        local = local_names(self.fn, frame)
        self.result_type = PayloadType.of_return(self.fn, f"result of step {name!r}", local)
        self.input_type = None if options.pool is None else InputType(self.fn, name, local, "step")
        self._signature = signature_of(self.fn)
        self._fewest, self._most = _positional_range(self._signature)
        self._receiver: tuple[object, ...] = ()
        # Not its __dict__: a function's own attributes are not a step's.
        functools.update_wrapper(cast("Callable[..., Any]", self), self.fn, updated=())

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"

    def _bound_to(self, instance: object, owner: type[object] | None) -> Self:
        """This step as a method of `instance`."""
        if self._binding == "none":
            return self
        receiver = owner if self._binding == "class" else instance
        if receiver is None:
            return self
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound._receiver = (receiver,)
        return bound

    def _call(
        self, args: tuple[object, ...], kwargs: dict[str, object], is_async: bool
    ) -> StepCall:
        if self.input_type is not None:
            return self._pool_call(self.input_type, args, kwargs, is_async)
        args = self._receiver + args
        # Arguments that do not fit are the caller's mistake and raise there, not in the step's attempts. Binding in
        # full takes longer than all else here, and a plain count answers for most calls.
        if kwargs or not self._fewest <= len(args) <= self._most:
            self._signature.bind(*args, **kwargs)
        call = functools.partial(self.fn, *args, **kwargs)
        return StepCall(self.name, call, is_async, self.options, self.result_type)

    def _pool_call(
        self,
        input_type: InputType,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        is_async: bool,
    ) -> StepCall:
        """The call as a worker of the pool gets it: with its arguments as JSON."""
        if self._receiver:
            raise UsageError(
                f"step {self.name!r} of pool {self.options.pool!r} was called as a method: its object can't go to "
                "another worker. Make it a function, or a static method, and pass what it needs"
            )
        self._signature.bind(*args, **kwargs)
        text = input_type.encode(args, kwargs)
        check_size(text, MAX_PAYLOAD_BYTES, f"input of step {self.name!r}")
        call = functools.partial(self.fn, *args, **kwargs)
        return StepCall(self.name, call, is_async, self.options, self.result_type, text)

    def call_with(self, text: str) -> StepCall:
        """The call of a pool's step with arguments that came as JSON.

        Raises:
            PayloadError: They do not fit the step's parameters.
        """
        assert self.input_type is not None, "it has a pool"
        args, kwargs = self.input_type.decode(text)
        call = functools.partial(self.fn, *args, **kwargs)
        is_async = isinstance(self, AsyncStep)
        return StepCall(self.name, call, is_async, self.options, self.result_type, text)


class AsyncStep(_Step[P, R]):
    """An `async def` step. `await charge(order)` in `async def` workflows, `charge.sync(order)` in `def` workflows."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The step's awaitable result: durable in an `async def` workflow, a plain call in a step or outside.

        Raises:
            UsageError: The caller is a `def` workflow, which can't await: write `.sync(...)`.
            TypeError: The arguments do not fit the function, as in any call.
        """
        scope = current()
        if scope is None or isinstance(scope, StepContext):
            plain: Coroutine[Any, Any, R] = self.fn(*self._receiver, *args, **kwargs)
            return plain
        if scope.mode != "async":
            raise _wrong_spelling(scope, self, "async def", f"{self.fn.__name__}.sync(...)")
        return scope.perform(self._call(args, kwargs, is_async=True))

    def sync(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step from a `def` workflow and wait for it. In a step or outside, run it on a loop of its own.

        Raises:
            UsageError: The caller is an `async def` workflow, or runs on an event loop: write `await charge(...)`.
            TypeError: The arguments do not fit the function, as in any call.
        """
        scope = current()
        if scope is None or isinstance(scope, StepContext):
            plain: Callable[[], Coroutine[Any, Any, R]] = functools.partial(
                self.fn, *self._receiver, *args, **kwargs
            )
            return run_on_new_loop(plain, self)
        if scope.mode != "sync":
            raise _wrong_spelling(
                scope, self, "async def", f"await {self.fn.__name__}(...)", ".sync"
            )
        result: R = scope.perform_sync(self._call(args, kwargs, is_async=True))
        return result

    @overload
    def __get__(self, instance: None, owner: type[object]) -> Self: ...
    @overload
    def __get__(
        self: "AsyncStep[Concatenate[S, Q], R]", instance: S, owner: type[object] | None = None
    ) -> "AsyncStep[Q, R]": ...
    def __get__(self, instance: object, owner: type[object] | None = None) -> "AsyncStep[..., R]":
        """The step as a method."""
        return self._bound_to(instance, owner)


class SyncStep(_Step[P, R]):
    """A `def` step. `write(path)` in `def` workflows, `await write.aio(path)` in `async def` workflows."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The step's result: durable in a `def` workflow, a plain call in a step or outside.

        Raises:
            UsageError: The caller is an `async def` workflow, which it would block: write `await ....aio(...)`.
            TypeError: The arguments do not fit the function, as in any call.
        """
        scope = current()
        if scope is None or isinstance(scope, StepContext):
            plain: R = self.fn(*self._receiver, *args, **kwargs)
            return plain
        if scope.mode != "sync":
            raise _wrong_spelling(scope, self, "def", f"await {self.fn.__name__}.aio(...)")
        result: R = scope.perform_sync(self._call(args, kwargs, is_async=False))
        return result

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run the step from an `async def` workflow. In a step or outside, run it in a thread.

        Raises:
            UsageError: The caller is a `def` workflow: write `write(...)`.
            TypeError: The arguments do not fit the function, as in any call.
        """
        scope = current()
        if scope is None or isinstance(scope, StepContext):
            return asyncio.to_thread(self.fn, *self._receiver, *args, **kwargs)
        if scope.mode != "async":
            raise _wrong_spelling(scope, self, "def", f"{self.fn.__name__}(...)", ".aio")
        return scope.perform(self._call(args, kwargs, is_async=False))

    @overload
    def __get__(self, instance: None, owner: type[object]) -> Self: ...
    @overload
    def __get__(
        self: "SyncStep[Concatenate[S, Q], R]", instance: S, owner: type[object] | None = None
    ) -> "SyncStep[Q, R]": ...
    def __get__(self, instance: object, owner: type[object] | None = None) -> "SyncStep[..., R]":
        """The step as a method."""
        return self._bound_to(instance, owner)


class StepDecorator(Protocol):
    """What `@step(...)` gives: makes an `AsyncStep` of an `async def` function, a `SyncStep` of a `def` function."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncStep[P, R]: ...


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
@overload
def step(fn: Callable[P, R], /) -> SyncStep[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    on_exhausted: OnExhausted = "fail",
    pool: str | None = None,
) -> StepDecorator: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout_s: float | None = None,
    total_timeout_s: float | None = None,
    on_exhausted: OnExhausted = "fail",
    pool: str | None = None,
) -> object:
    """Make a function a step: a unit of outside work whose outcome is recorded once and replayed after.

    Works on `def` and `async def` functions and on methods. On class and static methods it stands outermost.

    Args:
        fn: The function, where the decorator is used without parentheses.
        name: The recorded name; the function's qualified name where not given. Renaming a step breaks the replay of
            workflows that are under way, so a step that may be renamed in code has a name of its own.
        retry: When a failed attempt is tried again; not at all where not given.
        timeout_s: Longest time of one attempt, in seconds.
        total_timeout_s: Longest time of all attempts with the pauses between them, in seconds.
        on_exhausted: When no attempt is left: "fail" raises the last error in the workflow, "park" puts the workflow
            aside for a person.
        pool: The pool of workers that carries it out; the worker that runs the workflow where not given. Its arguments
            go there as JSON, by their annotations.

    Returns:
        An `AsyncStep` or a `SyncStep`, to be called like the function.

    Raises:
        DefinitionError: The function can't be a step, or an option is out of its range.
    """
    options = options_of(retry, timeout_s, total_timeout_s, on_exhausted)
    if pool is not None:
        options = replace(options, pool=checked_name(pool, "pool"))

    def decorate(fn: Callable[..., Any]) -> AsyncStep[..., Any] | SyncStep[..., Any]:
        return _define(fn, name, options, calling_frame())

    return decorate if fn is None else _define(fn, name, options, calling_frame())


def _define(
    fn: Callable[..., Any], name: str | None, options: StepOptions, frame: FrameType | None
) -> AsyncStep[..., Any] | SyncStep[..., Any]:
    function = require_function(_unbound(fn)[0], "step", "@step")
    if name is None and function.__name__ == "<lambda>":
        raise DefinitionError(
            "A lambda has no name to record: pass @step a function made with `def`, or a name=."
        )
    recorded = checked_name(name if name is not None else qualified_name(function), "step")
    kind = AsyncStep[..., Any] if inspect.iscoroutinefunction(function) else SyncStep[..., Any]
    made = kind(fn, recorded, options, frame)
    declare(made)
    return made


def _unbound(
    fn: Callable[..., Any],
) -> tuple[Callable[..., Any], Literal["instance", "class", "none"]]:
    """The function in a class or static method, and what it is bound to when it is looked up."""
    holder: object = fn
    if isinstance(holder, classmethod):
        return cast("classmethod[Any, ..., Any]", holder).__func__, "class"
    if isinstance(holder, staticmethod):
        return cast("staticmethod[..., Any]", holder).__func__, "none"
    return fn, "instance"


def require_function(fn: object, what: str, decorator: str) -> Callable[..., object]:
    """`fn` if it is a plain function that gives one result.

    Args:
        fn: What was decorated.
        what: "step" or "workflow", for the message.
        decorator: The decorator's spelling, for the message.

    Raises:
        DefinitionError: It is a class, a generator function, or no function.
    """
    shown = getattr(fn, "__qualname__", repr(fn))
    if isinstance(fn, type):
        problem = "a class; decorate its method, or a function that makes the instance"
    elif isinstance(fn, AsyncStep | SyncStep):
        problem = "a step already; use one decorator"
    elif not _is_function(fn):
        problem = (
            f"a {type(fn).__qualname__} and no function; wrap it in a function made with `def`"
        )
    elif inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        problem = "a generator; return a list, or split the work into one call for each item"
    else:
        return cast("Callable[..., object]", fn)
    msg = f"{decorator} can't make a {what} of {shown}: it is {problem}."
    raise DefinitionError(msg)


def _is_function(fn: object) -> bool:
    """Whether `fn` is a function with a name of its own, of Python or of C.

    `isroutine` alone says yes to any descriptor; from Python 3.14 on a partial is one.
    """
    is_partial = isinstance(fn, functools.partial)
    named = callable(fn) and hasattr(fn, "__qualname__")
    return named and not is_partial and inspect.isroutine(fn)


def checked_name(name: str, what: str) -> str:
    """`name` if it can be recorded.

    Raises:
        DefinitionError: It is empty, too long, or has characters that can't be printed.
    """
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        shown = name[:MAX_NAME_CHARS]
        msg = f"A {what} can't have the name {shown!r}: it needs 1 to {MAX_NAME_CHARS} printable characters."
        raise DefinitionError(msg)
    return name


def qualified_name(fn: Callable[..., object]) -> str:
    """`Class.method` or `function`; functions around it are left out, since they say where and not what."""
    return fn.__qualname__.rpartition("<locals>.")[2]


def options_of(
    retry: Retry | None,
    timeout_s: float | None,
    total_timeout_s: float | None,
    on_exhausted: OnExhausted,
) -> StepOptions:
    """The options of a step, as `step` takes them.

    Raises:
        DefinitionError: One is out of its range.
    """
    for option, limit_s in (("timeout_s", timeout_s), ("total_timeout_s", total_timeout_s)):
        if limit_s is not None and not (math.isfinite(limit_s) and limit_s > 0):
            msg = f"A step can't have {option}={limit_s!r}: give a finite number of seconds above 0, or None."
            raise DefinitionError(msg)
    if on_exhausted not in ("fail", "park"):
        msg = f"A step can't have on_exhausted={on_exhausted!r}: it is 'fail' or 'park'."
        raise DefinitionError(msg)
    if retry is not None and not isinstance(cast("object", retry), Retry):
        msg = f"A step can't have retry={retry!r}: give a Retry, such as Retry(attempts=3)."
        raise DefinitionError(msg)
    return StepOptions(retry, timeout_s, total_timeout_s, on_exhausted)


def _positional_range(signature: inspect.Signature) -> tuple[int, float]:
    """Fewest and most arguments that fit when all are positional; an empty range where that can't be."""
    fewest, most = 0, 0.0
    for parameter in signature.parameters.values():
        required = parameter.default is inspect.Parameter.empty
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            most = math.inf
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if required:
                return 1, 0.0
        elif parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            fewest, most = fewest + required, most + 1
    return fewest, most


def _wrong_spelling(
    scope: DurableScope, step: _Step[..., Any], kind: str, right: str, spelled: str = ""
) -> UsageError:
    mode = "async def" if scope.mode == "async" else "def"
    called = f"{step.fn.__name__}{spelled}(...)"
    return UsageError(
        f"Workflow {scope.workflow_id!r} is `{mode}` and called `{called}`, but step {step.name!r} is `{kind}`: write "
        f"`{right}` there."
    )


def run_on_new_loop(call: Callable[[], Coroutine[Any, Any, R]], step: object) -> R:
    """Run an `async def` step outside of any workflow, on an event loop of its own.

    Args:
        call: Makes the coroutine.
        step: What the message names.

    Raises:
        UsageError: The calling thread runs an event loop already, which this would block.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(call())
    raise UsageError(
        f"{step!r} was called blocking (`sync`) on a thread that runs an event loop: `await` it there."
    )
