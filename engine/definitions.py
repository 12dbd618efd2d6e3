"""Workflows as users write them: the `@workflow` decorator, and the catalogue of what was declared.

`step` is in `step_definitions.py`, `run_step` in `run_step.py`; they can be imported from here as well.
"""

import functools
import hashlib
import inspect
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from refold.engine.annotations import calling_frame, local_names, signature_of
from refold.engine.bound import Bound
from refold.engine.input_type import InputType
from refold.engine.payload import PayloadType
from refold.engine.run_step import run_step, run_step_sync
from refold.engine.scope import StepContext, current
from refold.engine.step_definitions import (
    AsyncStep,
    SyncStep,
    checked_name,
    require_function,
    step,
)
from refold.log.attributes import RESERVED
from refold.log.errors import DefinitionError, UsageError
from refold.log.layout import check_pool

__all__ = [
    "AsyncStep",
    "AsyncWorkflow",
    "Catalogue",
    "SyncStep",
    "SyncWorkflow",
    "Workflow",
    "run_step",
    "run_step_sync",
    "step",
    "workflow",
]

P = ParamSpec("P")
R = TypeVar("R")

_HASH_BYTES = 8  # tells versions of one function apart; it is no proof of anything
_MAX_VERSION = 2**63 - 1  # what the log's column holds


class Workflow(Generic[P, R]):
    """A function as a durable workflow. Made by `@workflow`; `Engine.start` runs it.

    Attributes:
        name: The recorded name: runs that are under way find their code by it.
        version: Which version of the code under that name this is: a run stays on the one that it was started with.
        fn: The function itself, to be called plainly.
        is_async: Whether it is `async def`.
        pool: The pool of workers that has its code; None where all have it.
        queue: The queue in which its runs wait where a start names none; None for none.
        input_type: How its arguments are checked and recorded.
        result_type: How its result is recorded and comes back.
        source: Where it is defined, as `file:line`.
    """

    name: str
    version: int
    pool: str | None
    queue: str | None
    is_async: bool
    result_type: PayloadType[R]

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        version: int,
        frame: FrameType | None,
        pool: str | None = None,
        *,
        queue: str | None = None,
    ) -> None:
        local = local_names(fn, frame)
        self.name = name
        self.version = version
        self.pool = pool
        self.queue = queue
        self.fn = fn
        self.is_async = inspect.iscoroutinefunction(fn)
        self.input_type = InputType.of(fn, name, local)
        self.result_type = PayloadType.of_return(fn, f"result of workflow {name!r}", local)
        self.source = _source_of(fn)
        # Not its __dict__: a function's own attributes are not a workflow's.
        functools.update_wrapper(cast("Callable[..., Any]", self), fn, updated=())

    def __repr__(self) -> str:
        version = "" if self.version == 1 else f" version {self.version}"
        return f"<workflow {self.name!r}{version} at {self.source}>"

    @property
    def key(self) -> "Key":
        """What it is among all definitions: two with the same key are one that was redefined.

        The recorded name and version are part of it: the `def` of version 2 may shadow that of version 1, which is
        still needed, and a function that makes workflows makes all of them with one qualified name.
        """
        return self.fn.__module__, self.fn.__qualname__, self.name, self.version

    @functools.cached_property
    def code_hash(self) -> str:
        """16 hex digits that change with the function's source, or its byte code where there is no source."""
        try:
            text = inspect.getsource(self.fn).encode()
        except (OSError, TypeError):
            text = inspect.unwrap(self.fn).__code__.co_code
        return hashlib.blake2b(text, digest_size=_HASH_BYTES).hexdigest()

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[R]:
        """This workflow with its input, checked and encoded, for `Engine.start`.

        Raises:
            PayloadError: An argument is missing, unexpected or does not fit its annotation.
        """
        return Bound(self, self.input_type.encode(args, kwargs), self.result_type)

    def check(self) -> None:
        """Evaluate all annotations now, so that a mistake in them is told before the first start.

        Raises:
            DefinitionError: One can't be evaluated, or its type has no JSON form.
        """
        self.input_type.check()
        self.result_type.check()

    def _refuse_inside(self) -> None:
        """A workflow that is called in a workflow or step would run with no record of its own, unnoticed."""
        scope = current()
        if scope is None:
            return
        if isinstance(scope, StepContext):
            inside, instead = (
                f"step {scope.step}",
                "return to the workflow, and start it from there:",
            )
        else:
            inside, instead = "the code", "to have it run as a child, write"
        raise UsageError(
            f"Workflow {self.name!r} was called in {inside} of workflow {scope.workflow_id!r}, where a plain call "
            f"would leave no record: {instead} `await run_child(...)`, or `run_child_sync` in a `def` "
            "workflow. To run its code as a part of the caller, take what they share into a function of its own."
        )


class AsyncWorkflow(Workflow[P, R]):
    """An `async def` workflow."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Call the function plainly, with plain steps and nothing recorded: for unit tests.

        Raises:
            UsageError: The caller is workflow code or a step.
        """
        self._refuse_inside()
        plain: Coroutine[Any, Any, R] = self.fn(*args, **kwargs)
        return plain


class SyncWorkflow(Workflow[P, R]):
    """A `def` workflow."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function plainly, with plain steps and nothing recorded: for unit tests.

        Raises:
            UsageError: The caller is workflow code or a step.
        """
        self._refuse_inside()
        plain: R = self.fn(*args, **kwargs)
        return plain


class WorkflowDecorator(Protocol):
    """What `@workflow(...)` gives."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncWorkflow[P, R]: ...


@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncWorkflow[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
@overload
def workflow(fn: Callable[P, R], /) -> SyncWorkflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: int = 1,
    pool: str | None = None,
    queue: str | None = None,
) -> WorkflowDecorator: ...
def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 1,
    pool: str | None = None,
    queue: str | None = None,
) -> object:
    """Make a function a durable workflow: an ordinary `def` or `async def` whose outside work is in steps.

    Args:
        fn: The function, where the decorator is used without parentheses.
        name: The recorded name; the function's own where not given. Runs that are under way find their code by it, so
            a function that may be renamed has a name of its own.
        version: 1, 2, 3, ...: several versions under one name stand beside each other. A new run takes the newest,
            and a run that is under way stays on the one that it was started with.
        pool: The pool of workers that has its code, where not all have it: ids of its runs end with the pool's name, as
            in `film-7@gpu`. See docs/pools.md.
        queue: The queue in which its runs wait for their turn where a start names none. See docs/queues.md.

    Returns:
        A `Workflow`, to be started with `Engine.start`.

    Raises:
        DefinitionError: The function can't be a workflow.
    """

    def decorate(fn: Callable[..., Any]) -> Workflow[..., Any]:
        return _define(fn, name, version, calling_frame(), pool, queue=queue)

    _check_version(version)
    if pool is not None:
        try:
            check_pool(pool)
        except UsageError as error:
            raise DefinitionError(f"@workflow(pool={pool!r}): {error}") from error
    if queue is not None:
        checked_name(queue, "queue")
    return (
        decorate if fn is None else _define(fn, name, version, calling_frame(), pool, queue=queue)
    )


def _check_version(version: object) -> None:
    if (
        isinstance(version, bool)
        or not isinstance(version, int)
        or not 1 <= version <= _MAX_VERSION
    ):
        raise DefinitionError(
            f"@workflow(version={version!r}): a version is a whole number from 1 upwards. Count up by one for code "
            f"that runs of the last version can't go on with."
        )


def _define(
    fn: Callable[..., Any],
    name: str | None,
    version: int,
    frame: FrameType | None,
    pool: str | None,
    *,
    queue: str | None,
) -> Workflow[..., Any]:
    function = require_function(fn, "workflow", "@workflow")
    if function.__name__ == "<lambda>":
        raise DefinitionError(
            "@workflow can't make a workflow of a lambda: write it as a function with `def`."
        )
    if next(iter(signature_of(function).parameters), "") in ("self", "cls"):
        raise DefinitionError(
            f"@workflow can't make a workflow of the method {function.__qualname__}: an instance can't be brought back "
            f"after a crash. Write a function that takes what it needs as arguments."
        )
    recorded = checked_name(name if name is not None else function.__name__, "workflow")
    if recorded.startswith(RESERVED):
        raise DefinitionError(
            f"A workflow can't have the name {recorded!r}: names that begin with {RESERVED!r} are refold's own."
        )
    kind = (
        AsyncWorkflow[..., Any] if inspect.iscoroutinefunction(function) else SyncWorkflow[..., Any]
    )
    defined = kind(function, recorded, version, frame, pool, queue=queue)
    _declared[defined.key] = defined
    return defined


def bound_of(workflow: Bound[Any] | Workflow[..., Any], args: tuple[object, ...]) -> Bound[Any]:
    """A workflow with its input, checked before anything is recorded.

    Raises:
        UsageError: It is no workflow, or has its input and is given more.
        PayloadError: The input does not fit its parameters.
    """
    if isinstance(workflow, Workflow):
        return workflow.bind(*args)
    # Not every caller has a type checker.
    if not isinstance(workflow, Bound):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            f"{workflow!r} is no workflow: decorate the function with @workflow, then start that"
        )
    if args:
        raise UsageError(
            f"workflow {workflow.workflow.name!r} was bound to its input, and given more arguments beside it"
        )
    return workflow


def _source_of(fn: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "unknown"


Key = tuple[str, str, str, int]
"""Module, qualified name, recorded name and version of a definition."""

_declared: dict[Key, Workflow[..., Any]] = {}
"""What `@workflow` has declared in this process; a redefinition replaces.

A list of declarations, as `sys.modules` is one of imports, and no shared state: it is written when a module is
imported, and an engine copies it when it is made. No engine writes to it or sees another one in it.
"""


class Catalogue(Mapping[str, Workflow[..., Any]]):
    """An engine's workflows, by name and version. As a mapping: from a name to its newest version.

    Looking up a name and version that two definitions share raises `DefinitionError`.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, dict[int, dict[Key, Workflow[..., Any]]]] = {}

    @classmethod
    def of(cls, workflows: Iterable[Workflow[..., Any]]) -> "Catalogue":
        """The catalogue of the given workflows.

        Raises:
            DefinitionError: Two of them have one name and version.
        """
        catalogue = cls()
        for definition in workflows:
            catalogue.add(definition)
        return catalogue

    @classmethod
    def declared(cls) -> "Catalogue":
        """The catalogue of all that this process has declared so far.

        Two workflows with one name and version are no error here, for one of them may be in a module that has nothing
        to do with this engine; looking that name up is.
        """
        catalogue = cls()
        for definition in list(_declared.values()):
            catalogue._named(definition)[definition.key] = definition
        return catalogue

    def add(self, definition: Workflow[..., Any]) -> None:
        """Take in one more; a redefinition of the same function replaces it.

        Raises:
            DefinitionError: Another workflow has its name and version. Nothing was changed.
        """
        named = self._by_name.get(definition.name, {}).get(definition.version, {})
        if any(key != definition.key for key in named):
            raise _ambiguous([*named.values(), definition])
        self._named(definition)[definition.key] = definition

    def find(self, name: str, version: int | None = None) -> Workflow[..., Any]:
        """The workflow of that name and version.

        Args:
            name: The recorded name.
            version: None for the newest that is here.

        Raises:
            KeyError: There is none; its argument says so in a sentence, with what there is.
            DefinitionError: There are several.
        """
        versions = self._by_name.get(name)
        if versions is None:
            raise KeyError(self._no_name(name))
        if version is None:
            version = max(versions)
        definitions = versions.get(version)
        if definitions is None:
            raise KeyError(self._no_version(name, version))
        if len(definitions) > 1:
            raise _ambiguous(list(definitions.values()))
        return next(iter(definitions.values()))

    def versions(self, name: str) -> list[int]:
        """The versions of that name, oldest first; empty where there are none."""
        return sorted(self._by_name.get(name, ()))

    def definitions(self) -> list[Workflow[..., Any]]:
        """Every version of every workflow."""
        return [
            definition
            for versions in self._by_name.values()
            for definitions in versions.values()
            for definition in definitions.values()
        ]

    def __getitem__(self, name: str) -> Workflow[..., Any]:
        """The newest version of the workflow of that name.

        Raises:
            KeyError: There is none.
            DefinitionError: There are several.
        """
        return self.find(name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def _named(self, definition: Workflow[..., Any]) -> dict[Key, Workflow[..., Any]]:
        versions = self._by_name.setdefault(definition.name, {})
        return versions.setdefault(definition.version, {})

    def _no_name(self, name: str) -> str:
        known = ", ".join(map(self._with_versions, sorted(self._by_name))) or "none"
        return (
            f"workflow {name!r} is not registered with the worker, which knows: {known}. "
            "Check the name, or start a worker that has it"
        )

    def _no_version(self, name: str, version: int) -> str:
        return (
            f"version {version} of workflow {name!r} is not registered with the worker, which knows: "
            f"{self._with_versions(name)}. Start a worker that has it, with @workflow(version={version}) in its code"
        )

    def _with_versions(self, name: str) -> str:
        versions = self.versions(name)
        word = "version" if len(versions) == 1 else "versions"
        return f"{name} ({word} {', '.join(map(str, versions))})"


def _ambiguous(definitions: list[Workflow[..., Any]]) -> DefinitionError:
    name, version = definitions[0].name, definitions[0].version
    places = " and ".join(dict.fromkeys(definition.source for definition in definitions))
    return DefinitionError(
        f"The name {name!r} means several workflows of version {version}: {places}. Give one of them another name, "
        f"@workflow(name=...), or, where it is newer code for the same, another version, @workflow(version=...); or "
        f"list an engine's workflows: Engine(..., workflows=[...])."
    )
