"""What `refold doctor` finds, on logs that are well and on logs that are not."""

import asyncio
import json
import sqlite3
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource

from cli_process import CommandLine
from kafka_backend import TEST_SETTINGS, KafkaBackend
from kafka_secure import SecureBroker
from log_backend import PATIENCE_S
from refold import Engine, UsageError, workflow
from refold.log.findings import Finding, Level
from refold.log.kafka import KafkaLog, create_topics
from refold.log.kafka_acls import Role, permissions
from refold.log.kafka_clock import compare
from refold.log.memory import MemoryLog
from refold.log.protocol import Channel, Log
from refold.log.sqlite import SqliteLog
from refold.log.sqlite_doctor import file_system_of
from refold.services.doctor import Claim, claim_findings, diagnose


@workflow
async def greet(name: str) -> str:
    """Ends at once."""
    return f"hello {name}"


def found(log: Log) -> list[Finding]:
    return asyncio.run(diagnose(log))


def of(check: str, findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def levels(check: str, findings: Sequence[Finding]) -> set[Level]:
    return {finding.level for finding in of(check, findings)}


def told(findings: Sequence[Finding], level: Level) -> str:
    return "\n".join(f"{f.check}: {f.told} -> {f.advice}" for f in findings if f.level is level)


class TestClaims:
    ONE = Claim("one", 0, given_up=False)

    @pytest.mark.parametrize(
        ("claim", "holders", "level", "said"),
        [
            (None, {}, Level.OK, "nobody has claimed"),
            (ONE, {0: "refold-one"}, Level.OK, "by 'one'"),
            (ONE, {0: ""}, Level.OK, "by 'one'"),
            (ONE, None, Level.OK, "can't be told"),
            (ONE, {}, Level.OK, "not there any more"),
            (ONE, {1: "refold-two"}, Level.WARN, "runs stand still"),
            (ONE, {0: "refold-two"}, Level.WARN, "given to 'refold-two'"),
            (ONE, {0: "refold-everyone"}, Level.WARN, "given to 'refold-everyone'"),
            (Claim("one", 0, given_up=True), {}, Level.OK, "handed over in order"),
        ],
    )
    def test_a_claim_is_judged_by_who_is_there(
        self, claim: Claim | None, holders: Mapping[int, str] | None, level: Level, said: str
    ) -> None:
        """Given a claim and whoever has the partition, the finding says whether the two agree."""
        (finding,) = claim_findings({0: claim}, holders)
        assert finding.level is level
        assert said in finding.told

    def test_partitions_of_one_worker_are_told_together(self) -> None:
        """Given a worker with many partitions, there is one finding for it."""
        claims = dict.fromkeys([0, 1, 2, 5], self.ONE)
        (finding,) = claim_findings(claims, dict.fromkeys(claims, "refold-one"))
        assert finding.told.startswith("partitions 0-2, 5 by 'one'")


class TestClock:
    @pytest.mark.parametrize(
        ("clock_s", "level", "said"),
        [
            (100.05, Level.OK, "agree"),
            (99.9, Level.OK, "agree"),
            (101.1, Level.WARN, "1.0 s ahead of"),
            (97.0, Level.WARN, "3.0 s behind"),
            (10.0, Level.FAIL, "90.0 s behind"),
        ],
    )
    def test_only_what_the_request_can_not_explain_counts(
        self, clock_s: float, level: Level, said: str
    ) -> None:
        """Given a reading taken within 100 ms, the difference is what lies outside of these."""
        finding = compare("broker 1", clock_s, 100.0, 100.1)
        assert finding.level is level
        assert said in finding.told


class TestFileSystem:
    def test_the_innermost_and_latest_mount_counts(self, tmp_path: Path) -> None:
        """Given mounts inside and above each other, the type is that of the one which a path is really on."""
        inner = tmp_path / "with space"
        inner.mkdir()
        mounts = tmp_path / "mounts"
        escaped = str(inner).replace(" ", "\\040")
        mounts.write_text(
            f"/dev/sda1 / ext4 rw 0 0\nserver:/x {escaped} ext4 rw 0 0\nserver:/y {escaped} nfs4 rw 0 0\n"
        )
        assert file_system_of(inner / "a.db", mounts) == "nfs4"
        assert file_system_of(tmp_path / "a.db", mounts) == "ext4"
        assert file_system_of(tmp_path / "a.db", tmp_path / "none") is None


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A log with one finished run."""
        path = tmp_path / "a.db"
        with Engine(SqliteLog(path), workflows=[greet]) as engine:
            assert engine.start(greet, "you").result() == "hello you"
        return path

    def test_a_log_at_work_is_well(self, tmp_path: Path) -> None:
        """Given a log with a worker, nothing fails, the partition is held, and its runs are counted."""
        path = tmp_path / "a.db"
        with Engine(SqliteLog(path), workflows=[greet], name="one") as engine:
            engine.start(greet, "you").result()
            findings = found(SqliteLog(path))
        assert told(findings, Level.FAIL) == ""
        assert "1 there, 1 of 1 partitions are held" in told(findings, Level.OK)
        assert "partition 0 by 'one'" in told(findings, Level.OK)
        assert "1 in all, 0 running" in told(findings, Level.OK)

    def test_an_examination_changes_nothing(self, path: Path) -> None:
        """Given a log, what is in its file is the same before and after."""

        def rows() -> list[str]:
            with closing(sqlite3.connect(path)) as connection:
                return list(connection.iterdump())

        before = rows()
        found(SqliteLog(path))
        assert rows() == before

    def test_damage_fails(self, path: Path) -> None:
        """Given a file with a page overwritten, the content fails, and what to do is a backup or a rescue."""
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 8192)
        findings = found(SqliteLog(path))
        assert Level.FAIL in levels("content", findings) | levels("file", findings)
        assert "backup" in told(findings, Level.FAIL)

    def test_another_programs_file_fails_and_is_left_alone(self, tmp_path: Path) -> None:
        """Given a SQLite file that is no log, it is called by its name."""
        path = tmp_path / "other.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t (x)")
        before = path.read_bytes()
        assert "of another program" in told(found(SqliteLog(path)), Level.FAIL)
        assert path.read_bytes() == before

    def test_another_journal_mode_is_a_warning_and_stays(self, path: Path) -> None:
        """Given a file whose journal somebody set, the doctor says so and does not set it back."""
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        assert levels("journal", found(SqliteLog(path))) == {Level.WARN}
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)

    def test_memory_can_not_be_examined(self) -> None:
        """Given a log in memory, there is nothing around it."""
        with pytest.raises(UsageError, match="nothing that could be examined"):
            found(MemoryLog())


class TestCommand:
    def test_exit_codes_tell_the_worst(self, refold: CommandLine) -> None:
        """Given no file, then a log without a worker, the codes are 2 and 1, and a log of refold's making is told."""
        missing = refold("doctor", code=2)
        assert "there is no file" in missing.stdout
        refold("run", "shop:checkout", "1")
        page = refold("doctor", code=1).stdout
        assert "no worker is there" in page
        assert "refold worker MODULE" in page
        assert "findings are worth a thought" in page

    def test_json_has_all_of_it(self, refold: CommandLine) -> None:
        """Given --json, there is one object with the worst level and each finding."""
        refold("run", "shop:checkout", "1")
        answer = json.loads(refold("doctor", "--json", code=1).stdout)
        assert (answer["level"], answer["log"]) == ("warn", "shop.db")
        assert {"check", "level", "told", "advice"} == set(answer["findings"][0])
        assert {finding["check"] for finding in answer["findings"]} >= {
            "versions",
            "file",
            "claims",
        }

    def test_parked_runs_are_told_with_their_reason(self, refold: CommandLine) -> None:
        """Given a parked run, the doctor names it, and how to find the others."""
        refold("run", "shop:parking", "--id", "stuck", code=3)
        page = refold("doctor", code=1).stdout
        assert "1 of 1 are parked, as 'stuck'" in page
        assert "refold list --status parked" in page


@contextmanager
def admin_of(backend: KafkaBackend) -> Generator[KafkaAdminClient, None, None]:
    admin = KafkaAdminClient(bootstrap_servers=backend.servers)
    try:
        yield admin
    finally:
        admin.close()


def set_to(topic: str, **settings: str) -> Callable[[KafkaAdminClient, str], None]:
    """Give a topic of the namespace other settings."""

    def spoil(admin: KafkaAdminClient, namespace: str) -> None:
        named = {name.replace("_", "."): value for name, value in settings.items()}
        admin.alter_configs([ConfigResource("TOPIC", f"{namespace}.{topic}", named)])

    return spoil


def made_again(admin: KafkaAdminClient, namespace: str) -> None:
    """Delete events and make the topic again."""
    topic = f"{namespace}.events"
    admin.delete_topics([topic])
    while topic in admin.list_topics():
        pass
    admin.create_topics(
        {topic: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True
    )


def with_more_partitions(admin: KafkaAdminClient, namespace: str) -> None:
    """Add partitions to commands."""
    admin.create_partitions({f"{namespace}.commands": 3})


class TestKafka:
    def test_a_namespace_at_work(self, kafka_bootstrap: str) -> None:
        """Given a worker that has done something, all is told: brokers, topics, clock, worker, lag, claims, runs."""
        backend = KafkaBackend(kafka_bootstrap)
        with Engine(
            backend.kafka_log(TEST_SETTINGS),
            workflows=[greet],
            name="one",
            start_timeout_s=PATIENCE_S,
        ) as engine:
            assert engine.start(greet, "you").result(PATIENCE_S) == "hello you"
            while (findings := found(backend.log())) and "held" not in _claimed(findings):
                pass  # until both partitions are claimed
        assert told(findings, Level.FAIL) == ""
        for check in (
            "brokers",
            "topics",
            "in sync",
            "settings",
            "clock",
            "workers",
            "lag",
            "runs",
        ):
            assert Level.OK in levels(check, findings), check
        assert "refold-one at" in told(of("workers", findings), Level.OK)
        assert "4 topics with the ids recorded, 2 partitions" in told(findings, Level.OK)

    def test_it_writes_nothing_but_a_reply(self, kafka_bootstrap: str) -> None:
        """Given a namespace, an examination adds no command, event or record of what it is."""
        backend = KafkaBackend(kafka_bootstrap)

        async def ends() -> list[int]:
            log = backend.log()
            await log.open()
            try:
                channels = (Channel.EVENTS, Channel.COMMANDS)
                return [(await log.bounds(channel, p)).end for channel in channels for p in (0, 1)]
            finally:
                await log.close()

        before = asyncio.run(ends())
        found(backend.log())
        assert asyncio.run(ends()) == before

    def test_without_a_worker_waiting_commands_are_told(self, kafka_bootstrap: str) -> None:
        """Given a start that nobody takes up, the doctor says so, by partition."""
        backend = KafkaBackend(kafka_bootstrap, 1)
        with Engine(backend.kafka_log(TEST_SETTINGS), worker=False) as client:
            client.start(greet, "you", confirm=False)
            findings = found(backend.log())
        assert "no worker is there" in told(findings, Level.WARN)
        assert "1 commands of partition 0 wait" in told(findings, Level.WARN)

    @pytest.mark.parametrize(
        ("spoil", "level", "check", "said"),
        [
            (set_to("events", retention_ms="1000"), Level.FAIL, "settings", "history will be lost"),
            (set_to("events", cleanup_policy="compact"), Level.FAIL, "settings", "is compacted"),
            (set_to("commands", cleanup_policy="compact"), Level.FAIL, "settings", "is compacted"),
            (
                set_to("commands", retention_ms="1000"),
                Level.FAIL,
                "settings",
                "nobody took up in time",
            ),
            (
                set_to("meta", cleanup_policy="delete", retention_ms="1000"),
                Level.FAIL,
                "settings",
                "would be forgotten",
            ),
            (
                set_to("events", unclean_leader_election_enable="true"),
                Level.FAIL,
                "settings",
                "records can vanish",
            ),
            (
                set_to("events", message_timestamp_type="CreateTime"),
                Level.WARN,
                "settings",
                "as many clocks",
            ),
            (
                set_to("events", max_message_bytes="50000"),
                Level.WARN,
                "settings",
                "up to 50,000 bytes",
            ),
            (set_to("events", min_insync_replicas="2"), Level.WARN, "settings", "has only one"),
            (made_again, Level.FAIL, "topics", "deleted and made again"),
            (with_more_partitions, Level.FAIL, "topics", "has 3 partitions"),
        ],
    )
    def test_what_was_spoilt_is_found(
        self,
        kafka_bootstrap: str,
        spoil: Callable[[KafkaAdminClient, str], None],
        level: Level,
        check: str,
        said: str,
    ) -> None:
        """Given a topic that somebody has changed, the finding says what, how bad it is, and what to do."""
        backend = KafkaBackend(kafka_bootstrap)
        with admin_of(backend) as admin:
            spoil(admin, backend.namespace)
        while said not in told(findings := of(check, found(backend.log())), level):
            pass  # the brokers take a moment to hear of it
        assert all(finding.advice for finding in findings if finding.level is level)

    def test_a_cut_history_without_a_checkpoint_fails(self, kafka_bootstrap: str) -> None:
        """Given events whose beginning somebody deleted, the doctor says how many are gone."""
        backend = KafkaBackend(kafka_bootstrap, 1)
        with Engine(backend.kafka_log(TEST_SETTINGS), workflows=[greet]) as engine:
            engine.start(greet, "you").result(PATIENCE_S)
        with admin_of(backend) as admin:
            admin.delete_records({TopicPartition(f"{backend.namespace}.events", 0): 2})
        findings = found(backend.log())
        assert "first 2 events of partition 0 are gone" in told(findings, Level.FAIL)

    def test_a_name_that_nobody_made(self, kafka_bootstrap: str) -> None:
        """Given a namespace that is not there, the doctor says what makes one."""
        log = KafkaLog(kafka_bootstrap.split(","), "nobody-made-this", TEST_SETTINGS)
        assert "there are no topics of nobody-made-this" in told(found(log), Level.FAIL)

    def test_a_broker_that_is_not_there(self) -> None:
        """Given an address where nobody listens, that is the finding, and all there is to say."""
        log = KafkaLog(["127.0.0.1:1"], "orders", replace(TEST_SETTINGS, connect_timeout_ms=300))
        assert "check the address" in told(found(log), Level.FAIL)


class TestSecured:
    @pytest.mark.parametrize("role", list(Role))
    def test_what_a_user_may_not_ask_is_a_finding(
        self, secure_broker: SecureBroker, role: Role
    ) -> None:
        """Given a user with one role's rights, the doctor tells what it may not see, and all that it may."""
        namespace, user = f"sick-{uuid.uuid4().hex[:8]}", f"user-{uuid.uuid4().hex[:8]}"
        asyncio.run(create_topics([secure_broker.admin], namespace, 2, None, TEST_SETTINGS))
        log = KafkaLog([secure_broker.admin], namespace, TEST_SETTINGS)
        with Engine(log, workflows=[greet], name="one", start_timeout_s=PATIENCE_S) as engine:
            engine.start(greet, "you").result(PATIENCE_S)
        secure_broker.add_user(user, "s3cret")
        secure_broker.grant(f"User:{user}", permissions(role, namespace))
        settings = secure_broker.settings(user, "s3cret")
        findings = found(KafkaLog([secure_broker.login], namespace, settings))
        assert levels("brokers", findings) <= {Level.OK, Level.WARN}
        assert Level.OK in levels("topics", findings)
        for finding in findings:
            assert "s3cret" not in finding.told + finding.advice
            assert finding.level is Level.OK or finding.advice
        if role is Role.CLIENT:  # it writes commands and reads replies, nothing else
            assert "may not write replies" in told(findings, Level.WARN)
            assert "events can't be read" in told(findings, Level.WARN)
        else:
            assert "by 'one'" in told(findings, Level.OK) or role is Role.ADMIN

    def test_a_wrong_password_is_told_as_one(self, secure_broker: SecureBroker) -> None:
        """Given a user that the cluster does not let in, the first finding says that, and is the last."""
        settings = secure_broker.settings("nobody", "wrong")
        findings = found(KafkaLog([secure_broker.login], "orders", settings))
        assert "refuses the login" in told(of("brokers", findings), Level.FAIL)
        assert of("topics", findings) == []


def _claimed(findings: Sequence[Finding]) -> str:
    """ "held" where one worker holds both partitions."""
    return "held" if "partitions 0-1 by 'one'" in told(of("claims", findings), Level.OK) else ""
