"""`refold acls`, and the command line on a cluster with logins: what is printed, and what never is."""

import json
import uuid
from pathlib import Path

import pytest

from cli_process import CommandLine
from kafka_secure import SecureBroker
from refold.log.kafka_acls import Role, permissions

URL = "kafka://broker:9093/shop"
SECRET = "do-not-show-me-8f3a"


def test_the_table_has_every_role_and_permission(shop: Path) -> None:
    """Given no principal, all roles are printed with what each needs."""
    said = CommandLine(shop, "sqlite:///unused.db")("acls", URL).stdout
    rows = [line.split() for line in said.splitlines()[1:]]
    assert [row[0] for row in rows if row[0] in set(Role)] == list(Role)
    assert rows_of(rows, "worker")[0][:4] == ["worker", "group", "shop.workers", "READ"]
    for role in Role:
        words = {word for row in rows_of(rows, role) for word in row}
        assert {one.name for one in permissions(role, "shop")} <= words


def rows_of(rows: list[list[str]], role: str) -> list[list[str]]:
    """The table's rows of one role."""
    firsts = [index for index, row in enumerate(rows) if row[0] in set(Role)]
    begin = next(index for index in firsts if rows[index][0] == role)
    end = next((index for index in firsts if index > begin), len(rows))
    return rows[begin:end]


def test_commands_grant_exactly_the_table(shop: Path) -> None:
    """Given principals, one kafka-acls.sh command is printed for each resource of their roles."""
    refold = CommandLine(shop, URL)
    said = refold(
        "acls", "--client", "web", "--worker", "User:CN=shop worker", "--format", "commands"
    )
    assert said.stdout.splitlines()[0] == (
        "kafka-acls.sh --bootstrap-server broker:9093 --add --allow-principal User:web"
        " --operation Write --topic shop.commands"
    )
    worker = [line for line in said.stdout.splitlines() if "'User:CN=shop worker'" in line]
    assert sum(line.count("--operation") for line in worker) == len(
        permissions(Role.WORKER, "shop")
    )
    assert any("--operation DescribeConfigs" in line for line in worker)
    assert any(line.endswith("--operation Read --group shop.workers") for line in worker)


def test_a_worker_of_a_pool_needs_the_pools_group(shop: Path) -> None:
    """Given --pool, a worker is granted the group of that pool in place of the common one."""
    said = CommandLine(shop, URL)(
        "acls", "--worker", "gpu", "--pool", "gpu", "--format", "json"
    ).stdout
    groups = [one["name"] for one in json.loads(said) if one["resource"] == "group"]
    assert groups == ["shop.workers.gpu"]


def test_a_reader_in_a_group_needs_it(shop: Path) -> None:
    """Given --group, a reader is granted that consumer group; workers' can't be a reader's."""
    refold = CommandLine(shop, URL)
    said = refold("acls", "--reader", "bi", "--group", "views", "--format", "json").stdout
    assert [one["name"] for one in json.loads(said) if one["resource"] == "group"] == ["shop.views"]
    refused = refold("acls", "--reader", "bi", "--group", "workers.gpu", code=2).stderr
    assert "can't name a group of readers" in refused


def test_json_has_each_permission(shop: Path) -> None:
    """Given --format json, a program reads what an AclBinding has."""
    said = CommandLine(shop, URL)("acls", "--reader", "audit", "--format", "json").stdout
    assert [(one["principal"], one["name"], one["operation"]) for one in json.loads(said)] == [
        ("User:audit", one.name, one.operation) for one in permissions(Role.READER, "shop")
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--format", "commands"), "at least one of --client"),
        (("--client", ""), "no principal"),
        (("sqlite:///x.db",), "about a namespace on Kafka, and"),
    ],
)
def test_what_can_not_be_printed_is_refused(shop: Path, words: tuple[str, ...], told: str) -> None:
    """Given words that make no sense together, the exit code is that of wrong usage."""
    said = CommandLine(shop, URL)("acls", *words, code=2).stderr
    assert told in " ".join(said.split())


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--url", f"kafka://me:{SECRET}@localhost:1/x"),
        ("topics", "create", f"kafka://localhost:1/x?sasl_password={SECRET}"),
    ],
)
def test_a_password_on_the_command_line_is_refused(shop: Path, words: tuple[str, ...]) -> None:
    """Given a password where every user of the machine can read it, nothing is done, and it is not repeated."""
    said = CommandLine(shop, URL)(*words, code=2)
    assert "sasl_password_file" in said.stderr
    assert SECRET not in said.stdout + said.stderr


def test_the_command_line_logs_in_by_file_and_environment_and_shows_no_password(
    secure_broker: SecureBroker, shop: Path
) -> None:
    """Given settings in a file and the password in REFOLD_URL: topics, a worker and a start; then a wrong password."""
    namespace, user, password = f"cli-{uuid.uuid4().hex[:8]}", f"cli-{uuid.uuid4().hex[:8]}", SECRET
    secure_broker.add_user(user, password)
    for role in (Role.ADMIN, Role.WORKER):
        secure_broker.grant(f"User:{user}", permissions(role, namespace))
    (shop / "refold.toml").write_text(
        f'[kafka]\nsecurity_protocol = "SASL_SSL"\nssl_cafile = "{secure_broker.authority.certificate}"\n'
        'sasl_mechanism = "SCRAM-SHA-256"\n'
    )
    url = f"kafka://{user}:{password}@{secure_broker.login}/{namespace}?settings=refold.toml"
    refold = CommandLine(shop, url)
    made = refold("topics", "create", "--partitions", "2")
    with refold.begin("worker", "shop") as worker:
        worker.until("claimed=")
        done = refold("start", "shop:checkout", "42", "--id", "order-42")
        assert SECRET.encode() not in Path(f"/proc/{worker.process.pid}/cmdline").read_bytes()
    listed = refold("list")
    assert "order-42" in listed.stdout
    wrong = CommandLine(shop, url.replace(password, f"{password}-wrong"))("list", code=4)
    assert "refuses the login by SCRAM-SHA-256" in " ".join(wrong.stderr.split())
    debugged = CommandLine(shop, url.replace(password, f"{password}-wrong"))(
        "list", "--debug", code=4
    )
    said = [made, done, listed, wrong, debugged]
    shown = worker.said + "".join(one.stdout + one.stderr for one in said)
    assert SECRET not in shown
