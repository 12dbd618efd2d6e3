"""A workflow's input as it is typed on a command line: JSON, or one word for each parameter."""

import inspect
import json
import sys
import typing
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeGuard

from refold.engine.annotations import signature_of
from refold.engine.bound import Bound
from refold.engine.definitions import Workflow
from refold.log.errors import UsageError

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def bind(workflow: Workflow[..., Any], input_json: str | None, words: Sequence[str]) -> Bound[Any]:
    """A workflow with its input from the command line, checked against its parameters.

    Args:
        workflow: The workflow.
        input_json: JSON object with a member for each argument, or its only argument's own JSON.
        words: Instead of that, its positional arguments: as they are where the parameter is a `str` or a `Decimal`,
            else read as JSON, else as they are.

    Raises:
        UsageError: Both were given, or there are too many words.
        PayloadError: The input does not fit the workflow's parameters. Nothing was written.
    """
    if input_json is not None and words:
        raise UsageError("give the input by --input or as arguments, not both")
    text = _from_words(workflow, words) if input_json is None else _whole(workflow, input_json)
    return Bound(workflow, workflow.input_type.canonical(text), workflow.result_type)


def read_input(option: str | None) -> str | None:
    """What `--input` means: JSON itself, `@FILE`, or `-` for standard input.

    Raises:
        UsageError: The file can't be read.
    """
    if option == "-":
        return sys.stdin.read()
    if option is None or not option.startswith("@"):
        return option
    try:
        return Path(option[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--input {option}: the file can't be read ({error})") from error


def plain_object(input_json: str | None) -> str:
    """Input for a workflow whose code is not here: a JSON object, in the form that refold records.

    Raises:
        UsageError: It is no JSON object.
    """
    value = _parsed(input_json if input_json is not None else "{}")
    if not _is_object(value):
        raise UsageError(
            "--input must be a JSON object with a member for each argument, as in "
            "'{\"order_id\": 42}'; name the code (module:workflow) to have it checked"
        )
    return _compact(value)


def _whole(workflow: Workflow[..., Any], input_json: str) -> str:
    """The JSON object of all arguments; the only parameter's bare value is taken for it where it fits no other way."""
    value = _parsed(input_json)
    names = list(signature_of(workflow.fn).parameters)
    if len(names) == 1 and not (_is_object(value) and set(value) <= set(names)):
        return f"{{{json.dumps(names[0])}:{input_json}}}"
    return input_json  # the text itself: numbers keep all their digits


def _from_words(workflow: Workflow[..., Any], words: Sequence[str]) -> str:
    parameters = signature_of(workflow.fn).parameters.values()
    takes = [parameter for parameter in parameters if parameter.kind in _BY_POSITION]
    rest = next((p for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    if len(words) > len(takes) and rest is None:
        names = " ".join(parameter.name.upper() for parameter in takes) or "no arguments"
        raise UsageError(
            f"workflow {workflow.name!r} takes {names}, and {len(words)} were given. "
            "Quote an argument that has spaces in it"
        )
    hints = _hints(workflow)
    values: dict[str, object] = {
        parameter.name: _read(word, hints.get(parameter.name))
        for parameter, word in zip(takes, words, strict=False)
    }
    if rest is not None and len(words) > len(takes):
        values[rest.name] = [_read(word, hints.get(rest.name)) for word in words[len(takes) :]]
    return _compact(values)


def _hints(workflow: Workflow[..., Any]) -> dict[str, object]:
    try:
        return typing.get_type_hints(workflow.fn)
    except Exception:  # noqa: BLE001 - evaluates the user's annotations; the input's own check explains what is wrong
        return {}


def _read(word: str, hint: object) -> object:
    if hint is str or hint is Decimal:  # of a Decimal, JSON's number would keep 17 digits
        return word
    try:
        value: object = json.loads(word)
    except (ValueError, RecursionError):
        return word
    return value


def _parsed(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--input is no JSON: {error}. Quote it for the shell: --input '...'"
        ) from error
    return value


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
