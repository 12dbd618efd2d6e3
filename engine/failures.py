"""Errors as values: what is recorded of one, and the error that comes back from the record.

A record holds the type as `module:qualname`, the message, the stack as text, and, where they have a JSON form, the
constructor's arguments and the instance's attributes: the parts that pickle would keep, with no pickle. Rules:

1. Neither capture nor rebuild ever raises, whatever the error's own `__str__`, `__init__` or `__reduce__` do.
2. What is rebuilt is of the recorded type or a `StepError` that carries type, message and stack; it never says
   anything else than the record: a type whose constructor makes another message is not used.
3. Only `Exception`s come back as themselves. A recorded `CancelledError`, `SystemExit` or `KeyboardInterrupt`
   raised in a workflow would look like a cancellation or an exit that nobody asked for here; a `StopIteration`
   can't be raised through an await at all. They come back as `StepError`.
4. Rebuilding reads the record and imports the type's module. It opens no file of its own.
"""

import importlib
import sys
import traceback
from dataclasses import dataclass
from typing import TypeGuard, cast

from pydantic_core import from_json

from refold.engine.operations import Raised
from refold.engine.payload import PayloadType
from refold.log.errors import PayloadError, StepError

MAX_STACK_CHARS = 20_000
"""Some hundred frames: enough to see the place; a recursion's thousand equal frames would fill the log."""

MAX_MESSAGE_CHARS = 10_000
"""A message is for a person to read. Some libraries put a whole HTTP response into it."""

MAX_PARTS_CHARS = 50_000
"""Arguments beyond this are data rather than an error's details, and the message tells enough."""

_UNRAISABLE = (StopIteration, StopAsyncIteration)

_parts_type = PayloadType.of(dict[str, object], "parts of an error")
_part_type = PayloadType.of(object, "part of an error")


@dataclass(frozen=True, slots=True)
class Failure:
    """What is recorded of an error; the fields are those of `StepFailed` and `WorkflowFailed`.

    Args:
        error_type: The class, as `module:qualname`.
        error_message: `str(error)`.
        error_stack: The formatted stack with the causes; the end of it, where it is long.
        payload: JSON object with the list `args` and, where there are attributes, the object `state`; None where
            the arguments have no JSON form.
    """

    error_type: str
    error_message: str
    error_stack: str | None
    payload: str | None


def capture(error: BaseException) -> Failure:
    """What to record of `error`. Never raises."""
    return Failure(
        error_type=type_name(type(error)),
        error_message=_bounded_start(_message(error), MAX_MESSAGE_CHARS),
        error_stack=_bounded_end(_stack(error), MAX_STACK_CHARS),
        payload=_parts(error),
    )


def raised(error: BaseException) -> Raised:
    """How a run ends by `error`. Never raises."""
    failure = capture(error)
    return Raised(
        failure.error_type, failure.error_message, failure.error_stack or "", failure.payload
    )


def rebuild(failure: Failure) -> Exception:
    """The error that a record stands for, ready to be raised. Never raises.

    Returns:
        An instance of the recorded class where that can be imported and says the same; else a `StepError`. The recorded
        stack is a note on it, so that a traceback shows where the error truly happened.
    """
    error = _rebuilt(failure) or StepError(
        f"{failure.error_type.rpartition(':')[2]}: {failure.error_message}",
        type_name=failure.error_type,
        stack=failure.error_stack or "",
    )
    if failure.error_stack:
        error.add_note(f"Recorded by refold when it happened:\n{failure.error_stack.rstrip()}")
    return error


def type_name(kind: type[BaseException]) -> str:
    """How an error's class is recorded."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - the user's own __str__, and rule 1
        return f"<its __str__ raised {type(broken).__qualname__}>"


def _stack(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as broken:  # noqa: BLE001 - formatting calls the user's own __str__ and __repr__
        return f"<no stack: formatting it raised {type(broken).__qualname__}>"


def _bounded_start(text: str, limit: int) -> str:
    text = _encodable(text)
    return (
        text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit:,} more characters)"
    )


def _bounded_end(text: str, limit: int) -> str:
    text = _encodable(text)
    return (
        text
        if len(text) <= limit
        else f"({len(text) - limit:,} characters left out)\n...{text[-limit:]}"
    )


def _encodable(text: str) -> str:
    """`text` with lone surrogates escaped: the log is UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _parts(error: BaseException) -> str | None:
    args, state = _reduced(error)
    parts: dict[str, object] = {"args": list(args)}
    if kept := {name: value for name, value in state.items() if _has_json(value)}:
        parts["state"] = kept
    try:
        text = _parts_type.encode(parts)
    except PayloadError:
        return None
    return text if len(text) <= MAX_PARTS_CHARS else None


def _reduced(error: BaseException) -> tuple[tuple[object, ...], dict[str, object]]:
    """The constructor's arguments and the attributes, as the class itself says for pickling.

    `OSError` keeps its file name only there, and a class with a constructor of its own can say there what to call
    it with.
    """
    state = {name: value for name, value in vars(error).items() if name != "__notes__"}
    try:
        reduced = error.__reduce__()
    except Exception:  # noqa: BLE001 - the user's own __reduce__, and rule 1
        return error.args, state
    if isinstance(reduced, tuple) and len(reduced) >= 2 and reduced[0] is type(error):
        args: object = reduced[1]
        if isinstance(args, tuple):
            return cast("tuple[object, ...]", args), state
    return error.args, state


def _has_json(value: object) -> bool:
    try:
        _part_type.encode(value)
    except PayloadError:
        return False
    return True


def _rebuilt(failure: Failure) -> Exception | None:
    kind = _find(failure.error_type)
    if kind is None:
        return None
    args, state = _recorded_parts(failure)
    for build in (_constructed, _restored):
        try:
            error = build(kind, args)
            error.__dict__.update(state)
            if type(error) is kind and _says(error, failure.error_message):
                return error
        except Exception:  # noqa: BLE001, S112 - the user's own constructor, and rule 1; the next way or StepError
            continue
    return None


def _says(error: Exception, message: str) -> bool:
    said = str(error)
    return said == message or _bounded_start(said, MAX_MESSAGE_CHARS) == message


def _constructed(kind: type[Exception], args: list[object]) -> Exception:
    return kind(*args)


def _restored(kind: type[Exception], args: list[object]) -> Exception:
    """An instance without its constructor, whose arguments are often not what it hands on to `Exception`."""
    error = kind.__new__(kind, *args)
    error.args = tuple(args)
    return error


def _recorded_parts(failure: Failure) -> tuple[list[object], dict[str, object]]:
    if failure.payload is not None:
        try:
            parts: object = from_json(failure.payload)
        except ValueError:
            parts = None
        if _is_object(parts):
            args, state = parts.get("args"), parts.get("state", {})
            if isinstance(args, list) and _is_object(state):
                return cast("list[object]", args), state
    return [failure.error_message], {}


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)  # JSON's keys are strings


def _find(error_type: str) -> type[Exception] | None:
    """The class that a record names; None where it is not here, or can't be raised in a workflow (rule 3).

    A module that is not loaded yet is imported: a run that is replayed in a new process sees the class that the
    first one saw, though the step that had imported it does not run again.
    """
    module_name, _, qualname = error_type.partition(":")
    try:
        found: object = sys.modules.get(module_name) or importlib.import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except Exception:  # noqa: BLE001 - an import runs the module's own code, and rule 1
        return None
    if (
        isinstance(found, type)
        and issubclass(found, Exception)
        and not issubclass(found, _UNRAISABLE)
    ):
        return found
    return None
