"""One line that says which log: the URL of a namespace."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from refold.log.archive_log import ArchiveLog
from refold.log.archived import ArchivedLog, unarchived
from refold.log.blob_urls import blobs_from, open_blobs
from refold.log.blobs import BlobStore
from refold.log.errors import LogUnavailable, UsageError
from refold.log.kafka_settings import SECRETS, KafkaSettings
from refold.log.key_urls import keys_from, open_keys
from refold.log.keys import PayloadKeys
from refold.log.layout import read_pools
from refold.log.memory import MemoryLog, MemoryStore, named_store
from refold.log.protocol import Log
from refold.log.sqlite import SqliteLog
from refold.log.sqlite_file import MAX_PARTITIONS

ACCEPTED = """Accepted are:
  sqlite:///orders.db                  a file, relative to the current directory
  sqlite:////var/lib/app/orders.db     a file, by its absolute path
  sqlite:///orders.db?partitions=4     ... with so many partitions where it is made
  sqlite:///orders.db?pools=gpu:2,ocr:1
                                       ... and with partitions for these pools besides (docs/pools.md)
  memory://                            this process's memory, for this log alone
  memory://name?partitions=4           ... shared by all logs of this process that give the same name
  kafka://host:9092/orders             the namespace `orders` in a Kafka cluster
  kafka://a:9092,b:9092/orders         ... with several brokers to begin with
  kafka://host:9092/orders?blobs=s3://bucket/orders
                                       ... with large payloads kept there (docs/large-payloads.md)
  sqlite:///orders.db?keys=file:///KEYS       any of these, with payloads encrypted (docs/privacy.md)
  sqlite:///orders.db?archive=DIR      any of these, with history that was trimmed read from there (docs/archive.md)
  archive:////var/lib/app/archive      an archive alone, where the log is out of reach: to be read (docs/archive.md)
  kafka://host:9093/orders?security_protocol=SSL&ssl_cafile=ca.pem
                                       ... with settings, which may also come from REFOLD_KAFKA_... variables or from
                                       the file that REFOLD_SETTINGS names (docs/connecting.md)"""

if TYPE_CHECKING:  # imported when asked for
    from refold.log.kafka import KafkaLog

# Greedy, and to the end: what is hidden need not be well-formed.
_PASSWORD = re.compile(r"//.*:.*@", re.DOTALL)
_LOGIN = re.compile(r"//.*@", re.DOTALL)
_SECRET = re.compile(rf"((?:{'|'.join(sorted(SECRETS))})=).*", re.DOTALL)
# A registry's URL is hidden as a whole, and is a secret only where it has a login.
_GIVEN = re.compile(
    rf"(?:{'|'.join(sorted(SECRETS - {'schema_registry'}))})=|schema_registry=[^&]*(?:@|%40)"
)
_WITHOUT_LOGIN = ("sqlite:", "memory:")


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """What a kafka:// URL says, with the settings of the environment.

    Args:
        brokers: host:port each.
        namespace: Name that the topics begin with.
        settings: How to connect.
    """

    brokers: tuple[str, ...]
    namespace: str
    settings: KafkaSettings


def redacted(url: str) -> str:
    """A URL as it may be shown: without user, password or token."""
    if url.startswith(_WITHOUT_LOGIN):
        return url
    return _SECRET.sub(r"\1***", _LOGIN.sub("//***@", url))


def holds_secret(url: str) -> bool:
    """Whether a URL has in it what nobody else should see."""
    if url.startswith(_WITHOUT_LOGIN):
        return False
    return _PASSWORD.search(url) is not None or _GIVEN.search(url) is not None


def open_log(url: str) -> Log:
    """The log that a URL names. It is not open yet: `await log.open()`.

    Args:
        url: One of the forms in `ACCEPTED`, which the error's message lists as well.

    Raises:
        UsageError: It is not a URL of a log, or a setting can't be.
        LogMismatch: `memory://name` is in use with another number of partitions.
        LogUnavailable: There is no such archive.
    """
    parts = _parts(url)
    if parts.scheme == "archive":
        return _archive(url, parts)
    log = _named(url, parts)
    if log.keys is None:
        log.keys = keys_from()
    place = _archive_in(url)
    return log if place is None else ArchivedLog(log, place)


def open_existing(url: str) -> Log:
    """`open_log` for those who only read: a SQLite file that is not there is not made.

    Raises:
        LogUnavailable: There is no such file.
        UsageError: As `open_log`.
    """
    log = open_log(url)
    itself = unarchived(log)
    if isinstance(itself, SqliteLog) and not itself.path.exists():
        raise LogUnavailable(
            f"there is no log file {itself.path}: name the right one with --url or REFOLD_URL, or make it by "
            "starting something with `refold run` or `refold worker`"
            + (". Its archive alone is read with --url archive:///DIR" if itself is not log else "")
        )
    return log


def with_archive(url: str, place: str | None) -> str:
    """The URL of the same log, with the archive at `place` in place of its own; as it is where that is None."""
    if place is None:
        return url
    whole, _, query = url.partition("?")
    return f"{whole}?{'&'.join([*_without_archive(query), f'archive={quote(place)}'])}"


def _archive_in(url: str) -> str | None:
    """The option `archive` of any log's URL."""
    named = [text for name, text in parse_qsl(urlsplit(url).query) if name == "archive"]
    if len(named) > 1:
        raise _refused(url, "the option 'archive' is given twice")
    return named[0] if named else None


def _without_archive(query: str) -> list[str]:
    """The options of a URL, as they stand there, but for that of the archive."""
    return [option for option in query.split("&") if option and not option.startswith("archive=")]


def _named(url: str, parts: SplitResult) -> "SqliteLog | MemoryLog | KafkaLog":
    match parts.scheme:
        case "sqlite":
            return _sqlite(url, parts)
        case "memory":
            return _memory(url, parts)
        case "kafka":
            return _kafka(url)
        case "":
            raise _refused(url, "it does not begin with sqlite://, memory:// or kafka://")
        case scheme:
            raise _refused(url, f"{scheme}:// is unknown")


def _archive(url: str, parts: SplitResult) -> ArchiveLog:
    options = _options(url, parts)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or options.partitions or options.pools or _archive_in(url):
        raise _refused(
            url,
            "an archive alone is its directory; three slashes for a relative path, four for an absolute one",
        )
    keys = options.keys or keys_from()
    return ArchiveLog(path, blobs=options.blobs or blobs_from(""), keys=keys)


def _sqlite(url: str, parts: SplitResult) -> SqliteLog:
    if parts.netloc:
        raise _refused(
            url, "a file has no host; three slashes for a relative path, four for an absolute one"
        )
    path = unquote(parts.path.removeprefix("/"))
    if not path or path.endswith("/") or "\0" in path:
        raise _refused(url, "the path of a file is missing")
    options = _options(url, parts)
    log = SqliteLog(path, options.partitions, blobs=options.blobs, pools=options.pools)
    log.keys = options.keys
    return log


def _memory(url: str, parts: SplitResult) -> MemoryLog:
    if parts.path not in {"", "/"}:
        raise _refused(url, "a name in memory has no path")
    options = _options(url, parts)
    partitions, pools = options.partitions, options.pools
    name = unquote(parts.netloc)
    if name:
        store = named_store(name, partitions, pools)
        log = MemoryLog(f"memory://{name}", store=store, blobs=options.blobs)
    else:
        store = MemoryStore(1 if partitions is None else partitions, pools=pools or ())
        log = MemoryLog(store=store, blobs=options.blobs)
    log.keys = options.keys
    return log


def _kafka(url: str) -> "KafkaLog":
    # Imported when asked for: a program on SQLite should not load a Kafka client.
    from refold.log.kafka import KafkaLog  # noqa: PLC0415

    address = kafka_address(url)
    named = address.settings.blobs is not None  # then it opens it itself
    blobs = None if named else blobs_from(address.namespace)
    return KafkaLog(address.brokers, address.namespace, address.settings, blobs=blobs)


def kafka_address(url: str, environ: Mapping[str, str] | None = None) -> KafkaAddress:
    """The brokers, namespace and settings that a kafka:// URL means.

    Args:
        url: The URL. Settings in it come before the environment, and that before the settings file.
        environ: The environment; this process's where not given.

    Raises:
        UsageError: It is no such URL, or a setting is unknown or can't be.
    """
    from refold.log.kafka_options import settings_from  # noqa: PLC0415 - as above

    parts = _parts(url)
    if parts.scheme != "kafka":
        raise UsageError(
            f"this is about a namespace on Kafka, and {redacted(url)!r} is none: give --url kafka://HOST:PORT/NAMESPACE"
        )
    login, _, hosts = parts.netloc.rpartition("@")
    brokers = hosts.split(",")
    for broker in brokers:
        host, colon, port = broker.rpartition(":")
        if not (colon and host and port.isdecimal()):
            # A / in a password cuts it in two: what looks like a broker may be a part of it.
            if holds_secret(url):
                raise _refused(url, "a broker is not host:port; in a password, write %2F for a /")
            raise _refused(url, f"the broker {broker!r} is not host:port")
    namespace = unquote(parts.path.removeprefix("/"))
    if not namespace or "/" in namespace:
        raise _refused(url, "after the brokers comes one namespace, as in kafka://host:9092/orders")
    options = parse_qsl(parts.query, keep_blank_values=True)
    twice = sorted({name for name, _ in options if [n for n, _ in options].count(name) > 1})
    if twice:
        raise _refused(url, f"the option {twice[0]!r} is given twice")
    if any(name in {"partitions", "pools"} for name, _ in options):
        raise _refused(url, "a Kafka namespace has the partitions that it was made with")
    return KafkaAddress(
        tuple(brokers), namespace, settings_from([*_login(url, login), *options], environ)
    )


def _login(url: str, login: str) -> list[tuple[str, str]]:
    """user:password@ as settings; better in REFOLD_KAFKA_SASL_USERNAME and a file, since others see command lines."""
    if not login:
        return []
    user, colon, password = login.partition(":")
    if not user:
        raise _refused(url, "there is no user before the @")
    named = [("sasl_username", unquote(user))]
    return [*named, ("sasl_password", unquote(password))] if colon else named


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text may quote a password
        raise _refused(
            url, "it is not well-formed; write %40 for an @ in a password, %5B for a ["
        ) from None
    if parts.fragment:
        raise _refused(url, "a log has no #fragment; write %23 for a #")
    return parts._replace(query="&".join(_without_archive(parts.query)))


@dataclass(frozen=True, slots=True)
class _Options:
    """What the URL of a log within reach may say of it."""

    partitions: int | None
    pools: tuple[tuple[str, int], ...] | None
    blobs: BlobStore | None
    keys: PayloadKeys | None


def _options(url: str, parts: SplitResult) -> _Options:
    partitions: int | None = None
    pools: tuple[tuple[str, int], ...] | None = None
    blobs: BlobStore | None = None
    keys: PayloadKeys | None = None
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name == "blobs":
            blobs = open_blobs(text)
            continue
        if name == "keys":
            keys = open_keys(text)
            continue
        if name == "pools":
            pools = read_pools(text.split(","))
            continue
        if name != "partitions":
            raise _refused(url, f"the option {name!r} is unknown")
        if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= MAX_PARTITIONS:
            raise _refused(url, f"partitions={text} is not a number from 1 to {MAX_PARTITIONS}")
        partitions = int(text)
    return _Options(partitions, pools, blobs, keys)


def _refused(url: str, reason: str) -> UsageError:
    return UsageError(f"{redacted(url)!r} does not name a log: {reason}. {ACCEPTED}")
