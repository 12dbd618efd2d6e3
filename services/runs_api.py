"""The workflows read model over HTTP, to be read only: what `refold list` and `refold show` say, as JSON.

    GET /runs                        a page of runs, filtered, in any order; `next` is the `after` of the next one
    GET /runs/{id}                   one run, with its steps
    GET /count                       how many runs
    GET /groups/{by}                 how many of each status, workflow, version, day, error_type, queue or parent
    GET /groups/attribute/{name}     ... or of each value of an attribute
    GET /healthz, /readyz            whether the process lives; whether the read model can be read
    GET /docs, /openapi.json         all this, for people and for programs

What can't be answered is told as JSON, in `detail`: 400 and 422 for a question that is wrong (a parameter that there is
not is one), 404 for a run that there is not, 503 where the read model can't be read.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from refold.engine.state import Status
from refold.log.errors import RefoldError
from refold.projections.read_model import ReadModel
from refold.projections.target import TargetError
from refold.projections.workflows_counts import RunGroup
from refold.projections.workflows_filter import RunFilter
from refold.projections.workflows_order import RunOrder
from refold.projections.workflows_runs import RunRow, StepRow
from refold.services.api_page import with_page
from refold.services.cli_values import read_attributes
from refold.services.http_server import (
    FastAPI,
    HTTPException,
    JSONResponse,
    Query,
    Request,
    Response,
)

MOST: Final = 1_000
"""Runs, or groups, in one answer."""


class Which(BaseModel):
    """Which runs: all that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[list[Status], Field(description="How they stand: one of these.")] = []
    workflow: Annotated[str | None, Field(description="Name of their workflow.")] = None
    version: Annotated[int | None, Field(ge=1, le=2**31, description="Of their code.")] = None
    queue: Annotated[str | None, Field(description="Runs of this queue.")] = None
    parent: Annotated[str | None, Field(description="The run that started them.")] = None
    attribute: Annotated[
        list[str], Field(description="NAME=VALUE, as `refold list --attribute` takes it.")
    ] = []
    error: Annotated[
        str | None, Field(description="A text in the error, or in the reason why they are parked.")
    ] = None
    since: Annotated[
        datetime | None, Field(description="Started then or later; ISO 8601, with a time zone.")
    ] = None
    before: Annotated[datetime | None, Field(description="Started before that.")] = None

    def where(self) -> RunFilter:
        """The filter.

        Raises:
            UsageError: An attribute can't be one, or a time has no zone.
        """
        return RunFilter(
            status={str(one) for one in self.status} or None,
            workflow=self.workflow,
            version=self.version,
            queue=self.queue,
            parent_id=self.parent,
            attributes=read_attributes(self.attribute),
            error=self.error,
            started_after=self.since,
            started_before=self.before,
        )


class Listed(Which):
    """... in which order, and how many of them."""

    sort: Annotated[RunOrder, Field(description="The latest, longest or last first.")] = "started"
    reverse: Annotated[bool, Field(description="The other way round.")] = False
    limit: Annotated[int, Field(ge=1, le=MOST)] = 50
    after: Annotated[str | None, Field(description="Where the page before ended: its `next`.")] = (
        None
    )


class Grouped(Which):
    """... of which groups are counted, and how many groups."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Runs, and where the next page begins; null where none does."""

    runs: Sequence[RunRow]
    next: str | None


@dataclass(frozen=True, slots=True)
class Whole:
    """A run and its steps, in code order."""

    run: RunRow
    steps: Sequence[StepRow]


@dataclass(frozen=True, slots=True)
class Count:
    """How many runs."""

    runs: int


@dataclass(frozen=True, slots=True)
class Group:
    """How many runs are of one kind."""

    key: str
    runs: int


@dataclass(frozen=True, slots=True)
class Groups:
    """Kinds of runs; of days the latest first, else those with the most runs."""

    groups: Sequence[Group]


class RunsApi:
    """The read model over HTTP.

    Args:
        model: What is read.
    """

    def __init__(self, model: ReadModel) -> None:
        self._model = model
        self.answers: Counter[int] = Counter()
        self.seconds = 0.0

    def app(self) -> FastAPI:
        """The application."""
        app = FastAPI(
            title="refold",
            description="Runs, as the workflows read model has them; to be read only.",
            docs_url=None,
            redoc_url=None,
        )
        get: dict[str, Callable[..., object]] = {
            "/runs": self._runs,
            "/runs/{id:path}": self._run,
            "/count": self._count,
            "/groups/{by}": self._group,
            "/groups/attribute/{name}": self._group_by_attribute,
            "/healthz": self._lives,
            "/readyz": self._is_ready,
        }
        for path, endpoint in get.items():
            app.add_api_route(path, endpoint, methods=["GET"], summary=endpoint.__doc__)
        app.add_exception_handler(RefoldError, _told)
        app.middleware("http")(self._counted)
        return with_page(app)

    def _runs(self, which: Annotated[Listed, Query()]) -> Page:
        """A page of runs."""
        page = self._model.list(
            which.where(),
            order=which.sort,
            descending=not which.reverse,
            limit=which.limit,
            after=which.after,
        )
        return Page(page.runs, page.next)

    def _run(self, id: str) -> Whole:
        """One run, with its steps."""
        run = self._model.get(id)
        if run is None:
            raise HTTPException(404, f"there is no run {id!r}")
        return Whole(run, self._model.steps(id))

    def _count(self, which: Annotated[Which, Query()]) -> Count:
        """How many runs."""
        return Count(self._model.count(which.where()))

    def _group(self, by: RunGroup, which: Annotated[Grouped, Query()]) -> Groups:
        """How many runs of each kind."""
        counts = self._model.group(by, which.where(), limit=which.limit)
        return Groups([Group(key, runs) for key, runs in counts.items()])

    def _group_by_attribute(self, name: str, which: Annotated[Grouped, Query()]) -> Groups:
        """How many runs of each value of an attribute."""
        counts = self._model.group_by_attribute(name, which.where(), limit=which.limit)
        return Groups([Group(key, runs) for key, runs in counts.items()])

    async def _lives(self) -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    def _is_ready(self) -> dict[str, str]:
        """Whether the read model can be read."""
        self._model.open()
        return {"status": "ok"}

    async def _counted(
        self, request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        began = perf_counter()
        status = 500
        try:
            response = await answer(request)
            status = response.status_code
        finally:
            self.answers[status] += 1
            self.seconds += perf_counter() - began
        return response


async def _told(_: Request, error: Exception) -> JSONResponse:
    status = 503 if isinstance(error, TargetError) else 400
    return JSONResponse({"detail": str(error)}, status_code=status)
