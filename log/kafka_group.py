"""Who shares a namespace's partitions, and how far behind they are, as the consumer group tells everybody."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from refold.log.errors import LogError
from refold.log.findings import Finding, fail, ok, warn
from refold.log.kafka_client import (
    EARLIEST,
    LATEST,
    Admin,
    Clients,
    TopicPartition,
    offsets_of,
    topic_partition,
)
from refold.log.kafka_settings import Topics
from refold.log.layout import Layout
from refold.log.protocol import Backlog, Channel

T = TypeVar("T")

LAG_WARN = 1_000
"""Commands that wait in a partition: workers take thousands a second, so this is not the traffic of a moment."""


@dataclass(frozen=True, slots=True)
class GroupReport:
    """What the group says.

    Args:
        findings: What there is to tell.
        holders: Client id of the member that each assigned partition is assigned to.
    """

    findings: Sequence[Finding]
    holders: dict[int, str]


class Progress:
    """How far a group has worked through a topic, as its members let it know, and whether it has members.

    Args:
        clients: What makes the client that asks; it is kept from one question to the next.
        group: The group's id.
        places: The partitions.
    """

    def __init__(self, clients: Clients, group: str, places: Sequence[TopicPartition]) -> None:
        self._clients = clients
        self._group = group
        self._places = places
        self._admin: Admin | None = None
        self._one_at_a_time = threading.Lock()
        self._closed = False

    def read(self) -> dict[int, Backlog]:
        """For each partition of which something is known, the offset that is worked on next, and the end. Blocks.

        Raises:
            LogUnavailable: The group or the topic can't be asked now.
        """

        def backlogs(admin: Admin) -> dict[int, Backlog]:
            offsets = _committed(admin, self._group, self._places)
            known = {place: offset for place, offset in offsets.items() if offset >= 0}
            ends = offsets_of(admin, known, LATEST)
            return {p.partition: Backlog(done, ends[p]) for p, done in known.items()}

        return self._asked(f"asking how far the group {self._group} is", backlogs, {})

    def is_deserted(self) -> bool:
        """Whether nobody is in the group. Blocks.

        Raises:
            LogUnavailable: The group can't be asked now.
        """

        def is_empty(admin: Admin) -> bool:
            return not admin.describe_groups([self._group])[self._group]["members"]

        return self._asked(f"asking who is in the group {self._group}", is_empty, False)

    def _asked(self, doing: str, question: Callable[[Admin], T], unknown: T) -> T:
        """The answer; `unknown` once this is closed."""
        with self._one_at_a_time:
            if self._closed:
                return unknown
            try:
                with self._clients.errors(doing):
                    self._admin = self._admin or self._clients.admin()
                    return question(self._admin)
            except LogError:
                self._forget()
                raise

    def close(self) -> None:
        """Free the client. Blocks. From now on nothing is known."""
        with self._one_at_a_time:
            self._closed = True
            self._forget()

    def _forget(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()


def _committed(
    admin: Admin, group: str, places: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """What the group has committed; -1 where it has not."""
    committed = admin.list_group_offsets({group: places})[group]
    return {place: committed[place].offset if place in committed else -1 for place in places}


def group_findings(admin: Admin, topics: Topics, layout: Layout) -> GroupReport:
    """Look at the groups (one for the common partitions, one for each pool) and their lag. Blocks.

    Args:
        admin: Asks the cluster.
        topics: The namespace's.
        layout: Its partitions.
    """
    findings: list[Finding] = []
    all_holders: dict[int, str] = {}
    for pool in (None, *(name for name, _ in layout.pools)):
        name, partitions = topics.group(pool), layout.of(pool)
        group = admin.describe_groups([name])[name]
        holders = _holders(group["members"], topics.of(Channel.COMMANDS))
        lags = _lags(admin, topics, name, partitions)
        findings += _members(name, group, holders, partitions)
        findings += _behind(lags, bool(holders))
        all_holders |= holders
    return GroupReport(findings, all_holders)


def _holders(members: Sequence[Mapping[str, Any]], commands: str) -> dict[int, str]:
    return {
        partition: str(member["client_id"])
        for member in members
        if member["member_assignment"]  # empty while the group agrees
        for assigned in member["member_assignment"]["assigned_partitions"]
        if assigned["topic"] == commands
        for partition in assigned["partitions"]
    }


def _members(
    name: str, group: Mapping[str, Any], holders: Mapping[int, str], partitions: Sequence[int]
) -> Iterator[Finding]:
    members = group["members"]
    if not members:
        yield warn(
            "workers",
            f"no worker is there: the group {name} has no member",
            "start one: `refold worker MODULE --url ...`",
        )
        return
    names = ", ".join(
        sorted(
            f"{member['client_id']} at {member['client_host'].lstrip('/')}" for member in members
        )
    )
    yield ok("workers", f"{len(members)} in the group {name}: {names}")
    if group["group_state"] != "Stable":
        yield warn(
            "workers",
            f"the group is about to share the partitions out anew (state {group['group_state']})",
            "ask again in some seconds; if it stays so, workers come and go: look at their logs",
        )
        return
    unassigned = [partition for partition in partitions if partition not in holders]
    if unassigned:
        yield fail(
            "workers",
            f"no worker has the partitions {unassigned}, though the group is stable",
            "restart the workers one by one",
        )


def _lags(
    admin: Admin, topics: Topics, group: str, partitions: Sequence[int]
) -> dict[int, tuple[int, bool]]:
    """For each partition: commands that the group has not worked through, and whether it has ever said so."""
    topic = topics.of(Channel.COMMANDS)
    places = {partition: topic_partition(topic, partition) for partition in partitions}
    offsets = _committed(admin, group, list(places.values()))
    ends = offsets_of(admin, places.values(), LATEST)
    starts = offsets_of(admin, places.values(), EARLIEST)
    return {
        p: (ends[place] - max(offsets[place], starts[place]), offsets[place] >= 0)
        for p, place in places.items()
    }


def _behind(lags: Mapping[int, tuple[int, bool]], attended: bool) -> Iterator[Finding]:
    waiting = {partition: lag for partition, (lag, _) in lags.items() if lag > 0}
    for partition, lag in waiting.items():
        if lag >= LAG_WARN or not attended:
            yield warn(
                "lag",
                f"{lag:,} commands of partition {partition} wait",
                "start more workers, up to one a partition; look at whether a worker is stuck"
                if attended
                else "start a worker: nobody takes them up",
            )
    if attended and all(lag < LAG_WARN for lag in waiting.values()):
        yield ok("lag", f"{sum(waiting.values()):,} commands wait in {len(lags)} partitions")
