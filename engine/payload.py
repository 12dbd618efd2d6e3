"""Payloads: values as JSON text and back, by the type that an annotation declares.

Rules:

1. What is encoded comes back: `encode` decodes its own text before it gives it away. What can't come back fails
   there, before anything is recorded, and names the value's role, the type and the fix. Nothing is pickled and
   nothing becomes its `repr`.
2. A value is what comes back. Whoever hands a result on hands on the decoded one, already on the first run, so that no
   replay can see anything else (a list where there had been a tuple).
3. Writing is strict: a value of another type than the declared one is refused and not converted; only an int is a
   float as well. Reading takes JSON's forms: a date is a string there.
4. Equal values give equal text, but for the order of keys in a dict, which is part of a Python dict.

The rules for each type are in `payload_schema.py`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, SchemaSerializer, SchemaValidator

from refold.engine.annotations import UNDECLARED, resolve
from refold.engine.payload_schema import build
from refold.log.errors import DefinitionError, PayloadError, PayloadTooLarge

T = TypeVar("T")

MAX_PAYLOAD_BYTES = 900_000
"""Below the 1,000,000 or so that a Kafka broker takes in one record by default, with room for the other fields."""

_MAX_PROBLEMS = 3
"""Of a list with a thousand wrong items, the first few tell what is wrong."""


class PayloadType(Generic[T]):
    """A declared type as the payload codec of one role, such as the result of a step.

    Make it with `of` or `of_return`. The annotation is evaluated when it is first used, because a type may be defined
    after the function that names it.

    Args:
        what: The role, as messages name it: "result of step 'charge'".
        find: Gives the annotation.
    """

    __slots__ = ("_annotation", "_codec", "_find", "what")

    def __init__(self, what: str, find: Callable[[], object]) -> None:
        self.what = what
        self._find = find
        self._annotation: object = UNDECLARED
        self._codec: _Codec | None = None

    @staticmethod
    def of(annotation: object, what: str) -> "PayloadType[Any]":
        """The payload type of an annotation; `UNDECLARED` means plain JSON values.

        `Any`, because no checker can say which type an annotation's value stands for.
        """
        return PayloadType[Any](what, lambda: annotation)

    @staticmethod
    def of_return(
        fn: Callable[..., object], what: str, local: Mapping[str, object]
    ) -> "PayloadType[Any]":
        """The payload type of what `fn` returns; plain JSON values where it does not say.

        Args:
            fn: The function; for an `async def` it is what the await gives.
            what: The role, for messages.
            local: Names that its annotations use and its module does not have, from `annotations.local_names`.
        """
        return PayloadType[Any](what, lambda: resolve(fn, "return", local, what))

    @property
    def annotation(self) -> object:
        """The annotation, evaluated; `UNDECLARED` where there is none. Raises as `check`."""
        self.check()
        return self._annotation

    def check(self) -> None:
        """Evaluate the annotation now.

        Raises:
            DefinitionError: It can't be evaluated, or the type has no JSON form.
        """
        if self._codec is None:
            self._resolve()

    def encode(self, value: T) -> str:
        """The JSON text of `value`.

        Raises:
            PayloadError: The value does not fit the type, or does not come back from its JSON.
            DefinitionError: The annotation can't be evaluated, or the type has no JSON form.
        """
        return self.round_trip(value)[0]

    def round_trip(self, value: T) -> tuple[str, T]:
        """The JSON text of `value`, and what comes back from it: the value to go on with. Raises as `encode`."""
        codec = self._codec or self._resolve()
        try:
            # Strict: "5" is not an int.
            fitting = codec.validator.validate_python(value, strict=True)
            # "error": an instance is taken as it is by the validator, so the serializer looks at its fields.
            text = codec.serializer.to_json(fitting, round_trip=True, warnings="error")
            back = codec.validator.validate_json(text, by_alias=True, by_name=True)
        except Exception as error:  # the types' own code may raise anything
            raise self._unfit(value, error) from error
        if type(back) is not type(value):
            self._require_no_lost_subclass(value, back)
        return text.decode(), cast("T", back)

    def decode(self, text: str) -> T:
        """The value of a recorded JSON text.

        Raises:
            PayloadError: The text does not fit the type, which has changed since it was written.
        """
        codec = self._codec or self._resolve()
        try:
            return cast("T", codec.validator.validate_json(text, by_alias=True, by_name=True))
        except Exception as error:  # as above
            raise self._unreadable(error) from error

    def _resolve(self) -> "_Codec":
        self._annotation = self._find()
        try:
            self._codec = _codec_of(object if self._annotation is UNDECLARED else self._annotation)
        except Exception as error:  # as above
            raise self._undefinable(error) from error
        return self._codec

    def _require_no_lost_subclass(self, value: object, back: object) -> None:
        """By default pydantic writes an instance of a subclass by the declared class's fields alone."""
        if isinstance(value, type(back)) and _fields_of(type(value)) - _fields_of(type(back)):
            kind, declared = _name_of(type(value)), _name_of(type(back))
            raise PayloadError(
                f"The {self.what} is a `{kind}` where its annotation says `{declared}`: the fields that `{kind}` adds "
                f"would be lost. Annotate it `{kind}`, or a union of the classes. Nothing was recorded."
            )

    def _unfit(self, value: object, error: Exception) -> PayloadError:
        kind = _name_of(type(value))
        if inspect.isawaitable(value):
            return PayloadError(
                f"The {self.what} is a `{kind}`, which nobody has awaited: write `await` before the call that gives "
                f"it. Nothing was recorded."
            )
        if self._annotation is UNDECLARED:
            return PayloadError(
                f"The {self.what} can't be recorded: {problems_of(error)}. Its type is not annotated, so only plain "
                f"JSON values fit (None, bool, int, float, str, list, dict with str keys). Annotate it (here "
                f"perhaps `{kind}`; a function with an annotation instead of a lambda), or return plain values. "
                f"Nothing was recorded."
            )
        return PayloadError(
            f"The {self.what}, a value of type `{kind}`, does not fit its annotation "
            f"`{_name_of(self._annotation)}` or has no JSON form: {problems_of(error)}. Correct the value or the "
            f"annotation; what holds a lock, a file or a connection can't be recorded. Nothing was recorded."
        )

    def _unreadable(self, error: Exception) -> PayloadError:
        return PayloadError(
            f"The recorded {self.what} does not fit its annotation `{_name_of(self._annotation)}`: "
            f"{problems_of(error)}. The type has changed since it was recorded: let it take the old form (defaults "
            f"for new fields, a union with the old type)."
        )

    def _undefinable(self, error: Exception) -> DefinitionError:
        reason = str(error).splitlines()[0] if isinstance(error, PydanticUserError) else repr(error)
        return DefinitionError(
            f"The {self.what} is annotated `{_name_of(self._annotation)}`, which has no JSON form: {reason} "
            f"Use a pydantic model, a dataclass or another type that pydantic can write and read."
        )


def check_size(text: str, limit: int, what: str) -> None:
    """Refuse a payload that is too large for the log.

    Args:
        text: The payload's JSON.
        limit: Most bytes of it in UTF-8, such as `MAX_PAYLOAD_BYTES`.
        what: The payload's role, for the message.

    Raises:
        PayloadTooLarge: The text is longer.
    """
    if len(text) * 4 <= limit:  # at most four bytes a character
        return
    size = len(text.encode())
    if size > limit:
        msg = (
            f"The {what} has {size:,} bytes of JSON; the limit is {limit:,}. Put the data into a file or an object "
            f"store within a step, and pass its name on; or let the log keep more (docs/large-payloads.md). Nothing "
            f"was recorded."
        )
        raise PayloadTooLarge(msg)


def problems_of(error: Exception) -> str:
    """What `error` complains of, in one line and with no values, which may be secret."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_context=False)
        told = [_problem(item["loc"], item["msg"], item["input"]) for item in found[:_MAX_PROBLEMS]]
        more = [f"and {len(found) - _MAX_PROBLEMS} more"] if len(found) > _MAX_PROBLEMS else []
        return "; ".join(told + more)
    if isinstance(error, PydanticSerializationError):
        return _without_values(str(error))
    return f"{type(error).__qualname__}: {error}"


def _problem(loc: tuple[int | str, ...], message: str, value: object) -> str:
    # Words in a location such as "function-plain[_plain()]" are steps of the schema, for nobody to read.
    path = "".join(f"[{part!r}]" for part in loc if not (isinstance(part, str) and "[" in part))
    return f"{path} {message} (got {_name_of(type(value))})".strip()


def _without_values(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    words = " ".join(line for line in lines if line != "Pydantic serializer warnings:")
    # Where a function refused, pydantic says so from the outside in; what the function said stands last.
    refusal = words.rpartition("Error calling function `")[2].partition("`: ")[2]
    if refusal:
        return refusal.partition(": ")[2] or refusal
    before, found, after = words.partition("input_value=")
    return f"{before}{after[after.rfind('input_type=') :]}" if found else words


def _name_of(annotation: object) -> str:
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return annotation.__qualname__
    return str(annotation).replace("typing.", "")


def _fields_of(kind: type[object]) -> set[str]:
    if issubclass(kind, BaseModel):
        return set(kind.model_fields)
    return (
        {field.name for field in dataclasses.fields(kind)}
        if dataclasses.is_dataclass(kind)
        else set()
    )


class _Codec:
    """The compiled form of one type."""

    __slots__ = ("serializer", "validator")

    def __init__(self, validator: SchemaValidator, serializer: SchemaSerializer) -> None:
        self.validator = validator
        self.serializer = serializer


def _codec_of(annotation: object) -> _Codec:
    try:
        hash(annotation)
    except TypeError:  # Annotated[..., [1, 2]] and the like
        return _Codec(*build(annotation))
    return _cached_codec(annotation)


@functools.lru_cache(maxsize=1024)
def _cached_codec(annotation: object) -> _Codec:
    """Compiling takes about a millisecond, and `run_step` meets the same annotation at every call.

    What is cached depends on its argument alone, so that nobody can tell whether it was.
    """
    return _Codec(*build(annotation))
