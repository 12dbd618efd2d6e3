"""docker-compose.yml and Dockerfile say nothing that is not there: checked without Docker, by what would read them."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main

from compose import Compose, Service
from refold.log.kafka_options import SETTINGS
from refold.services.cli import app
from refold.services.loading import load_workflows

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
COMPOSE = Compose.read(FILE)
OURS = {name: service for name, service in COMPOSE.services.items() if service.built}


def validated(path: Path) -> subprocess.CompletedProcess[str]:
    """Hold a file to the compose specification's own JSON schema."""
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_file_is_what_the_specification_allows() -> None:
    """Given docker-compose.yml, the compose specification's schema finds nothing wrong."""
    done = validated(FILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_specification_finds_a_mistake(tmp_path: Path) -> None:
    """Given the file with a misspelt key, the schema refuses it."""
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(FILE.read_text().replace("depends_on:", "depend_on:"))
    assert validated(wrong).returncode != 0


def parsed(words: Sequence[str]) -> Mapping[str, object]:
    """What refold's own parser makes of a command's options and arguments. Nothing is run.

    Raises:
        Exception: The parser's, where it does not take the command.
    """
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="refold")
    rest = list(words)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.context_class(command, info_name=name, parent=context)
    params: Mapping[str, object] = command.make_context(context.info_name, rest).params
    return params


REFOLD = {name: service for name, service in OURS.items() if not service.entrypoint}


@pytest.mark.parametrize("name", REFOLD)
def test_every_command_is_one_that_refold_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a service's command and variables, refold's parser takes all of it, and the log's URL from there."""
    service = REFOLD[name]
    for variable, value in service.environment.items():
        monkeypatch.setenv(variable, value)
    assert parsed(service.command)["url"] == "kafka://kafka:9092/demo"


def test_a_command_that_refold_does_not_take_is_found() -> None:
    """Given a misspelt option or command, the parser refuses it: the test above can fail."""
    with pytest.raises(Exception, match="No such option"):
        parsed(("worker", "examples.hello", "--metric-port", "1"))
    with pytest.raises(Exception, match="No such command"):
        parsed(("topic", "create"))


def variables() -> Iterator[str]:
    """Every environment variable that refold reads."""
    yield from (setting.variable for setting in SETTINGS.values())
    command = typer.main.get_command(app)
    pending: list[Any] = [command]
    while pending:
        command = pending.pop()
        pending.extend(getattr(command, "commands", {}).values())
        for parameter in command.params:
            named = parameter.envvar
            yield from [named] if isinstance(named, str) else named or []


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_one_that_refold_reads(name: str) -> None:
    """Given a service of ours, each of its variables means something to refold."""
    assert OURS[name].environment.keys() <= set(variables())


def test_the_workflows_that_are_named_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the workers' modules, and those that the file's own text proposes, there are workflows in them."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    proposed = re.findall(r"REFOLD_APP=(\S+)", FILE.read_text())
    assert proposed
    try:
        for modules in [[service.command[1]] for service in workers().values()] + [proposed]:
            assert load_workflows(modules)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "examples"]:
            del sys.modules[name]


def workers() -> Mapping[str, Service]:
    return {name: one for name, one in OURS.items() if one.command[:1] == ("worker",)}


def test_there_are_two_workers_a_client_and_whoever_makes_the_topics_once() -> None:
    """Given the file, its services are those of a small deployment."""
    assert len(workers()) == 2
    assert {"kafka", "topics", "client", "schemas"} <= COMPOSE.services.keys()


def test_services_begin_when_what_they_need_is_there() -> None:
    """Given what a service depends on, that exists, can be asked whether it works, or comes to an end."""
    for name, service in COMPOSE.services.items():
        for needed, condition in service.needs.items():
            other = COMPOSE.services[needed]
            assert condition in {"service_healthy", "service_completed_successfully"}, name
            assert bool(other.healthcheck) == (condition == "service_healthy"), (name, needed)
    assert COMPOSE.services["topics"].needs == {"kafka": "service_healthy"}
    for name in OURS.keys() - {"topics"}:
        assert COMPOSE.services[name].needs["topics"] == "service_completed_successfully", name


def test_ports_are_this_machines_own_and_used_once() -> None:
    """Given the published ports, none is open to the network, none is taken twice, and each is listened at."""
    taken = [port.published for service in COMPOSE.services.values() for port in service.ports]
    assert len(taken) == len(set(taken))
    for name, service in COMPOSE.services.items():
        for port in service.ports:
            assert port.address == "127.0.0.1"
            listened = [*service.command, service.environment.get("KAFKA_LISTENERS", "")]
            assert any(str(port.target) in word for word in listened), (name, port)
    for service in OURS.values():
        for port in service.ports:
            assert f"127.0.0.1:{port.target}/" in service.healthcheck[-1]


def test_kafka_listens_where_it_says_that_it_does() -> None:
    """Given Kafka's listeners, each that is advertised is there, and the log's URL names one of them."""
    kafka = COMPOSE.services["kafka"].environment
    listeners = dict(one.split("://") for one in kafka["KAFKA_LISTENERS"].split(","))
    advertised = dict(one.split("://") for one in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(
        one.split(":") for one in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    )
    assert listeners.keys() == protocols.keys()
    assert listeners.keys() - advertised.keys() == {kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    for name, address in advertised.items():
        assert listeners[name].rpartition(":")[2] == address.rpartition(":")[2]
    internal = advertised[kafka["KAFKA_INTER_BROKER_LISTENER_NAME"]]
    for service in OURS.values():
        assert service.environment["REFOLD_URL"].startswith(f"kafka://{internal}/")
    published = {port.target for port in COMPOSE.services["kafka"].ports}
    assert published == {int(advertised["HOST"].rpartition(":")[2])}


def test_named_volumes_are_declared() -> None:
    """Given a volume that a service uses, the file declares it."""
    used = {name for service in COMPOSE.services.values() for name in service.volumes}
    assert used == COMPOSE.volumes


class TestDockerfile:
    """The image, as far as it can be checked without an engine that builds it."""

    LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()

    def instructions(self, name: str) -> list[list[str]]:
        return [line.split()[1:] for line in self.LINES if line.split()[:1] == [name]]

    def test_what_is_copied_is_there(self) -> None:
        """Given a COPY, its source is in the repository, and kept from Docker by nothing."""
        ignored = (ROOT / ".dockerignore").read_text().split()
        copied = [words for words in self.instructions("COPY") if not words[0].startswith("--")]
        assert copied
        for *sources, _ in copied:
            for source in sources:
                assert (ROOT / source).exists(), source
                assert not any(Path(source).match(pattern) for pattern in ignored), source

    def test_the_package_is_all_there(self, tmp_path: Path) -> None:
        """Given only what is copied before the wheel is made, every folder of the package is in it."""
        for *sources, target in self.instructions("COPY"):
            if sources[0].startswith("--") or target == "examples":
                continue
            for source in sources:
                copy = tmp_path / source
                if (ROOT / source).is_dir():
                    shutil.copytree(
                        ROOT / source,
                        copy,
                        symlinks=True,
                        ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
                    )
                else:
                    shutil.copy(ROOT / source, copy)
        here, there = (
            {
                str(path.relative_to(folder / "src"))
                for package in ("", "engine", "log", "projections", "services")
                for path in (folder / "src" / "refold" / package).rglob("*.*")
                if "__pycache__" not in path.parts
            }
            for folder in (ROOT, tmp_path)
        )
        assert here == there
        project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
        for name in (project["readme"], *project["license-files"]):
            assert (tmp_path / name).exists()

    def test_the_extras_and_the_entry_point_exist(self) -> None:
        """Given what is installed and started, the package has those extras and that script."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        (extras,) = re.findall(r"\.whl\)\[([a-z0-9,]+)\]", "\n".join(self.LINES))
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()
        assert {"metrics", "http", "registry"} <= set(extras.split(","))
        (entry,) = self.instructions("ENTRYPOINT")
        assert entry == ['["refold"]']
        assert "refold" in project["scripts"]

    def test_its_python_is_one_that_refold_runs_on(self) -> None:
        """Given the base image, its Python is named among those that are supported."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for words in self.instructions("FROM"):
            version = re.fullmatch(r"python:(3\.\d+)-slim", words[0])
            assert version is not None
            assert f"Programming Language :: Python :: {version[1]}" in project["classifiers"]
