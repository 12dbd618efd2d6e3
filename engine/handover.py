"""Steps that go on in a worker which has handed their partition over, and what the next owner hears of them.

A partition moves at once; a step under way would be cut off by that and run again. So the owner that gives a partition
up says in its last event which steps go on (`PartitionHandedOver`), and reports what becomes of each by a command to
the next owner (`ReportStep`), which records it as if it had carried the step out itself. The next owner waits until
the time that the event names, and until it has consumed every command that was there when it took over; a step that it
has not heard of by then it begins again: the worker may have died.

What a step writes to a stream meanwhile goes out with its report, not before.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from refold.engine.active import Items
from refold.engine.blobs import IN_RECORDS, Blob, Blobs
from refold.engine.effects import AttemptFailed, Launch, StepResult, Succeeded
from refold.engine.failures import Failure
from refold.engine.privacy import Role
from refold.log.commands import ReportStep
from refold.log.errors import LogCorrupt, LogError

RETRY_S: Final = 0.2

logger = logging.getLogger("refold.worker")


def report(
    launch: Launch, result: StepResult | None, items: Sequence[Items], at: int
) -> ReportStep:
    """The command that tells what became of an attempt.

    Args:
        launch: The attempt.
        result: What became of it; None where it was not begun after all.
        items: What it wrote to streams since the partition was handed over, in order.
        at: Microseconds since 1970-01-01 UTC.
    """
    told: dict[str, Any] = {"items": [[i.stream, i.payload, i.count] for i in items]}
    match result:
        case Succeeded():
            told |= {"result": result.payload, "started_at": result.started_at}
        case AttemptFailed(failure=failure):
            told |= {
                "error": [
                    failure.error_type,
                    failure.error_message,
                    failure.error_stack,
                    failure.payload,
                ],
                "retryable": result.retryable,
                "started_at": result.started_at,
            }
        case None:
            pass
    return ReportStep(
        command_id=f"{launch.workflow_id}/{launch.step}/{launch.attempt}/report",
        workflow_id=launch.workflow_id,
        reply_to=None,
        requested_at=at,
        step=launch.step,
        attempt=launch.attempt,
        payload=json.dumps(told),
    )


def read_report(command: ReportStep) -> tuple[StepResult | None, list[Items]]:
    """What a report tells: what became of the attempt (None: not begun), and what it wrote.

    Raises:
        LogCorrupt: It is not what `report` writes.
    """
    try:
        told: dict[str, Any] = json.loads(command.payload)
        items = [Items(*values) for values in told["items"]]
        if "result" in told:
            return Succeeded(told["result"], told["started_at"]), items
        if "error" in told:
            failure = Failure(*told["error"])
            return AttemptFailed(failure, told["retryable"], told["started_at"]), items
    except (ValueError, TypeError, KeyError) as error:
        raise LogCorrupt(f"the report of a step can't be read: {error!r}") from error
    return None, items


class Reporter:
    """Reports the steps that went on when their partition was handed over.

    Args:
        append: Appends commands to the partition.
        clock: Microseconds since 1970-01-01 UTC.
        blobs: Where large payloads are put.
    """

    def __init__(
        self,
        append: Callable[[Sequence[ReportStep]], Awaitable[object]],
        clock: Callable[[], int],
        blobs: Blobs = IN_RECORDS,
    ) -> None:
        self._append = append
        self._clock = clock
        self._blobs = blobs
        self._unwritten: list[Blob] = []
        self._items: dict[tuple[str, int], list[Items]] = {}
        self._reports: list[ReportStep] = []

    def wrote(self, launch: Launch, items: Items) -> None:
        """A step has written to a stream."""
        self._items.setdefault((launch.workflow_id, launch.step), []).append(items)

    def done(self, launch: Launch, result: StepResult | None) -> None:
        """An attempt has ended, or was not begun."""
        items = self._items.pop((launch.workflow_id, launch.step), [])
        items = [
            Items(i.stream, self._lifted(self._protected(launch, i.payload, "stream")), i.count)
            for i in items
        ]
        if isinstance(result, Succeeded):
            payload = self._protected(launch, result.payload, "step")
            result = Succeeded(self._lifted(payload), result.started_at)
        elif result is not None:
            result = self._protected_failure(launch, result)
        self._reports.append(report(launch, result, items, self._clock()))

    async def send(self, until: Callable[[], bool]) -> None:
        """Append the reports that there are; where the log is away, again until `until` says that it is late."""
        while self._reports:
            reports, blobs = self._reports[:], self._unwritten[:]
            try:
                for blob in blobs:
                    await self._blobs.put(blob)
                await self._append(reports)
            except LogError as error:
                if until():
                    logger.warning(
                        "%d steps that ended after their partition was handed over could not be reported, "
                        "and will run again: %s",
                        len(self._reports),
                        error,
                    )
                    return
                await asyncio.sleep(RETRY_S)
                continue
            del self._reports[: len(reports)]
            del self._unwritten[: len(blobs)]

    def _protected(self, launch: Launch, text: str, role: Role) -> str:
        privacy = self._blobs.privacy
        if privacy is None or launch.key is None:
            return text
        return privacy.protect(text, launch.key, role, launch.workflow_id)

    def _protected_failure(self, launch: Launch, result: AttemptFailed) -> AttemptFailed:
        failure = result.failure
        stack, payload = failure.error_stack, failure.payload
        failure = Failure(
            failure.error_type,
            self._protected(launch, failure.error_message, "error"),
            None if stack is None else self._protected(launch, stack, "error"),
            None if payload is None else self._protected(launch, payload, "error"),
        )
        return replace(result, failure=failure)

    def _lifted(self, payload: str) -> str:
        """A payload as it is reported: a reference in place of a large one, which is put before."""
        blob = self._blobs.lift(payload)
        if blob is None:
            return payload
        self._unwritten.append(blob)
        return blob.text
