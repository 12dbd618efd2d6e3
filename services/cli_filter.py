"""Which runs a command means: the same options for `list` and for every order to many runs."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from refold.engine.selection import Runs
from refold.engine.state import Status
from refold.services.cli_values import read_attributes, read_moment

PANEL = "Which runs"


def _option(*names: str, metavar: str, text: str, at_least: int | None = None) -> OptionInfo:
    """An option of the filter; all stand together in the help."""
    option: OptionInfo = typer.Option(
        *names, metavar=metavar, help=text, min=at_least, rich_help_panel=PANEL
    )
    return option


_VERSION = "Runs on this version of their code."
_REASON = "Runs parked for a reason with TEXT in it."


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterWords:
    """The filter's options as they were typed. All that are given must hold; of several `--status`, one."""

    status: Annotated[
        list[Status] | None,
        _option(
            "--status",
            metavar="STATUS",
            text=f"Runs that are {', '.join(Status)}. Repeat it for several.",
        ),
    ] = None
    workflow: Annotated[
        str | None, _option("--workflow", metavar="NAME", text="Runs of this workflow.")
    ] = None
    with_version: Annotated[
        int | None, _option("--on-version", metavar="N", text=_VERSION, at_least=1)
    ] = None
    queue: Annotated[str | None, _option("--queue", metavar="NAME", text="Runs of this queue.")] = (
        None
    )
    attribute: Annotated[
        list[str] | None,
        _option(
            "--attribute",
            metavar="NAME=VALUE",
            text="Runs with this attribute. Repeat it for several, which must all hold.",
        ),
    ] = None
    parked_for: Annotated[str | None, _option("--parked-for", metavar="TEXT", text=_REASON)] = None
    since: Annotated[
        str | None,
        _option(
            "--since",
            metavar="TIME",
            text="Runs started then or later: 2h is two hours ago; or a time with its zone, as in "
            "2026-12-01T09:00Z.",
        ),
    ] = None
    before: Annotated[
        str | None, _option("--before", metavar="TIME", text="Runs started before that.")
    ] = None

    @property
    def given(self) -> bool:
        """Whether any of the filter's was given."""
        return any(getattr(self, words.name) is not None for words in fields(FilterWords))

    def runs(self, now: int) -> Runs:
        """What they mean.

        Args:
            now: Microseconds since 1970-01-01 UTC, from which spans count back.

        Raises:
            UsageError: One is not of the form that it must have.
        """
        return Runs(
            status=frozenset(self.status) if self.status else None,
            workflow=self.workflow,
            version=self.with_version,
            queue=self.queue,
            attributes=read_attributes(self.attribute),
            reason=self.parked_for,
            started_after=read_moment(self.since, now, "--since"),
            started_before=read_moment(self.before, now, "--before"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListWords(FilterWords):
    """The same for `refold list`, where the short names mean nothing else."""

    with_version: Annotated[
        int | None, _option("--version", "--on-version", metavar="N", text=_VERSION, at_least=1)
    ] = None
    parked_for: Annotated[
        str | None, _option("--reason", "--parked-for", metavar="TEXT", text=_REASON)
    ] = None


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the filter's options in place of its parameter `where`, which gets what was typed for them.

    Typer makes options of a function's parameters, one by one: so they must stand in its signature.
    """
    own = inspect.signature(command, eval_str=True).parameters
    kind: type[FilterWords] = own["where"].annotation
    words = inspect.signature(kind, eval_str=True).parameters
    parameters: list[inspect.Parameter] = []
    for parameter in own.values():
        parameters.extend(words.values() if parameter.name == "where" else [parameter])

    @functools.wraps(command)
    def with_options(**options: Any) -> None:
        where = kind(**{name: options.pop(name) for name in words})
        command(where=where, **options)

    signed: Any = with_options
    signed.__signature__ = inspect.Signature(parameters, return_annotation=None)
    signed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options
