"""`refold whatif`: what a run would have done, had a step come to something else."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from refold.engine.definitions import Catalogue
from refold.engine.names import check_id
from refold.engine.supposed import Json as JsonValue
from refold.engine.what_if import suppose
from refold.log.errors import UsageError
from refold.log.urls import with_archive
from refold.services.cli_debug import App, recorded
from refold.services.cli_list import Json
from refold.services.cli_read import RunId
from refold.services.cli_values import read_json
from refold.services.exits import reported
from refold.services.loading import load_attribute, load_error, load_workflows
from refold.services.opening import DEFAULT_URL, Archive, Debug, Url
from refold.services.terminal import print_json, to_reader
from refold.services.what_if_view import show

_FUNCTION = re.compile(r"[\w./]+:[A-Za-z_][\w.]*")


def whatif(  # noqa: PLR0913 - each an option of the command
    id: RunId,
    *,
    app: App,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPERATION=JSON",
            help="What a step or child returned instead: by its number, its name, or NAME#NUMBER as `refold show` "
            "says it. Repeat it for several.",
        ),
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            metavar="OPERATION=TYPE:MESSAGE",
            help="What it raised instead, as in charge=ConnectionError:gone or charge=shop.Declined:no.",
        ),
    ] = None,
    stub: Annotated[
        list[str] | None,
        typer.Option(
            "--stub",
            metavar="NAME=JSON",
            help="What stands for a step that the history has no outcome of; or NAME=MODULE:FUNCTION, which is called "
            "with its arguments, or MODULE:FUNCTION, for the step of the function's name.",
        ),
    ] = None,
    all_rows: Annotated[
        bool, typer.Option("--all", help="Every operation, those that are the same as well.")
    ] = False,
    json: Json = False,
    url: Url = DEFAULT_URL,
    archive: Archive = None,
    debug: Debug = False,
) -> None:
    """Replay a run with other outcomes than the recorded ones, and show both courses side by side.

    Nothing is carried out or written. Where the code comes to steps that the history has no outcome of, they are shown
    with their arguments, as they would be carried out; with --stub it goes on. Timers beyond the history fire at once,
    and what is sent counts as delivered.
    """
    with reported(debug):
        check_id(id)
        catalogue = Catalogue.of(load_workflows(app))
        modules = [definition.fn.__module__ for definition in catalogue.definitions()]
        outcomes: dict[str | int, object] = {}
        for word in set_ or ():
            place, text = _split(word, "--set", "charge=5")
            _once(place, outcomes, "--set")
            read_json(text, f"--set {place}")
            outcomes[place] = JsonValue(text)
        for word in fail or ():
            place, text = _split(word, "--fail", "charge=ConnectionError:gone")
            _once(place, outcomes, "--fail")
            outcomes[place] = _error(text, modules)
        stubs = dict(map(_stub, stub or ()))
        history, blobs = recorded(with_archive(url, archive), id)
        found = suppose(catalogue, history, outcomes, stubs, blobs)
        if json:
            print_json(asdict(found), pretty=True)
        else:
            show(to_reader(), found, all_rows=all_rows)


def _split(word: str, option: str, example: str) -> tuple[str, str]:
    place, sign, text = word.partition("=")
    if not sign or not place:
        raise UsageError(f"{option} {word}: write it as in {option} {example}")
    return place, text


def _once(place: str, outcomes: Iterable[object], option: str) -> None:
    if place in outcomes:
        raise UsageError(f"{option} {place}: operation {place} was given twice")


def _error(text: str, modules: Sequence[str]) -> Exception:
    """An error of `TYPE:MESSAGE`."""
    name, sign, message = text.partition(":")
    if not sign or not name:
        raise UsageError(
            f"--fail {text}: write the error as TYPE:MESSAGE, as in ValueError:no card"
        )
    return load_error(name, message, modules)


def _stub(word: str) -> tuple[str, object]:
    """The name of a step, and what stands for it."""
    if "=" not in word and _FUNCTION.fullmatch(word):
        return word.rpartition(":")[2].rpartition(".")[2], _function(word)
    name, text = _split(word, "--stub", "charge=5 or --stub stubs:charge")
    if _FUNCTION.fullmatch(text):
        return name, _function(text)
    read_json(text, f"--stub {name}")
    return name, JsonValue(text)


def _function(target: str) -> object:
    function = load_attribute(target)
    if not callable(function):
        raise UsageError(f"--stub {target}: it is no function")
    return function
