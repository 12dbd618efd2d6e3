"""All that there is to judge a fault run by: what was written down, what steps wrote, and the log's raw records.

A run's directory holds it all in files, so that a run can be judged again when its brokers have long gone.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, cast

from chaos_history import Recorded, load
from crash_audit import Audited, Begun, Journal, audit_records
from crash_exchange import News, add_news
from refold.log.codec import decode_command
from refold.log.commands import Command
from refold.log.events import Event, Unreadable
from refold.log.protocol import Channel, Log, Record

RECORDS: Final = "records"
DIGESTS: Final = "digests.json"
JOURNAL_FILE: Final = "journal"


@dataclass
class Case:
    """What there is to judge.

    Args:
        recorded: What clients did, what was broken, who lived.
        begun: The journal: attempts of steps.
        events: Records of each partition, from its first on.
        commands: The same of the commands.
        digests: Digest of each partition's fold, by who folded.
    """

    recorded: Recorded = field(default_factory=Recorded)
    begun: Sequence[Begun] = ()
    events: Sequence[Sequence[Record]] = ()
    commands: Sequence[Sequence[Record]] = ()
    digests: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    @cached_property
    def audited(self) -> Audited:
        """What the log's accepted records say."""
        return audit_records(self.events)

    @cached_property
    def news(self) -> News:
        """What owners have told each other."""
        news = News()
        for records in self.commands:
            add_news(records, news)
        return news

    @cached_property
    def asked(self) -> list[Command]:
        """All commands that can be read."""
        found = [decode_command(record) for records in self.commands for record in records]
        return [command for command in found if not isinstance(command, Unreadable)]

    def stream(self, workflow_id: str) -> Sequence[Event]:
        """The accepted events of a run, in order."""
        return self.audited.streams.get(workflow_id, ())

    def logged_us(self, event: Event) -> int:
        """When the log took an event, by the log's own clock."""
        return self.audited.places[event.workflow_id or "", event.position or 0].timestamp


async def dump(log: Log, directory: Path) -> None:
    """Write the raw records of an open log into a run's directory."""
    (directory / RECORDS).mkdir(exist_ok=True)
    for channel in (Channel.EVENTS, Channel.COMMANDS):
        for partition in range(log.partitions):
            path = directory / RECORDS / f"{channel}-{partition:03}.jsonl"
            with path.open("w", encoding="utf-8") as file:
                async for batch in log.read(channel, partition, 0):
                    file.writelines(_line(record) for record in batch)


def load_case(directory: Path) -> Case:
    """Read a run's directory."""
    journal = Journal(directory / JOURNAL_FILE)
    journal.new()
    digests = directory / DIGESTS
    return Case(
        load(directory),
        journal.lines,
        list(_records(directory, Channel.EVENTS)),
        list(_records(directory, Channel.COMMANDS)),
        json.loads(digests.read_text()) if digests.exists() else {},
    )


def _line(record: Record) -> str:
    headers = [[name, _text(value)] for name, value in record.headers]
    parts = [record.offset, record.timestamp, record.key, _text(record.value), headers]
    return json.dumps(parts, separators=(",", ":")) + "\n"


def _records(directory: Path, channel: Channel) -> Iterable[list[Record]]:
    for path in sorted((directory / RECORDS).glob(f"{channel}-*.jsonl")):
        with path.open(encoding="utf-8") as file:
            yield [_record(line) for line in file]


def _record(line: str) -> Record:
    parts = cast("tuple[int, int, str | None, str, list[list[str]]]", json.loads(line))
    offset, timestamp, key, value, headers = parts
    there = tuple((name, base64.b64decode(text)) for name, text in headers)
    return Record(offset, timestamp, key, base64.b64decode(value), there)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
