"""Schemas of a namespace on Kafka: its numbers from a registry, and the notes that outlive the registry.

The meta topic, which is compacted, says under `schema/<number>` which schema a number in this namespace stands for.
A number is noted before a record carries it, so whoever reads the log can read all of it: with the registry away, with
one that was set up anew, or with no registry in its settings at all.
"""

import json
import logging
from collections.abc import Mapping, Sequence

from refold.log.errors import LogError, LogMismatch, LogUnavailable, UsageError
from refold.log.kafka_client import Clients
from refold.log.kafka_scan import read_all
from refold.log.kafka_settings import Topics
from refold.log.protocol import Entry
from refold.log.schema_frames import Frames
from refold.log.schema_ids import (
    DEFAULT_BASE,
    MAX_ID,
    Published,
    current,
    published,
    published_like,
)
from refold.log.schema_registry import SchemaRegistry

logger = logging.getLogger(__name__)

_PREFIX = "schema/"


def frames_of(clients: Clients, topics: Topics, registry: SchemaRegistry | None) -> Frames:
    """How this namespace's records are numbered. With a registry, registers what is not registered yet. Blocks.

    Args:
        clients: Of the namespace's cluster; reads of the meta topic are made with it, now and later.
        topics: The namespace's.
        registry: The one to take numbers from; None for refold's own numbers, from `schema_base` of the settings.

    Raises:
        UsageError: There are no numbers from `schema_base` on.
        LogUnavailable: The registry gives no answer.
        LogMismatch: It refuses our schemas, or the log has its numbers from another registry.
    """
    if registry is None:
        written, giver = _own_numbers(clients.settings.schema_base), "the setting schema_base"
    else:
        written = _numbered(topics.namespace, registry)
        giver = f"the schema registry {registry.shown}"
    if written:
        _note(clients, topics, giver, written)

    def look_up(id_: int) -> Published | None:
        noted = read_notes(clients, topics).get(id_)
        if noted is None and registry is not None:
            noted = registry.text(id_)
        return None if noted is None else published_like(noted)

    return Frames(written, look_up)


def _own_numbers(base: int) -> dict[int, Published]:
    """Numbers of refold's own from another base; none where it is the usual one."""
    if base == DEFAULT_BASE:
        return {}
    if not 0 <= base <= MAX_ID - len(published()):
        raise UsageError(
            f"schema_base={base} can't be: numbers of schemas are from 0 to {MAX_ID}, and {len(published())} are needed"
        )
    return {one.id - DEFAULT_BASE + base: one for one in current()}


def _numbered(namespace: str, registry: SchemaRegistry) -> dict[int, Published]:
    """The registry's number -> schema, for those that this release writes."""
    numbered: dict[int, Published] = {}
    for schema in current():
        subject = schema.subject(namespace)
        id_ = registry.find(subject, schema.text)
        if id_ is None:
            id_ = registry.register(subject, schema.text)
            logger.info("registered %s as schema %d at %s", subject, id_, registry.shown)
        if not 0 <= id_ <= MAX_ID or id_ in numbered:
            raise LogMismatch(
                f"the schema registry {registry.shown} gives {subject} the number {id_}, which is no number or "
                "another schema's: is this a schema registry?"
            )
        numbered[id_] = schema
    return numbered


def _note(clients: Clients, topics: Topics, giver: str, written: Mapping[int, Published]) -> None:
    """Have the meta topic say what the numbers stand for, if it does not yet; `giver` is who gave them."""
    notes = read_notes(clients, topics)
    known = {one.id: one.text for one in published()} | notes
    for id_, schema in written.items():
        if id_ in known and published_like(known[id_]) != schema:
            raise LogMismatch(
                f"{giver} gives {schema.subject(topics.namespace)} the number {id_}, which stands for another schema"
                f" in the log of {topics.namespace} already: that log has its numbers from elsewhere. Name the registry"
                " or base that they are from, or bring the registry's schemas over with their numbers"
            )
    missing = {id_: schema for id_, schema in written.items() if id_ not in notes}
    if not missing:
        return
    try:
        _append(clients, topics, [_entry(id_, one, topics) for id_, one in missing.items()])
    except LogError as error:
        # A client may not write here (only workers should). Readers ask the registry then.
        logger.info("numbers of schemas are not noted in %s: %s", topics.meta, error)


def read_notes(clients: Clients, topics: Topics) -> dict[int, str]:
    """Number -> Avro schema, for every number that was noted. Blocks."""
    notes: dict[int, str] = {}
    for record in read_all(clients, topics.meta, 0):
        if record.key is None or not record.key.startswith(_PREFIX):
            continue
        try:
            noted = json.loads(record.value)
            notes[int(noted["id"])] = str(noted["schema"])
        except (ValueError, KeyError, TypeError):
            logger.warning(
                "%s: the note %s can't be read, and is passed over", topics.meta, record.key
            )
    return notes


def own_notes(topics: Topics) -> list[Entry]:
    """What stands in the meta topic of a new namespace: refold's own numbers, for those who read it without refold."""
    return [_entry(one.id, one, topics) for one in current()]


def _entry(id_: int, schema: Published, topics: Topics) -> Entry:
    note = {
        "id": id_,
        "subject": schema.subject(topics.namespace),
        "version": schema.version,
        "schema": schema.text,
    }
    return Entry(f"{_PREFIX}{id_}", json.dumps(note).encode())


def _append(clients: Clients, topics: Topics, entries: Sequence[Entry]) -> None:
    """Write to the meta topic; durable when this returns."""
    doing = f"noting numbers of schemas in {topics.meta}"
    producer = clients.producer(f"{clients.settings.client_id}-schemas", [topics.meta])
    with clients.errors(doing):
        sent = [
            producer.send(topics.meta, value, (key or "").encode(), [], partition=0)
            for key, value, _ in entries
        ]
        producer.close(timeout=clients.settings.delivery_timeout_ms / 1000)
    for one in sent:
        if one.exception is not None:
            raise clients.unknown(one.exception, doing) from one.exception
        if not one.is_done:
            raise LogUnavailable(f"{doing}: no broker acknowledged it")
