"""refold's schemas over HTTP, as a read-only schema registry: consumers that ask one need no other.

The paths, answers and error codes are those of Confluent's registry that readers use:
https://docs.confluent.io/platform/current/schema-registry/develop/api.html

    GET  /schemas/ids/{id}[/schema|/versions|/subjects]    GET /schemas/types
    GET  /subjects                                         POST /subjects/{subject}    is this schema registered?
    GET  /subjects/{subject}/versions[/{version}[/schema]]
    GET  /config[/{subject}]                               GET /mode

Who wants to register something is told that the registry is read-only.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from refold.log.schema_ids import Published, published, published_like
from refold.log.schema_registry import COMPATIBILITY
from refold.services.http_server import (
    FastAPI,
    HTTPException,
    JSONResponse,
    Request,
    RequestValidationError,
)

_NOTHING = 404
_NO_SUBJECT = 40401
_NO_VERSION = 40402
_NO_SCHEMA = 40403
_BAD_SCHEMA = 42201
_BAD_VERSION = 42202
_READ_ONLY = 42205

Notes = Mapping[int, str]


class Answer(JSONResponse):
    """JSON, called what registries call it."""

    media_type = "application/vnd.schemaregistry.v1+json"


class RegistryError(Exception):
    """What a registry says in place of an answer: `code` begins with the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Catalog:
    """The schemas of one namespace: refold's own, and those under numbers that a registry gave once.

    Args:
        namespace: What the subjects' names begin with.
        noted: Reads the numbers that are noted in the log -> their schemas.
    """

    def __init__(self, namespace: str, noted: Callable[[], Awaitable[Notes]]) -> None:
        self._noted = noted
        self._notes: Notes = {}
        self._by_id = {one.id: one for one in published()}
        self._subjects: dict[str, list[Published]] = {}
        for one in published():
            self._subjects.setdefault(one.subject(namespace), []).append(one)

    def subjects(self) -> list[str]:
        """Their names."""
        return sorted(self._subjects)

    def versions(self, subject: str) -> list[Published]:
        """What is registered under a subject, the oldest first.

        Raises:
            RegistryError: Nothing is.
        """
        if subject not in self._subjects:
            raise RegistryError(_NO_SUBJECT, f"Subject '{subject}' not found.")
        return self._subjects[subject]

    def version(self, subject: str, version: str) -> Published:
        """One of them; `latest` and -1 are the newest.

        Raises:
            RegistryError: There is no such subject, or it has no such version.
        """
        versions = self.versions(subject)
        if version in {"latest", "-1"}:
            return versions[-1]
        if not version.isdecimal() or int(version) < 1:
            raise RegistryError(
                _BAD_VERSION,
                f"The specified version '{version}' is not a valid version id. Allowed values are between "
                '[1, 2^31-1] and the string "latest"',
            )
        if int(version) > len(versions):
            raise RegistryError(_NO_VERSION, f"Version {version} not found.")
        return versions[int(version) - 1]

    async def text(self, id: int) -> str:
        """The schema that has this number.

        Raises:
            RegistryError: None has.
        """
        if id in self._by_id:
            return self._by_id[id].text
        if id not in self._notes:
            self._notes = await self._noted()  # perhaps it was noted since we looked
        if id not in self._notes:
            raise RegistryError(_NO_SCHEMA, f"Schema {id} not found")
        return self._notes[id]

    async def places(self, id: int) -> list[tuple[str, int]]:
        """Where the schema with this number is registered: subject and version.

        Raises:
            RegistryError: No schema has it.
        """
        schema = published_like(await self.text(id))
        return [
            (subject, one.version)
            for subject, versions in self._subjects.items()
            for one in versions
            if one == schema
        ]

    def look_up(self, subject: str, text: str) -> Published:
        """The registered version of a subject that is this schema.

        Raises:
            RegistryError: It is not registered there.
        """
        versions = self.versions(subject)
        schema = published_like(text)
        if schema is None or schema not in versions:
            raise RegistryError(_NO_SCHEMA, "Schema not found")
        return schema


class Registry:
    """The catalog over HTTP.

    Args:
        catalog: What there is.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def app(self) -> FastAPI:
        """The application."""
        app = FastAPI(title="refold's schemas", openapi_url=None, default_response_class=Answer)
        get: dict[str, Callable[..., Awaitable[Answer]]] = {
            "/": self._nothing,
            "/schemas/types": self._types,
            "/schemas/ids/{id}": self._schema,
            "/schemas/ids/{id}/schema": self._schema_alone,
            "/schemas/ids/{id}/versions": self._versions_of_schema,
            "/schemas/ids/{id}/subjects": self._subjects_of_schema,
            "/subjects": self._subjects,
            "/subjects/{subject}/versions": self._versions,
            "/subjects/{subject}/versions/{version}": self._version,
            "/subjects/{subject}/versions/{version}/schema": self._version_alone,
            "/config": self._config,
            "/config/{subject}": self._config_of,
            "/mode": self._mode,
            "/{path:path}": self._missing,
        }
        for path, endpoint in get.items():
            app.add_api_route(path, endpoint, methods=["GET"], response_model=None)
        app.add_api_route(
            "/subjects/{subject}", self._look_up, methods=["POST"], response_model=None
        )
        app.add_api_route(
            "/{path:path}",
            self._refuse,
            methods=["POST", "PUT", "DELETE"],
            response_model=None,
        )
        app.add_exception_handler(RegistryError, _told)
        app.add_exception_handler(HTTPException, _told)
        app.add_exception_handler(RequestValidationError, _told)
        return app

    async def _nothing(self) -> Answer:
        return Answer({})

    async def _types(self) -> Answer:
        return Answer(["AVRO"])

    async def _schema(self, id: int) -> Answer:
        return Answer({"schema": await self._catalog.text(id)})

    async def _schema_alone(self, id: int) -> Answer:
        return Answer(json.loads(await self._catalog.text(id)))

    async def _versions_of_schema(self, id: int) -> Answer:
        places = await self._catalog.places(id)
        return Answer([{"subject": subject, "version": version} for subject, version in places])

    async def _subjects_of_schema(self, id: int) -> Answer:
        return Answer([subject for subject, _ in await self._catalog.places(id)])

    async def _subjects(self, request: Request) -> Answer:
        prefix = request.query_params.get("subjectPrefix", "")
        return Answer([name for name in self._catalog.subjects() if name.startswith(prefix)])

    async def _versions(self, subject: str) -> Answer:
        return Answer([one.version for one in self._catalog.versions(subject)])

    async def _version(self, subject: str, version: str) -> Answer:
        return Answer(_entry(subject, self._catalog.version(subject, version)))

    async def _version_alone(self, subject: str, version: str) -> Answer:
        return Answer(json.loads(self._catalog.version(subject, version).text))

    async def _look_up(self, subject: str, request: Request) -> Answer:
        try:
            asked: Any = await request.json()
            text = str(asked["schema"])
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(_BAD_SCHEMA, "Empty schema, or no JSON") from error
        return Answer(_entry(subject, self._catalog.look_up(subject, text)))

    async def _config(self) -> Answer:
        return Answer({"compatibilityLevel": COMPATIBILITY})

    async def _config_of(self, subject: str) -> Answer:
        self._catalog.versions(subject)
        return Answer({"compatibilityLevel": COMPATIBILITY})

    async def _mode(self) -> Answer:
        return Answer({"mode": "READONLY"})

    async def _missing(self, path: str) -> Answer:
        raise RegistryError(_NOTHING, f"HTTP 404 Not Found: /{path}")

    async def _refuse(self, path: str) -> Answer:
        raise RegistryError(
            _READ_ONLY, f"/{path}: these are the schemas of a refold namespace, in read-only mode"
        )


def _entry(subject: str, schema: Published) -> dict[str, object]:
    return {
        "subject": subject,
        "version": schema.version,
        "id": schema.id,
        "schema": schema.text,
    }


async def _told(_: Request, error: Exception) -> Answer:
    match error:
        case RegistryError(code=code):
            pass
        case HTTPException(status_code=code):
            pass
        case _:  # a number that is none
            code = _NO_SCHEMA
    status = code // 100 if code > 999 else code
    return Answer({"error_code": code, "message": str(error)}, status_code=status)
