"""The log: events, their Avro codec, and one protocol over memory, SQLite and Kafka.

Here is what it takes to open a log and to move records. Events, commands, errors and the codec are modules of their
own (`refold.log.events`, ...); `refold.log.kafka` is loaded only where it is asked for.
"""

from refold.log.memory import MemoryLog, MemoryStore
from refold.log.partitioner import partition_of
from refold.log.protocol import Bounds, Channel, Entry, Listener, Log, Membership, Record
from refold.log.sqlite import SqliteLog, SqliteSettings
from refold.log.urls import open_log

__all__ = [
    "Bounds",
    "Channel",
    "Entry",
    "Listener",
    "Log",
    "Membership",
    "MemoryLog",
    "MemoryStore",
    "Record",
    "SqliteLog",
    "SqliteSettings",
    "open_log",
    "partition_of",
]
