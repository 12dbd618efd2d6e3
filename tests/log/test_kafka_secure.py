"""A broker with TLS, logins and access control: who is let in, who may do what, and what those hear who are not."""

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kafka_certificates import Authority
from kafka_secure import PLAIN_PASSWORD, PLAIN_USER, SecureBroker, unsigned_token
from log_backend import PATIENCE_S, records_of
from refold import (
    CheckpointSettings,
    Engine,
    LogError,
    LogUnavailable,
    UsageError,
    step,
    workflow,
)
from refold.log.archive_writer import ArchiveSettings
from refold.log.kafka import KafkaLog, KafkaSettings, create_topics
from refold.log.kafka_acls import Permission, Role, permissions
from refold.log.protocol import Channel, Entry
from refold.services.archiving import Order, archive_log
from token_server import TokenServer, serving

PASSWORD = "pass-Word,with=signs"
SECRET = "do-not-show-me-8f3a"


@step
async def doubled(number: int) -> int:
    return 2 * number


@workflow(name="secure-double")
async def double(number: int) -> int:
    return await doubled(number)


@step(pool="secure")
async def tripled(number: int) -> int:
    return 3 * number


@workflow(name="secure-triple")
async def triple(number: int) -> int:
    return await tripled(number)


class Team:
    """A namespace, and a user for each role that has exactly what the table says."""

    def __init__(self, secure: SecureBroker) -> None:
        self.secure = secure
        self.namespace = f"team-{uuid.uuid4().hex[:8]}"
        for role in Role:
            self.user(role)
        asyncio.run(
            create_topics([secure.login], self.namespace, 2, None, self.settings(Role.ADMIN))
        )

    def user(self, role: Role, *, name: str | None = None) -> str:
        """A user with the role's permissions."""
        name = name or self.name(role)
        self.secure.add_user(name, PASSWORD)
        self.secure.grant(f"User:{name}", permissions(role, self.namespace))
        return name

    def user_without(self, role: Role, missing: Permission) -> KafkaSettings:
        """A user with all of them but one."""
        name = self.user(role, name=f"lacking-{uuid.uuid4().hex[:8]}")
        self.secure.revoke(f"User:{name}", missing)
        return self.secure.settings(name, PASSWORD)

    def name(self, role: Role) -> str:
        return f"{role}-of-{self.namespace}"

    def settings(self, role: Role) -> KafkaSettings:
        return self.secure.settings(self.name(role), PASSWORD)

    def log(self, settings: KafkaSettings) -> KafkaLog:
        return KafkaLog([self.secure.login], self.namespace, settings)

    def engine(self, role: Role) -> Engine:
        return Engine(self.log(self.settings(role)), workflows=[double], worker=role is Role.WORKER)


@pytest.fixture(scope="module")
def team(secure_broker: SecureBroker) -> Team:
    return Team(secure_broker)


@asynccontextmanager
async def opened(log: KafkaLog) -> AsyncGenerator[KafkaLog, None]:
    async with asyncio.timeout(PATIENCE_S):
        try:
            await log.open()
            yield log
        finally:
            await log.close()


def refusal(server: str, settings: KafkaSettings) -> str:
    """What somebody hears who is not let in."""

    async def scenario() -> str:
        with pytest.raises(LogUnavailable) as caught:
            async with opened(KafkaLog([server], "anything", settings)):
                pass
        return str(caught.value)

    return asyncio.run(scenario())


# Who may do what ------------------------------------------------------------------------------------------------------


def test_with_exactly_its_permissions_each_role_does_its_work(team: Team) -> None:
    """Given the table's ACLs and no others: a worker works, a client gets a result, a reader reads what happened."""

    async def scenario() -> None:
        async with (
            asyncio.timeout(PATIENCE_S),
            team.engine(Role.WORKER),
            team.engine(Role.CLIENT) as client,
        ):
            handle = await client.start_async(double, 21, id="secure-1")
            assert await handle.result_async() == 42
        async with opened(team.log(team.settings(Role.READER))) as log:
            kinds = [
                dict(record.headers)["kind"]
                for partition in range(log.partitions)
                for record in await records_of(log, Channel.EVENTS, partition)
            ]
        assert b"workflow.completed" in kinds

    asyncio.run(scenario())


def test_an_archiver_archives_and_trims(team: Team, tmp_path: Path) -> None:
    """Given an archiver's permissions and no others, it archives every partition and deletes what is not needed."""
    trimmed = asyncio.run(archived(team, team.settings(Role.ARCHIVER), tmp_path))
    assert trimmed > 0


@pytest.mark.parametrize("channel", [Channel.EVENTS, Channel.COMMANDS])
def test_who_may_not_delete_trims_nothing(team: Team, tmp_path: Path, channel: Channel) -> None:
    """Given no DELETE on a topic, trimming says so by name; what was archived stays, and so does the log."""
    (missing,) = (
        one
        for one in permissions(Role.ARCHIVER, team.namespace)
        if one.operation == "DELETE" and one.name.endswith(channel)
    )
    settings = team.user_without(Role.ARCHIVER, missing)
    with pytest.raises(LogUnavailable, match=rf"lacks DELETE on the topic {missing.name}"):
        asyncio.run(archived(team, settings, tmp_path))


async def archived(team: Team, settings: KafkaSettings, place: Path) -> int:
    """Fill the namespace, archive it and trim it; how many events were deleted."""
    often = CheckpointSettings(min_bytes=1_000)
    worker = Engine(team.log(team.settings(Role.WORKER)), workflows=[double], checkpoints=often)
    async with asyncio.timeout(PATIENCE_S), worker:
        for number in range(60):
            handle = await worker.start_async(double, number)
            assert await handle.result_async() == 2 * number
    async with opened(team.log(settings)) as log:
        done = await archive_log(log, Order(str(place), ArchiveSettings("avro"), trim=True))
        return sum(
            one.trimmed.events_before - one.trimmed.events.start
            for one in done
            if one.trimmed is not None
        )


def test_readers_share_events_in_a_group_of_their_own(team: Team) -> None:
    """Given a reader's permissions for a group, it shares the events in it; of another it hears what it lacks."""
    name = f"projector-of-{team.namespace}"
    team.secure.add_user(name, PASSWORD)
    team.secure.grant(
        f"User:{name}", permissions(Role.READER, team.namespace, groups=["projections"])
    )

    async def scenario() -> None:
        async with opened(team.log(team.secure.settings(name, PASSWORD))) as log:
            reader = Reader()
            await log.share("projections", "one", reader)
            await reader.until_it_has(log.partitions)
            with pytest.raises(
                LogUnavailable,
                match=rf"missing is READ on the group {team.namespace}.sinks;.*--group",
            ):
                await log.share("sinks", "one", reader)

    asyncio.run(scenario())


class Reader:
    """Remembers which partitions it shares."""

    def __init__(self) -> None:
        self._owned: set[int] = set()
        self._changed = asyncio.Event()

    def assigned(self, partition: int) -> None:
        self._owned.add(partition)
        self._changed.set()

    def revoked(self, partition: int, lost: bool) -> None:
        self._owned.discard(partition)

    async def until_it_has(self, partitions: int) -> None:
        while len(self._owned) < partitions:
            self._changed.clear()
            await self._changed.wait()


def test_a_worker_of_a_pool_is_a_client(team: Team) -> None:
    """Given a client's permissions, a worker carries out the steps of its pool."""

    async def scenario() -> None:
        worker = Engine(team.log(team.settings(Role.WORKER)), workflows=[triple])
        pool = Engine(team.log(team.settings(Role.CLIENT)), worker=False, pools=["secure"])
        async with asyncio.timeout(PATIENCE_S), worker, pool:
            handle = await worker.start_async(triple, 14, id="secure-2")
            assert await handle.result_async() == 42

    asyncio.run(scenario())


@pytest.mark.parametrize("role", [Role.CLIENT, Role.READER])
@pytest.mark.parametrize("channel", [Channel.EVENTS, Channel.REPLIES])
def test_only_workers_write_events_and_replies(team: Team, role: Role, channel: Channel) -> None:
    """Given another role's user, the broker refuses, and the log holds no more than before."""

    async def scenario() -> None:
        async with opened(team.log(team.settings(role))) as log:
            before = (await log.bounds(channel, 0)).end
            with pytest.raises(LogError) as caught:
                await log.append(channel, 0, [Entry("forged", b"{}")])
            assert (await log.bounds(channel, 0)).end == before
        assert "lacks WRITE on the topic" in str(caught.value)
        assert "refold acls" in str(caught.value)

    asyncio.run(scenario())


def test_a_client_reads_no_history(team: Team) -> None:
    """Given no READ on events, reading them fails by naming just that."""

    async def scenario() -> None:
        async with opened(team.log(team.settings(Role.CLIENT))) as log:
            with pytest.raises(
                LogUnavailable, match=rf"lacks READ on the topic {log.namespace}.events"
            ):
                await records_of(log, Channel.EVENTS)

    asyncio.run(scenario())


CLIENT_PARTS = range(len(permissions(Role.CLIENT, "x")))
READER_PARTS = range(len(permissions(Role.READER, "x")))


@pytest.mark.parametrize(
    ("role", "index"),
    [
        *((Role.CLIENT, index) for index in CLIENT_PARTS),
        *((Role.READER, index) for index in READER_PARTS),
    ],
)
def test_each_permission_of_a_client_and_a_reader_is_needed(
    team: Team, role: Role, index: int
) -> None:
    """Given all but one of them, opening fails at once and names the topic."""
    missing = permissions(role, team.namespace)[index]
    settings = team.user_without(role, missing)

    async def scenario() -> None:
        with pytest.raises(LogUnavailable) as caught:
            async with opened(team.log(settings)):
                pass
        assert f"on the topic {missing.name}" in str(caught.value)
        assert "refold acls" in str(caught.value)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "missing",
    [
        one
        for one in permissions(Role.WORKER, "x")
        if (one.name, one.operation)
        in {
            ("x.events", "WRITE"),
            ("x.commands", "READ"),
            ("x.workers", "READ"),
            ("x.meta", "WRITE"),
        }
    ],
    ids=lambda one: f"{one.operation}-{one.name}",
)
def test_a_worker_without_one_of_its_permissions_does_not_start(
    team: Team, missing: Permission
) -> None:
    """Given all but one, it says which, before it enters the group."""
    name = missing.name.replace("x.", f"{team.namespace}.", 1)
    settings = team.user_without(Role.WORKER, replace(missing, name=name))

    async def scenario() -> None:
        with pytest.raises(LogUnavailable) as caught:
            async with Engine(team.log(settings), workflows=[double]):
                pass
        assert f"missing is {missing.operation} on the {missing.resource} {name};" in str(
            caught.value
        )

    asyncio.run(scenario())


def test_only_an_admin_makes_topics(team: Team) -> None:
    """Given a worker's user, the broker refuses to make a namespace."""

    async def scenario() -> None:
        await create_topics(
            [team.secure.login], f"new-{team.namespace}", 1, None, team.settings(Role.WORKER)
        )

    with pytest.raises(LogUnavailable, match="lacks"):
        asyncio.run(scenario())


# Who is let in --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_scram_logs_in(team: Team, mechanism: str) -> None:
    """Given a password with every sign that SCRAM gives a meaning, both kinds of it let its user in."""
    settings = replace(team.settings(Role.READER), sasl_mechanism=mechanism)

    async def scenario() -> None:
        async with opened(team.log(settings)) as log:
            assert log.partitions == 2

    asyncio.run(scenario())


def test_plain_logs_in_with_a_password_from_a_file(team: Team, tmp_path: Path) -> None:
    """Given the password in a file with a line's end, PLAIN over TLS lets its user in."""
    path = tmp_path / "password"
    path.write_text(f"{PLAIN_PASSWORD}\n")
    team.secure.grant(f"User:{PLAIN_USER}", permissions(Role.READER, team.namespace))
    settings = replace(
        team.secure.settings(PLAIN_USER, "", "PLAIN"),
        sasl_password=None,
        sasl_password_file=str(path),
    )

    async def scenario() -> None:
        async with opened(team.log(settings)) as log:
            assert log.partitions == 2

    asyncio.run(scenario())


def test_mutual_tls_logs_in_by_certificate(team: Team, tmp_path: Path) -> None:
    """Given a certificate and a key with a password, the user is the one that the certificate names."""
    name = f"certified-{team.namespace}"
    mine = Authority.certify(team.secure.authority, name, password="of-the-key")
    (tmp_path / "password").write_text("of-the-key\n")
    team.secure.grant(f"User:{name}", permissions(Role.READER, team.namespace))
    settings = KafkaSettings(
        security_protocol="SSL",
        ssl_cafile=str(team.secure.authority.certificate),
        ssl_certfile=str(mine.certificate),
        ssl_keyfile=str(mine.key),
        ssl_key_password_file=str(tmp_path / "password"),
    )

    async def scenario() -> None:
        async with opened(KafkaLog([team.secure.certificate], team.namespace, settings)) as log:
            assert log.partitions == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("source", ["sasl_token", "sasl_token_file", "sasl_token_command"])
def test_oauthbearer_logs_in_by_a_token(team: Team, tmp_path: Path, source: str) -> None:
    """Given a token as it is, in a file, or printed by a command, its subject is let in."""
    token = unsigned_token(team.name(Role.READER))
    path = tmp_path / "token"
    path.write_text(f"{token}\n")
    given = {
        "sasl_token": token,
        "sasl_token_file": str(path),
        "sasl_token_command": f"cat '{path}'",
    }[source]
    settings = replace(token_settings(token), **({"sasl_token": None} | {source: given}))  # type: ignore[arg-type]

    async def scenario() -> None:
        async with opened(KafkaLog([team.secure.token], team.namespace, settings)) as log:
            assert log.partitions == 2

    asyncio.run(scenario())


def test_oauthbearer_logs_in_by_client_credentials(
    team: Team, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given an endpoint that gives tokens to a client, workers and clients work; the secret is in no line of DEBUG."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    with serving(TokenServer("shop", SECRET, team.name(Role.WORKER))) as server:
        settings = replace(
            token_settings(""),
            sasl_token=None,
            sasl_token_url=server.url,
            sasl_client_id="shop",
            sasl_client_secret_file=str(secret),
            sasl_scope="kafka",
        )
        log = KafkaLog([team.secure.token], team.namespace, settings)

        async def scenario() -> None:
            async with asyncio.timeout(PATIENCE_S), Engine(log, workflows=[double]) as engine:
                handle = await engine.start_async(double, 21)
                assert await handle.result_async() == 42

        with caplog.at_level(logging.DEBUG):
            asyncio.run(scenario())
        assert len(server.asked) == 1  # for all connections together
        assert SECRET not in caplog.text + repr(settings)


def token_settings(token: str) -> KafkaSettings:
    return KafkaSettings(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="OAUTHBEARER", sasl_token=token
    )


# Who is not -----------------------------------------------------------------------------------------------------------

Wrong = Callable[[SecureBroker, Path], tuple[str, KafkaSettings]]


def wrong_password(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.login, secure.settings("nobody", SECRET)


def wrong_plain_password(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.login, secure.settings(PLAIN_USER, SECRET, "PLAIN")


def wrong_token(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.token, token_settings(SECRET)


def expired_token(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.token, token_settings(unsigned_token("anybody", life_s=-60))


def no_token(secure: SecureBroker, path: Path) -> tuple[str, KafkaSettings]:
    settings = replace(token_settings(""), sasl_token=None, sasl_token_file=str(path / "none"))
    return secure.token, settings


def no_endpoint(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    settings = replace(
        token_settings(""),
        sasl_token=None,
        sasl_token_url="http://127.0.0.1:9/token",
        sasl_client_id="shop",
        sasl_client_secret=SECRET,
    )
    return secure.token, settings


def wrong_mechanism(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    plain = secure.settings(PLAIN_USER, SECRET, "PLAIN")
    return secure.token, replace(plain, security_protocol="SASL_PLAINTEXT", ssl_cafile=None)


def wrong_authority(secure: SecureBroker, path: Path) -> tuple[str, KafkaSettings]:
    other = Authority(path, "other")
    return secure.login, replace(secure.settings("a", SECRET), ssl_cafile=str(other.certificate))


def wrong_host(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.login.replace("localhost", "127.0.0.1"), secure.settings("a", SECRET)


def plain_client(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.login, KafkaSettings()


def tls_client(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.admin, tls_only(secure)


def no_login(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.login, tls_only(secure)


def no_certificate(secure: SecureBroker, _: Path) -> tuple[str, KafkaSettings]:
    return secure.certificate, tls_only(secure)


def tls_only(secure: SecureBroker) -> KafkaSettings:
    return KafkaSettings(security_protocol="SSL", ssl_cafile=str(secure.authority.certificate))


@pytest.mark.parametrize(
    ("wrong", "what_to_do"),
    [
        (wrong_password, "refuses the login by SCRAM-SHA-512.*check sasl_username"),
        (wrong_plain_password, "refuses the login by PLAIN.*check sasl_username"),
        (wrong_token, "refuses the login by OAUTHBEARER: check the token"),
        (expired_token, "refuses the login by OAUTHBEARER: check the token"),
        (no_token, "sasl_token_file=.*can't be read: No such file"),
        (no_endpoint, "sasl_token_url=http://127.0.0.1:9/token gives no answer"),
        (wrong_mechanism, "takes no login by PLAIN.*sasl_mechanism"),
        (wrong_authority, "certificate is not trusted.*ssl_cafile"),
        (wrong_host, "certificate is for another name.*ssl_check_hostname"),
        (plain_client, "speaks TLS: set security_protocol"),
        (tls_client, "speaks Kafka without TLS: set security_protocol"),
        (no_login, "asks for a login: set security_protocol"),
        (no_certificate, "does not accept this client's certificate.*ssl_certfile"),
    ],
)
def test_who_is_not_let_in_hears_why(
    secure_broker: SecureBroker, tmp_path: Path, wrong: Wrong, what_to_do: str
) -> None:
    """Given patience for a minute, the error comes by itself, names the setting, and is no time-out."""
    server, settings = wrong(secure_broker, tmp_path)
    patient = replace(settings, connect_timeout_ms=int(PATIENCE_S * 1_000))
    told = refusal(server, patient)
    assert re.search(what_to_do, told), told
    assert "Timeout" not in told
    assert SECRET not in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ssl_cafile": "/nowhere/ca.pem"}, "ssl_cafile=/nowhere/ca.pem .*No such file"),
        ({"ssl_certfile": "/nowhere/me.pem"}, "ssl_certfile=/nowhere/me.pem .*No such file"),
    ],
)
def test_files_that_can_not_be_read_are_named(settings: dict[str, str], told: str) -> None:
    """Given a path where nothing is, no broker is asked."""

    async def scenario() -> None:
        log = KafkaLog(["localhost:1"], "x", KafkaSettings(security_protocol="SSL", **settings))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=told):
            await log.open()

    asyncio.run(scenario())


def test_a_wrong_password_of_a_key_is_told_and_not_shown(tmp_path: Path) -> None:
    """Given a key that another password opens, the error names the setting."""
    mine = Authority(tmp_path).certify("me", password="another")
    settings = KafkaSettings(
        security_protocol="SSL",
        ssl_certfile=str(mine.certificate),
        ssl_keyfile=str(mine.key),
        ssl_key_password=SECRET,
    )
    with pytest.raises(UsageError, match="ssl_key_password_file") as caught:
        asyncio.run(KafkaLog(["localhost:1"], "x", settings).open())
    assert SECRET not in repr(caught.value) + str(caught.value.__cause__) + repr(settings)


# What nobody sees -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"])
@pytest.mark.parametrize("let_in", [True, False])
def test_no_secret_is_logged_even_at_debug(
    team: Team, login: str, let_in: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Given everything logged at DEBUG, what kafka-python says of the login holds neither password nor token."""
    secure = team.secure
    if login == "OAUTHBEARER":
        secret = unsigned_token(team.name(Role.READER)) if let_in else SECRET
        server, settings = secure.token, token_settings(secret)
    elif login == "PLAIN":
        secret = PLAIN_PASSWORD if let_in else SECRET
        server, settings = secure.login, secure.settings(PLAIN_USER, secret, login)
        secure.grant(f"User:{PLAIN_USER}", permissions(Role.READER, team.namespace))
    else:
        secret = PASSWORD if let_in else SECRET
        server, settings = secure.login, secure.settings(team.name(Role.READER), secret, login)

    async def scenario() -> str:
        log = KafkaLog([server], team.namespace, settings)
        try:
            async with opened(log):
                return repr(log)
        except LogUnavailable as error:
            return "".join(chain_of(error))

    with caplog.at_level(logging.DEBUG):
        shown = asyncio.run(scenario())
    records = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    assert "SaslHandshake" in records  # so the login was logged, and could have told
    assert secret not in records + shown + repr(settings) + str(settings)


def chain_of(error: BaseException | None) -> list[str]:
    """An error's text and that of all behind it."""
    texts: list[str] = []
    while error is not None:
        texts.append(f"{error!r} {error} {error.args}")
        error = error.__cause__ or error.__context__
    return texts
