"""The PostgreSQL that tests stand on: real, and never left behind."""

import psycopg
import pytest

import postgres_server


def test_a_client_reads_what_another_wrote(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE SCHEMA server_test")
        connection.execute("CREATE TABLE server_test.t AS SELECT 7 AS n")
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT n FROM server_test.t").fetchall() == [(7,)]
        connection.execute("DROP SCHEMA server_test CASCADE")


def test_the_address_that_the_environment_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URL", "postgresql://somewhere/else")
    with postgres_server.find_or_start() as url:
        assert url == "postgresql://somewhere/else"


@pytest.mark.slow
def test_a_server_is_gone_after_its_block(monkeypatch: pytest.MonkeyPatch, postgres: str) -> None:
    monkeypatch.delenv("POSTGRES_URL", raising=False)
    with postgres_server.find_or_start(["fsync=off"]) as url:
        psycopg.connect(url).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
