"""docker-compose.yml as its services: what each is started with, for tests that have no Docker.

compose = Compose.read(path, {"REFOLD_APP": "examples.hello"})
compose.services["topics"].command          # ["topics", "create"], as refold gets it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container, and where it is on the host."""

    address: str
    published: int
    target: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service, with nothing left to substitute.

    Args:
        image: Image that it runs.
        built: Whether the image is made from the repository's Dockerfile.
        entrypoint: What replaces the image's entrypoint; nothing where it stands.
        command: Its arguments.
        environment: Its variables.
        ports: Where it is reached from the host.
        needs: Service -> the condition under which this one starts.
        healthcheck: The command that asks whether it works; nothing where there is none.
        volumes: Named volumes.
    """

    image: str
    built: bool
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ports: tuple[Port, ...]
    needs: Mapping[str, str]
    healthcheck: tuple[str, ...]
    volumes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compose:
    """The file."""

    services: Mapping[str, Service]
    volumes: frozenset[str]

    @classmethod
    def read(cls, path: Path, environ: Mapping[str, str] | None = None) -> Compose:
        """The file with variables substituted from `environ`."""
        document: Any = YAML(typ="safe").load(path.read_text(encoding="utf-8"))  # pyright: ignore[reportUnknownMemberType]
        document = _substituted(document, environ or {})
        services = {name: _service(found) for name, found in document["services"].items()}
        return cls(services, frozenset(document.get("volumes", {})))


def _service(found: Mapping[str, Any]) -> Service:
    return Service(
        image=str(found["image"]),
        built="build" in found,
        entrypoint=_words(found.get("entrypoint", [])),
        command=_words(found.get("command", [])),
        environment={name: str(value) for name, value in found.get("environment", {}).items()},
        ports=tuple(_port(text) for text in found.get("ports", [])),
        needs={name: need["condition"] for name, need in found.get("depends_on", {}).items()},
        healthcheck=_words(found.get("healthcheck", {}).get("test", [])),
        volumes=tuple(str(text).partition(":")[0] for text in found.get("volumes", [])),
    )


def _words(command: str | list[str]) -> tuple[str, ...]:
    """A command as the container gets it; a string goes through its shell."""
    return ("CMD-SHELL", command) if isinstance(command, str) else tuple(map(str, command))


def _port(text: str) -> Port:
    address, published, target = text.split(":")
    return Port(address, int(published), int(target))


def _substituted(value: object, environ: Mapping[str, str]) -> object:
    match value:
        case str():
            return _VARIABLE.sub(lambda found: environ.get(found[1]) or found[2] or "", value)
        case list():
            return [_substituted(part, environ) for part in cast("list[object]", value)]
        case dict():
            parts = cast("dict[str, object]", value).items()
            return {name: _substituted(part, environ) for name, part in parts}
        case _:
            return value
