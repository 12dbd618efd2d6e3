"""A real broker as a careful team runs it: TLS, logins, and nothing allowed that is not granted.

    with SecureBroker(tmp_path) as secure:
        secure.add_user("web", "s3cret")
        secure.grant("User:web", permissions(Role.CLIENT, "orders"))
        KafkaLog([secure.login], "orders", secure.settings("web", "s3cret"))

Listeners: `admin` without any protection, whose user may do everything (it is how a test makes topics and grants
rights); `login` TLS with SCRAM or PLAIN; `certificate` mutual TLS; `token` OAUTHBEARER with unsigned tokens, which
Kafka has for tests like these.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from kafka_broker import Broker, Node, free_ports
from kafka_certificates import Authority
from refold.log.kafka import KafkaSettings
from refold.log.kafka_acls import Permission

HOST = "localhost"
PLAIN_USER, PLAIN_PASSWORD = "plain", "plain-password-in-the-broker"
_SETTLED_S = 30.0
_JAAS = "org.apache.kafka.common.security"


class SecureBroker:
    """One broker with TLS, SCRAM, PLAIN, OAUTHBEARER, mutual TLS and ACLs.

    Args:
        directory: For certificates; goes away with the test.
    """

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        own = self.authority.certify("broker", HOST)
        admin, controller, login, certificate, token = free_ports(5)
        self.login, self.certificate, self.token = (
            f"{HOST}:{port}" for port in (login, certificate, token)
        )
        self._broker = Broker(
            {
                **_listeners(admin, controller, login, certificate, token),
                **_tls(own.keystore, self.authority.certificate),
                **_logins(),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "allow.everyone.if.no.acl.found": "false",
            },
            node=Node(1, admin, controller),
        )

    @property
    def admin(self) -> str:
        """Address of the listener whose user may do everything."""
        return self._broker.bootstrap

    @property
    def log_path(self) -> Path:
        """The broker's own log."""
        return self._broker.log_path

    def __enter__(self) -> Self:
        self._broker.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._broker.__exit__(exc_type, exc, traceback)

    def add_user(self, name: str, password: str) -> None:
        """Make a user for SCRAM-SHA-512 and SCRAM-SHA-256."""
        with self.admin_client() as admin:
            for mechanism in (ScramMechanism.SCRAM_SHA_512, ScramMechanism.SCRAM_SHA_256):
                wanted = UserScramCredentialUpsertion(name, mechanism, password, iterations=4096)
                done = admin.alter_user_scram_credentials([wanted])  # a user may be in it once
                assert done == {name: None}, done

    def grant(self, principal: str, permissions: Iterable[Permission]) -> None:
        """Allow each of these, and wait until the broker has them."""
        acls = [_acl(principal, one) for one in permissions]
        with self.admin_client() as admin:
            assert not admin.create_acls(acls)["failed"]
        self._until(principal, lambda count: count >= len(acls))

    def revoke(self, principal: str, permission: Permission) -> None:
        """Take one permission away."""
        before = self._count(principal)
        wanted = _acl(principal, permission)
        with self.admin_client() as admin:
            admin.delete_acls(
                [
                    ACLFilter(
                        principal,
                        "*",
                        wanted.operation,
                        ACLPermissionType.ALLOW,
                        ResourcePatternFilter(
                            wanted.resource_pattern.resource_type,
                            permission.name,
                            ACLResourcePatternType.LITERAL,
                        ),
                    )
                ]
            )
        self._until(principal, lambda count: count < before)

    def settings(self, user: str, password: str, mechanism: str = "SCRAM-SHA-512") -> KafkaSettings:
        """How a user logs in at `login`."""
        return KafkaSettings(
            connect_timeout_ms=10_000,
            request_timeout_ms=5_000,
            delivery_timeout_ms=15_000,
            security_protocol="SASL_SSL",
            ssl_cafile=str(self.authority.certificate),
            sasl_mechanism=mechanism,
            sasl_username=user,
            sasl_password=password,
        )

    @contextmanager
    def admin_client(self) -> Generator[Any]:
        """kafka-python's admin client as the user who may do everything."""
        admin = KafkaAdminClient(bootstrap_servers=[self.admin])
        try:
            yield admin
        finally:
            admin.close()

    def _until(self, principal: str, enough: Callable[[int], bool]) -> None:
        give_up_at = time.monotonic() + _SETTLED_S
        while not enough(self._count(principal)):
            assert time.monotonic() < give_up_at, (
                f"the broker did not take up the ACLs of {principal}"
            )
            time.sleep(0.02)

    def _count(self, principal: str) -> int:
        everything = ACLFilter(
            principal,
            None,
            ACLOperation.ANY,
            ACLPermissionType.ANY,
            ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
        )
        with self.admin_client() as admin:
            return len(admin.describe_acls(everything)[0])


def unsigned_token(user: str, life_s: float = 3_600.0) -> str:
    """A JWT without a signature (RFC 7519, section 6), as Kafka takes it where nobody said otherwise."""
    now = int(time.time())
    header, claims = {"alg": "none"}, {"sub": user, "iat": now, "exp": now + int(life_s)}
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (header, claims)
    )
    return ".".join([*(part.decode() for part in parts), ""])


def _listeners(
    admin: int, controller: int, login: int, certificate: int, token: int
) -> dict[str, str]:
    advertised = (
        f"PLAINTEXT://127.0.0.1:{admin},LOGIN://{HOST}:{login},CERTIFICATE://{HOST}:{certificate},"
        f"TOKEN://{HOST}:{token}"
    )
    return {
        "listeners": f"{advertised},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": advertised,
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,"
        "CERTIFICATE:SSL,TOKEN:SASL_PLAINTEXT",
    }


def _tls(keystore: Path, trusted: Path) -> dict[str, str]:
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(trusted),
        "listener.name.certificate.ssl.client.auth": "required",
        "listener.name.certificate.ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
    }


def _logins() -> dict[str, str]:
    login, scram = "listener.name.login", f"{_JAAS}.scram.ScramLoginModule required;"
    return {
        f"{login}.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
        f"{login}.scram-sha-512.sasl.jaas.config": scram,
        f"{login}.scram-sha-256.sasl.jaas.config": scram,
        f"{login}.plain.sasl.jaas.config": f"{_JAAS}.plain.PlainLoginModule required "
        f'user_{PLAIN_USER}="{PLAIN_PASSWORD}";',
        "listener.name.token.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.token.oauthbearer.sasl.jaas.config": f"{_JAAS}.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";',
    }


def _acl(principal: str, permission: Permission) -> Any:
    kind = ResourceType.TOPIC if permission.resource == "topic" else ResourceType.GROUP
    operation: object = ACLOperation[permission.operation]
    return ACL(
        principal, "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, permission.name)
    )
