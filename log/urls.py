"""One line that says which log: the URL of a namespace."""

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from refold.log.errors import UsageError
from refold.log.memory import MemoryLog, MemoryStore, named_store
from refold.log.protocol import Log
from refold.log.sqlite import SqliteLog
from refold.log.sqlite_file import MAX_PARTITIONS

ACCEPTED = """Accepted are:
  sqlite:///orders.db                  a file, relative to the current directory
  sqlite:////var/lib/app/orders.db     a file, by its absolute path
  sqlite:///orders.db?partitions=4     ... with so many partitions where it is made
  memory://                            this process's memory, for this log alone
  memory://name?partitions=4           ... shared by all logs of this process that give the same name
  kafka://host:9092/orders             the namespace `orders` in a Kafka cluster
  kafka://a:9092,b:9092/orders         ... with several brokers to begin with"""


def open_log(url: str) -> Log:
    """The log that a URL names. It is not open yet: `await log.open()`.

    Args:
        url: One of the forms in `ACCEPTED`, which the error's message lists as well.

    Raises:
        UsageError: It is not a URL of a log.
        LogMismatch: `memory://name` is in use with another number of partitions.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _refused(url, str(error)) from error
    if parts.fragment:
        raise _refused(url, "a log has no #fragment; write %23 for a # in a path")
    match parts.scheme:
        case "sqlite":
            return _sqlite(url, parts)
        case "memory":
            return _memory(url, parts)
        case "kafka":
            return _kafka(url, parts)
        case "":
            raise _refused(url, "it does not begin with sqlite://, memory:// or kafka://")
        case scheme:
            raise _refused(url, f"{scheme}:// is unknown")


def _sqlite(url: str, parts: SplitResult) -> Log:
    if parts.netloc:
        raise _refused(
            url, "a file has no host; three slashes for a relative path, four for an absolute one"
        )
    path = unquote(parts.path.removeprefix("/"))
    if not path or path.endswith("/") or "\0" in path:
        raise _refused(url, "the path of a file is missing")
    return SqliteLog(path, _partitions(url, parts))


def _memory(url: str, parts: SplitResult) -> Log:
    if parts.path not in {"", "/"}:
        raise _refused(url, "a name in memory has no path")
    partitions = _partitions(url, parts)
    name = unquote(parts.netloc)
    if name:
        return MemoryLog(f"memory://{name}", store=named_store(name, partitions))
    return MemoryLog(store=MemoryStore(1 if partitions is None else partitions))


def _kafka(url: str, parts: SplitResult) -> Log:
    # Imported when asked for: a program on SQLite should not load a Kafka client.
    from refold.log.kafka import KafkaLog  # noqa: PLC0415

    if parts.query:
        raise _refused(
            url,
            "a Kafka namespace takes no options here; its partitions were fixed when it was made",
        )
    brokers = parts.netloc.split(",")
    for broker in brokers:
        host, colon, port = broker.rpartition(":")
        if not (colon and host and port.isdecimal()):
            raise _refused(url, f"the broker {broker!r} is not host:port")
    namespace = unquote(parts.path.removeprefix("/"))
    if not namespace or "/" in namespace:
        raise _refused(url, "after the brokers comes one namespace, as in kafka://host:9092/orders")
    return KafkaLog(brokers, namespace)


def _partitions(url: str, parts: SplitResult) -> int | None:
    """The option `partitions`, which is the only one there is."""
    found: int | None = None
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name != "partitions":
            raise _refused(url, f"the option {name!r} is unknown")
        if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= MAX_PARTITIONS:
            raise _refused(url, f"partitions={text} is not a number from 1 to {MAX_PARTITIONS}")
        found = int(text)
    return found


def _refused(url: str, reason: str) -> UsageError:
    return UsageError(f"{url!r} does not name a log: {reason}. {ACCEPTED}")
