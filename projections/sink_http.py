"""Events as CloudEvents (v1.0.2, HTTP protocol binding, structured or batched mode) to a receiver of one's own.

At least once: what was sent and not answered is sent again, so the receiver drops repeats by `id`, which is the
event's `event_id`. Events go out in the order of their partition, and a position is saved only after a 2xx.

    id               event_id, unique in the namespace        type         refold. and the kind: refold.step.completed
    source           /refold/NAMESPACE                        subject      workflow_id, where it has one
    time             recorded_at                              partitionkey workflow_id (the partitioning extension)
    sequence         position in the workflow's stream, where it has one (the sequence extension)
    data             the event's columns as JSON, null ones left out

How far it has come is kept in a file here, since a receiver can't. Processes that share the partitions share that file,
and send side by side. While a partition moves from one to the other, both may send the same events; what a receiver
sees for the first time is in order all the same, since each sends on from what is noted.
"""

import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from refold.log.archive_disk import Disk
from refold.log.errors import UsageError
from refold.log.events import PartitionClaimed
from refold.projections.feed import Logged, Position
from refold.projections.sink_files import ManifestFile
from refold.projections.sink_jsonl import json_rows
from refold.projections.sink_note import Note
from refold.projections.sink_rows import Columns
from refold.projections.store import Identity
from refold.projections.target import Step, TargetError, TargetUnavailable

_TIMEOUT_S: Final = 30.0
_PAUSES_S: Final = (0.1, 0.5, 2.0, 5.0, 10.0)
"""Between attempts at one request: some 18 s in all, a restart of a receiver."""
_AGAIN: Final = frozenset({408, 425, 429})
"""Answers of class 4 that mean "later", as every 5xx does; any other 4xx means "never"."""
_MAX_TOLD: Final = 300


class TargetRefused(TargetError):
    """The receiver does not take an event: nothing after it is sent until somebody has looked."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How events are sent.

    Args:
        batch: How many in a request; 1 sends each on its own (`application/cloudevents+json`).
        authorization: The header of that name; None for none.
        pauses_s: Before a request is tried again, in seconds; it fails after the last.
        timeout_s: How long to wait for an answer, in seconds.
    """

    batch: int = 1
    authorization: str | None = None
    pauses_s: tuple[float, ...] = _PAUSES_S
    timeout_s: float = _TIMEOUT_S


class HttpTarget:
    """A receiver of CloudEvents. See `Target`.

    Args:
        url: Where to POST.
        state: The file that keeps the positions.
        source: The log.
        columns: What `data` has.
        settings: How to send.
        pause: Waits so many seconds.
    """

    def __init__(  # noqa: PLR0917 - what a receiver needs besides
        self,
        url: str,
        state: Path,
        source: Identity,
        columns: Columns,
        settings: HttpSettings | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests = _Requests(url, settings or HttpSettings(), pause)
        self._settings = settings or HttpSettings()
        self._columns = columns
        self._source = source
        self._saved = ManifestFile(
            state, state.with_name(f"{state.name}.lock"), Note(source, columns.kinds), Disk()
        )

    @property
    def name(self) -> str:
        """See `Target`."""
        return f"http {self._requests.shown}"

    @property
    def group(self) -> str:
        """The group of those that share the partitions for this state; known once it is open."""
        return self._saved.group

    def open(self) -> None:
        """See `Target`; the receiver is called when there is something to send."""
        with self._saved.locked():
            pass

    def positions(self) -> Mapping[int, Position]:
        """See `Target`."""
        return self._saved.reload().positions

    def write(self, logged: Sequence[Logged], steps: Mapping[int, Step]) -> None:
        """See `Target`; where it fails on the way, the position is that of what was taken.

        Raises:
            TargetRefused: The receiver answered that it will not take an event.
            TargetUnavailable: It can't be reached, or says so of itself.
        """
        self._saved.reload()
        self._saved.check(steps)
        reached = {number: step.before for number, step in steps.items() if step.before is not None}
        size = self._settings.batch
        try:
            for first in range(0, len(logged), size):
                part = logged[first : first + size]
                events = [
                    cloud_event(self._source, one, data)
                    for one, data in zip(part, json_rows(self._columns, part), strict=True)
                ]
                self._requests.send(events, batched=size > 1)
                reached |= {one.partition: _after(one, reached.get(one.partition)) for one in part}
            reached = {number: step.after for number, step in steps.items()}
        finally:
            with self._saved.locked():
                self._saved.check(steps)
                self._saved.save(
                    self._saved.moved(
                        {number: Step(None, position) for number, position in reached.items()}
                    )
                )

    def close(self) -> None:
        """See `Target`."""
        self._requests.close()


def cloud_event(source: Identity, one: Logged, data: Mapping[str, object]) -> dict[str, object]:
    """An event with the attributes of CloudEvents.

    Args:
        source: The log.
        one: The event.
        data: Its columns, as JSON has them.
    """
    place = f"{one.partition}/{one.offset}"
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": data.get("event_id", f"unreadable/{place}"),
        "source": f"/refold/{quote(source.namespace, safe='')}",
        "type": f"refold.{data.get('kind', 'unreadable')}",
        "time": data.get("recorded_at", data["log_timestamp"]),
        "datacontenttype": "application/json",
    }
    if "workflow_id" in data:
        event |= {"subject": data["workflow_id"], "partitionkey": data["workflow_id"]}
    if "position" in data:
        event["sequence"] = str(data["position"])
    return {**event, "data": data}


def _after(one: Logged, before: Position | None) -> Position:
    """The position after one event."""
    event = one.event
    claim = one.offset if isinstance(event, PartitionClaimed) else event.claim
    if claim is None:  # a stranger's
        claim = Position().claim if before is None else before.claim
    return Position(one.offset + 1, claim)


class _Requests:
    """One connection that is kept, and made again when it is lost."""

    def __init__(self, url: str, settings: HttpSettings, pause: Callable[[float], None]) -> None:
        no_address = UsageError(f"{url!r} is no http:// or https:// address to send events to")
        try:
            parts = urlsplit(url)
            self._port = parts.port
        except ValueError as error:  # of a port, or an IPv6 address, that is none
            raise no_address from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise no_address
        if parts.username or parts.password:
            raise UsageError(
                "a login does not belong into the address: set REFOLD_SINK_AUTHORIZATION to what the header "
                "Authorization is to be, as in 'Bearer ...'"
            )
        self.shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._parts = parts
        self._path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        self._settings = settings
        self._pause = pause
        self._connection: http.client.HTTPConnection | None = None

    def send(self, events: Sequence[Mapping[str, object]], *, batched: bool) -> None:
        """POST events until they are taken."""
        form = "cloudevents-batch+json" if batched else "cloudevents+json"
        body = json.dumps(
            events if batched else events[0], ensure_ascii=False, separators=(",", ":")
        ).encode()
        headers = {"Content-Type": f"application/{form}; charset=utf-8"}
        if self._settings.authorization is not None:
            headers["Authorization"] = self._settings.authorization
        problem = ""
        for pause_s in (*self._settings.pauses_s, None):
            problem = self._try(body, headers, events)
            if not problem:
                return
            if pause_s is not None:
                self._pause(pause_s)
        raise TargetUnavailable(
            f"{self.shown} did not take the event {events[0]['id']!r}: {problem}. It was tried "
            f"{len(self._settings.pauses_s) + 1} times; what was taken before is noted, and goes on from there"
        )

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _try(
        self, body: bytes, headers: Mapping[str, str], events: Sequence[Mapping[str, object]]
    ) -> str:
        """One attempt; what was wrong, where another may help."""
        try:
            connection = self._connection = self._connection or self._connected()
            connection.request("POST", self._path, body, dict(headers))
            response = connection.getresponse()
            said = response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return f"{type(error).__name__}: {error}"
        if response.will_close:
            self.close()
        status = response.status
        if 200 <= status < 300:
            return ""
        answer = f"{status} {response.reason}: {said[:_MAX_TOLD]}"
        if status in _AGAIN or status >= 500:
            return answer
        raise TargetRefused(
            f"{self.shown} refuses the event {events[0]['id']!r}{_others(events)} with {answer}. Nothing after it is "
            "sent: mend the receiver (or the address), then begin again; it goes on there"
        )

    def _connected(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._port
        timeout_s = self._settings.timeout_s
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)


def _others(events: Sequence[object]) -> str:
    return f" (or one of the {len(events) - 1} sent with it)" if len(events) > 1 else ""
