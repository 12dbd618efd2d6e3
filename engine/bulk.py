"""Orders to many runs at once, by a filter: the part of the engine that an operator uses after an incident.

One path for all of them: the runs are found in the log, and each gets its order as from its handle, some at a time. One
that is refused does not stop the others. Every method has a twin for async code.
"""

from collections.abc import Sequence

from refold.engine.access import Access
from refold.engine.operator import ENDED, MENDABLE, OPEN, Order, check_step, check_version
from refold.engine.selection import BulkResult, Runs
from refold.engine.state import Status
from refold.log.errors import UsageError


class BulkOrders:
    """Gives orders to many runs. The engine's own; it sets what is named here."""

    _access: Access

    def resume_all(
        self, where: Runs, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """Let runs go on, as `Handle.resume`.

        Args:
            where: Which runs. Where it names no status: those that are parked or paused, or have failed.
            reason: Why, for the audit.
            dry_run: Only say which runs it would be done to.

        Returns:
            What it came to for each run, the latest started first.
        """
        done = self.resume_all_async(where, reason=reason, dry_run=dry_run)
        return self._access.bridge.wait(done, "resume_all_async()")

    async def resume_all_async(
        self, where: Runs, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """`resume_all` for async code."""
        operator = self._access.operator
        return await self._give(where, MENDABLE, lambda id: operator.resume(id, reason), dry_run)

    def cancel_all(
        self, where: Runs, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """Ask runs to cancel, as `Handle.cancel`; arguments as of `resume_all`, without a status: all that are open."""
        done = self.cancel_all_async(where, reason=reason, dry_run=dry_run)
        return self._access.bridge.wait(done, "cancel_all_async()")

    async def cancel_all_async(
        self, where: Runs, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """`cancel_all` for async code."""
        operator = self._access.operator
        return await self._give(where, OPEN, lambda id: operator.cancel(id, reason), dry_run)

    def terminate_all(
        self, where: Runs, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """End runs, as `Handle.terminate`; arguments as of `resume_all`, without a status: all that are open."""
        done = self.terminate_all_async(where, reason=reason, dry_run=dry_run)
        return self._access.bridge.wait(done, "terminate_all_async()")

    async def terminate_all_async(
        self, where: Runs, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """`terminate_all` for async code."""
        operator = self._access.operator
        return await self._give(
            where, OPEN | {Status.COPYING}, lambda id: operator.terminate(id, reason), dry_run
        )

    def pause_all(
        self, where: Runs, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """Halt runs, as `Handle.pause`; arguments as of `resume_all`, without a status: all that are running."""
        done = self.pause_all_async(where, reason=reason, dry_run=dry_run)
        return self._access.bridge.wait(done, "pause_all_async()")

    async def pause_all_async(
        self, where: Runs, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """`pause_all` for async code."""
        operator = self._access.operator
        return await self._give(
            where,
            frozenset({Status.RUNNING, Status.QUEUED}),
            lambda id: operator.pause(id, reason),
            dry_run,
        )

    def rewind_all(
        self, where: Runs, step: int, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """Take runs back to before an operation, as `Handle.rewind`.

        Args:
            where: Which runs, open or ended.
            step: Number of the first operation to be done again.
            reason: Why, for the audit.
            dry_run: Only say which runs it would be done to.

        Returns:
            What it came to for each run, the latest started first.

        Raises:
            UsageError: The step is no whole number from 0 on.
        """
        done = self.rewind_all_async(where, step, reason=reason, dry_run=dry_run)
        return self._access.bridge.wait(done, "rewind_all_async()")

    async def rewind_all_async(
        self, where: Runs, step: int, *, reason: str | None = None, dry_run: bool = False
    ) -> Sequence[BulkResult]:
        """`rewind_all` for async code."""
        check_step(step)
        operator = self._access.operator
        return await self._give(
            where, OPEN | ENDED, lambda id: operator.rewind(id, step, reason), dry_run
        )

    def fork_all(
        self,
        where: Runs,
        step: int | None = None,
        *,
        version: int | None = None,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> Sequence[BulkResult]:
        """Copy runs into new ones, as `Handle.fork`.

        Args:
            where: Which runs, open or ended.
            step: The operation before which each copy ends; None for all that is recorded.
            version: Version of their code; each run's own where not given.
            reason: Why, for the audit.
            dry_run: Only say which runs it would be done to.

        Returns:
            What it came to for each run, with the id of its fork, the latest started first.

        Raises:
            UsageError: The step or version can't be one.
        """
        done = self.fork_all_async(where, step, version=version, reason=reason, dry_run=dry_run)
        return self._access.bridge.wait(done, "fork_all_async()")

    async def fork_all_async(
        self,
        where: Runs,
        step: int | None = None,
        *,
        version: int | None = None,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> Sequence[BulkResult]:
        """`fork_all` for async code."""
        if step is not None:
            check_step(step)
        check_version(version)
        operator = self._access.operator
        return await self._give(
            where, OPEN | ENDED, lambda id: operator.fork(id, step, None, version, reason), dry_run
        )

    async def _give(
        self, where: Runs, applies_to: frozenset[Status], order: Order, dry_run: bool
    ) -> Sequence[BulkResult]:
        # Not every caller has a type checker, and what is no filter must not mean all runs.
        if not isinstance(where, Runs):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"{where!r} is no filter: give Runs(...), and Runs() for all runs")
        given = self._access.operator.to_all(where, applies_to, order, dry_run=dry_run)
        return await self._access.bridge.run(given)
