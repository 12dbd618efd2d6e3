"""Whether this user may do what a role does, asked before the first attempt: all that is missing is named at once.

A broker tells each user what it may do (KIP-430). Where it has no access control, or is too old to tell, nothing is
missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from refold.log.errors import LogUnavailable
from refold.log.kafka_acls import Permission, Role, permissions
from refold.log.kafka_client import Admin, Clients, KafkaFailure, Unauthorized
from refold.log.kafka_settings import Topics


def require_rights(
    clients: Clients,
    role: Role,
    topics: Topics,
    *,
    pool: str | None = None,
    group: str | None = None,
) -> None:
    """Check that this user may do what the role does. Blocks.

    Args:
        clients: What asks.
        role: The role.
        topics: The namespace's.
        pool: The pool whose partitions a worker shares; None for the common ones.
        group: The group in which a reader shares the events; None for none.

    Raises:
        LogUnavailable: It may not; with everything that is missing.
    """
    with clients.session(f"asking what this user may do in {topics.namespace}") as admin:
        found = {str(topic["name"]): topic for topic in admin.describe_topics(topics.all())}
        wanted = permissions(role, topics.namespace, (pool,), () if group is None else (group,))
        missing = [one for one in wanted if not _allows(admin, found, one)]
    if missing:
        shared = "".join(
            f" --{option} {name}" for option, name in (("pool", pool), ("group", group)) if name
        )
        advice = " (Who only starts and asks opens Engine(..., worker=False).)"
        raise LogUnavailable(
            f"a {role} of {topics.namespace} needs more than this user may do (brokers"
            f" {','.join(clients.bootstrap)}): missing is {_told(missing)}; `refold acls --{role} USER{shared}"
            f" --format commands` prints what grants it.{advice if role is Role.WORKER else ''}"
        )


def _allows(admin: Admin, found: Mapping[str, Mapping[str, Any]], one: Permission) -> bool:
    if one.resource == "topic":
        allowed = found.get(one.name, {}).get("authorized_operations")
        return allowed is None or one.operation in allowed
    try:
        admin.describe_groups([one.name])
    except Unauthorized:
        return False
    except KafkaFailure:
        return True  # its coordinator has yet to be found: who joins will see
    return True


def _told(missing: Sequence[Permission]) -> str:
    return ", ".join(f"{one.operation} on the {one.resource} {one.name}" for one in missing)
