"""Who needs which rights on a namespace in Kafka: one table, from which everything else is printed and tested.

Clients ask by writing commands and hear by reading replies; nobody but workers writes events, so that whoever can't
change the log can't change what happened. READ and WRITE on a topic let its user DESCRIBE it as well, and WRITE on any
topic is enough for an idempotent producer (KIP-679).
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal

from refold.log.errors import UsageError
from refold.log.kafka_settings import Topics
from refold.log.protocol import Channel

Operation = Literal["READ", "WRITE", "CREATE", "DELETE", "DESCRIBE", "DESCRIBE_CONFIGS"]


class Role(StrEnum):
    """What somebody does with a namespace. One user may have several roles: its rights add up."""

    CLIENT = "client"
    WORKER = "worker"
    READER = "reader"
    ARCHIVER = "archiver"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Permission:
    """One operation on one resource.

    Args:
        resource: Kind of the resource.
        name: Its name, literally.
        operation: What may be done with it.
        purpose: What refold needs it for.
    """

    resource: Literal["topic", "group"]
    name: str
    operation: Operation
    purpose: str


def permissions(
    role: Role,
    namespace: str,
    pools: Sequence[str | None] = (None,),
    groups: Sequence[str] = (),
) -> tuple[Permission, ...]:
    """Exactly what a role needs, no more.

    Args:
        role: The role.
        namespace: The namespace.
        pools: Which partitions a worker shares with others: those of pools, or the common ones (None).
        groups: The groups in which a reader shares the events with others.
    """
    topics = Topics(namespace)
    events, commands = topics.of(Channel.EVENTS), topics.of(Channel.COMMANDS)
    replies, meta = topics.of(Channel.REPLIES), topics.meta
    all_topics = (events, commands, replies, meta)
    is_it = Permission("topic", meta, "READ", "checks that the namespace is the one that was made")
    match role:
        case Role.CLIENT:
            return (
                Permission("topic", commands, "WRITE", "starts, sends, asks, cancels"),
                Permission("topic", replies, "READ", "hears what came of it"),
                Permission("topic", events, "DESCRIBE", "checks that it is there"),
                is_it,
            )
        case Role.READER:
            return (
                Permission("topic", events, "READ", "lists, shows, audits, tails, projects"),
                Permission("topic", commands, "DESCRIBE", "checks that it is there"),
                Permission("topic", replies, "DESCRIBE", "checks that it is there"),
                is_it,
                *(
                    Permission(
                        "group", topics.group_of(group), "READ", "shares the events with others"
                    )
                    for group in groups
                ),
            )
        case Role.ARCHIVER:
            return (
                Permission("topic", events, "READ", "archives, compares what it has archived"),
                Permission("topic", events, "DELETE", "trims what is archived"),
                Permission("topic", commands, "READ", "finds how old they are"),
                Permission("topic", commands, "DELETE", "trims what has been consumed"),
                Permission("topic", replies, "DESCRIBE", "checks that it is there"),
                is_it,
            )
        case Role.WORKER:
            return (
                Permission("topic", events, "READ", "folds the history"),
                Permission("topic", events, "WRITE", "claims partitions, records what happens"),
                Permission("topic", commands, "READ", "takes up what is asked"),
                Permission("topic", commands, "WRITE", "starts children, sends messages"),
                Permission("topic", replies, "READ", "hears what came of its own questions"),
                Permission("topic", replies, "WRITE", "answers"),
                is_it,
                Permission("topic", meta, "WRITE", "notes where checkpoints are"),
                *(
                    Permission("topic", topic, "DESCRIBE_CONFIGS", "checks limits and safety")
                    for topic in all_topics
                ),
                *(
                    Permission(
                        "group", topics.group(pool), "READ", "shares the partitions with others"
                    )
                    for pool in pools
                ),
            )
        case Role.ADMIN:
            return (
                *(
                    Permission("topic", topic, operation, purpose)
                    for topic in all_topics
                    for operation, purpose in _MAKING
                ),
                is_it,
                Permission("topic", meta, "WRITE", "writes down what was made"),
            )


_MAKING: tuple[tuple[Operation, str], ...] = (
    ("CREATE", "makes it"),
    ("DESCRIBE", "finds it"),
    ("DESCRIBE_CONFIGS", "checks limits and safety"),
)


def principal(name: str) -> str:
    """A user as Kafka writes it: `alice` is `User:alice`; what has a kind already keeps it.

    Raises:
        UsageError: It is empty.
    """
    kind, colon, rest = name.partition(":")
    if not name or (colon and not rest):
        raise UsageError(
            f"{name!r} is no principal: give a user's name, or KIND:NAME as Kafka writes it"
        )
    return f"{kind}:{rest}" if colon else f"User:{name}"


def as_commands(
    brokers: Sequence[str],
    namespace: str,
    principals: Mapping[Role, Sequence[str]],
    pools: Sequence[str | None] = (None,),
    groups: Sequence[str] = (),
) -> list[str]:
    """`kafka-acls.sh` commands that grant each principal its role, one for each resource."""
    server = shlex.quote(",".join(brokers))
    return [
        f"kafka-acls.sh --bootstrap-server {server} --add --allow-principal {shlex.quote(user)}"
        f"{''.join(f' --operation {_as_option(operation)}' for operation in operations)} --{kind} {name}"
        for user, granted in _grants(namespace, principals, pools, groups)
        for (kind, name), operations in _by_resource(granted).items()
    ]


def as_json(
    namespace: str,
    principals: Mapping[Role, Sequence[str]],
    pools: Sequence[str | None] = (None,),
    groups: Sequence[str] = (),
) -> str:
    """The same as a JSON list; each entry has what an AclBinding has, and its purpose."""
    return json.dumps(
        [
            {
                "principal": user,
                "host": "*",
                "permission": "ALLOW",
                "pattern": "LITERAL",
                **asdict(one),
            }
            for user, granted in _grants(namespace, principals, pools, groups)
            for one in granted
        ],
        indent=2,
    )


def _grants(
    namespace: str,
    principals: Mapping[Role, Sequence[str]],
    pools: Sequence[str | None],
    groups: Sequence[str],
) -> list[tuple[str, tuple[Permission, ...]]]:
    return [
        (principal(name), permissions(role, namespace, pools, groups))
        for role in Role
        for name in principals.get(role, ())
    ]


def _by_resource(granted: Iterable[Permission]) -> dict[tuple[str, str], list[Operation]]:
    found: dict[tuple[str, str], list[Operation]] = {}
    for one in granted:
        found.setdefault((one.resource, one.name), []).append(one.operation)
    return found


def _as_option(operation: Operation) -> str:
    """DESCRIBE_CONFIGS is `DescribeConfigs` on that command's line."""
    return operation.title().replace("_", "")
