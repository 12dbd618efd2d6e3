"""The steps of pools that this process has: what `@step(pool=...)` has declared, or what an engine was given."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from refold.engine.pool_messages import PoolStep
from refold.log.errors import DefinitionError

if TYPE_CHECKING:
    from refold.engine.step_definitions import AsyncStep, SyncStep

_declared: "dict[tuple[str, str, PoolStep], AsyncStep[..., Any] | SyncStep[..., Any]]" = {}
"""By module, qualified name and recorded name; a redefinition replaces. A list of declarations, as that of workflows
in `definitions.py`, and no shared state."""


def declare(step: "AsyncStep[..., Any] | SyncStep[..., Any]") -> None:
    """Take note of a step, where it has a pool."""
    pool = step.options.pool
    if pool is not None:
        key = step.fn.__module__, step.fn.__qualname__, PoolStep(pool, step.name)
        _declared[key] = step


def declared() -> "list[AsyncStep[..., Any] | SyncStep[..., Any]]":
    """All steps of pools that this process has declared so far."""
    return list(_declared.values())


def steps_of(
    pools: Iterable[str],
    steps: "Iterable[AsyncStep[..., Any] | SyncStep[..., Any]]",
    with_workflows: Iterable[str | None] = (),
) -> "Mapping[PoolStep, AsyncStep[..., Any] | SyncStep[..., Any]]":
    """The steps of some pools.

    Args:
        pools: Names of the pools.
        steps: The steps that there are.
        with_workflows: Pools that have workflows here, and need have no step.

    Raises:
        DefinitionError: A pool has neither step nor workflow, or two steps with one name.
    """
    found: dict[PoolStep, AsyncStep[..., Any] | SyncStep[..., Any]] = {}
    wanted = set(pools)
    for step in steps:
        pool = step.options.pool
        if pool is None or pool not in wanted:
            continue
        other = found.setdefault(PoolStep(pool, step.name), step)
        if other is not step:
            raise DefinitionError(
                f"Pool {pool!r} has two steps named {step.name!r}, {other.fn.__module__}.{other.fn.__qualname__} and "
                f"{step.fn.__module__}.{step.fn.__qualname__}: give one of them another name=."
            )
    for pool in sorted(wanted - {step.pool for step in found} - {*with_workflows}):
        raise DefinitionError(
            f"There is no step or workflow of pool {pool!r} here: import the module that has it, or write "
            f"@step(pool={pool!r}) or @workflow(pool={pool!r})."
        )
    return found
