"""`refold schemas`: printed, exported, registered, and served to those who ask a schema registry."""

import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError
from typer.testing import CliRunner, Result

from cli_process import CommandLine
from refold.log.schema_ids import current
from refold.log.schema_registry import registry_at
from refold.services.cli import app
from refold.services.exits import ExitCode

EVENT = current()[0]
SUBJECT = "shop.db.events-value"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `refold schemas serve` serves, as a process."""
    refold = CommandLine(tmp_path_factory.mktemp("served"), "sqlite:///shop.db")
    with refold.begin("schemas", "serve", "--port", "0") as serving:
        found = re.search(r"url=(http://127\.0\.0\.1:\d+)", serving.until("schemas url="))
        assert found is not None
        yield found[1]
        assert serving.stopped(signal.SIGTERM) == 0, serving.said


def asked(url: str, method: str = "GET", body: object = None) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            assert answer.headers["Content-Type"].startswith(
                "application/vnd.schemaregistry.v1+json"
            )
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:  # left open, it is warned of from Python 3.14 on
            return error.code, json.load(error)


def said(*words: str, code: ExitCode = ExitCode.OK) -> Result:
    """Run `refold schemas` in this process."""
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1", "REFOLD_URL": "sqlite:///shop.db"})
    result = runner.invoke(app, ["schemas", *words])
    assert result.exit_code == code, result.output
    return result


def test_schemas_are_listed_with_their_numbers() -> None:
    """Given a release, its schemas are listed for people, and as JSON with the whole schema."""
    assert re.search(rf"{EVENT.id} +event +1 +shop\.db\.events-value", said("list").stdout)
    rows = [json.loads(line) for line in said("list", "--json").stdout.splitlines()]
    assert [row["id"] for row in rows] == [one.id for one in current()]
    assert rows[0]["schema"] == json.loads(EVENT.text)


def test_a_schema_is_printed_by_name_and_by_number(tmp_path: Path) -> None:
    """Given a name or a number, the schema is printed as it ships; an unknown one is an error with those there are."""
    assert said("show", "event").stdout == EVENT.text
    assert said("show", str(EVENT.id)).stdout == EVENT.text
    refused = said("show", "evnt", code=ExitCode.USAGE)
    assert "there are event, command, reply" in refused.stderr
    said("export", str(tmp_path / "out/avro"))
    written = {path.stem: path.read_text() for path in (tmp_path / "out/avro").iterdir()}
    assert written == {one.name: one.text for one in current()}


def test_a_log_without_a_registry_has_nothing_to_register() -> None:
    """Given a SQLite log, registering says that its numbers are refold's own."""
    done = said("register", code=ExitCode.USAGE)
    assert "is not on Kafka" in done.stderr


def test_without_the_extra_the_error_names_it(refold: CommandLine, shop: Path) -> None:
    """Given no FastAPI, serving does not start and says what to install."""
    (shop / "fastapi.py").write_text("raise ImportError('not installed')\n")
    done = refold("schemas", "serve", code=ExitCode.USAGE)
    assert "pip install 'refold[http]'" in done.stderr


def test_a_port_that_is_taken_is_one_error(refold: CommandLine, url: str) -> None:
    """Given a port in use, the error names it and the option."""
    port = url.rpartition(":")[2]
    done = refold("schemas", "serve", "--port", port, code=ExitCode.USAGE)
    assert f"can't be served at 127.0.0.1:{port}" in done.stderr


def test_confluents_client_finds_everything(url: str) -> None:
    """Given the endpoint, confluent's own client reads schemas, subjects, versions and compatibility from it."""
    client = SchemaRegistryClient({"url": url})
    assert client.get_schema(EVENT.id).schema_str == EVENT.text
    subjects = sorted(one.subject("shop.db") for one in current())
    assert client.get_subjects() == subjects
    assert client.get_versions(SUBJECT) == [1]
    latest = client.get_latest_version(SUBJECT)
    assert (latest.schema_id, latest.version) == (EVENT.id, 1)
    assert client.get_version(SUBJECT, 1).schema == latest.schema
    assert client.lookup_schema(SUBJECT, Schema(EVENT.text, "AVRO")).schema_id == EVENT.id
    (place,) = client.get_schema_versions(EVENT.id)
    assert (place.subject, place.version) == (SUBJECT, 1)
    assert client.get_subjects_by_schema_id(EVENT.id) == [SUBJECT]
    assert client.get_compatibility(SUBJECT) == client.get_compatibility() == "BACKWARD_TRANSITIVE"
    assert client.get_schema_types() == ["AVRO"]
    assert client.get_global_mode() == "READONLY"
    with pytest.raises(SchemaRegistryError, match="read-only") as refused:
        client.register_schema(SUBJECT, Schema('"string"', "AVRO"))
    assert refused.value.http_status_code == 422
    client.close()


def test_refold_can_take_its_numbers_from_its_own_endpoint(url: str) -> None:
    """Given the endpoint as the registry of a log, its numbers are refold's own, and nothing needs registering."""
    registry = registry_at(url)
    assert [registry.find(one.subject("shop.db"), one.text) for one in current()] == [
        one.id for one in current()
    ]
    assert registry.text(EVENT.id) == EVENT.text
    assert registry.text(1) is None
    registry.close()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/schemas/ids/7", 40403),
        ("/schemas/ids/seven", 40403),
        ("/subjects/nobody/versions", 40401),
        ("/config/nobody", 40401),
        (f"/subjects/{SUBJECT}/versions/2", 40402),
        (f"/subjects/{SUBJECT}/versions/0", 42202),
        ("/elsewhere", 404),
    ],
)
def test_what_is_not_there_has_the_code_that_clients_know(url: str, path: str, code: int) -> None:
    """Given a question about nothing, the error code is that of Confluent's registry."""
    status, answer = asked(url + path)
    assert answer["error_code"] == code
    assert status == int(str(code)[:3])


def test_the_rest_of_the_paths(url: str) -> None:
    """Given the endpoint, the schema alone, filtered subjects, questions without one and writes are answered."""
    assert asked(f"{url}/") == (200, {})
    assert asked(f"{url}/schemas/ids/{EVENT.id}/schema") == (200, json.loads(EVENT.text))
    assert asked(f"{url}/subjects/{SUBJECT}/versions/latest/schema")[1] == json.loads(EVENT.text)
    assert asked(f"{url}/subjects?subjectPrefix=shop.db.e") == (200, [SUBJECT])
    assert asked(f"{url}/subjects/{SUBJECT}", "POST", {"schema": '"int"'})[1]["error_code"] == 40403
    assert asked(f"{url}/subjects/{SUBJECT}", "POST", ["no"])[1]["error_code"] == 42201
    assert asked(f"{url}/config", "PUT", {"compatibility": "NONE"})[1]["error_code"] == 42205
    assert asked(f"{url}/subjects/{SUBJECT}", "DELETE")[1]["error_code"] == 42205
