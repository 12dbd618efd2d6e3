"""A workflow's input: a call's arguments as one JSON object, by the annotations of the workflow function.

The arguments of a step that goes to a pool are written in the same way.

Rules:

1. The object has a member for each parameter, in the order of the signature, with defaults filled in: a run keeps the
   input that it began with when a default changes in the code, and the same call made twice gives the same text.
   `*args` is a list and `**kwargs` an object under the parameter's own name.
2. A default that has no JSON form (a sentinel) is left out, and stays the function's business.
3. Arguments are checked strictly and before anything is written. JSON from outside (`canonical`) is read
   by JSON's own forms.
4. A recorded input stays readable when the function gains a parameter with a default or loses one.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Final, Literal, NotRequired, Unpack, cast, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import from_json
from typing_extensions import TypedDict

from refold.engine.annotations import UNDECLARED, plain_function, resolve, signature_of
from refold.engine.payload import PayloadType, problems_of
from refold.log.errors import DefinitionError, PayloadError

_Parameter = inspect.Parameter

_MAX_WRITTEN: Final = 1_000
_MAX_WRITTEN_CHARS: Final = 1_000
"""Inputs that are known to be in their one form, and their length: what a client of this process starts, its worker
takes up at once."""


class InputType:
    """The codec of a workflow's arguments. Made with `of`; annotations are evaluated at the first use.

    Args:
        fn: The workflow function.
        workflow: The workflow's name, for messages.
        kind: What it is: a workflow or a step.
        local: Names that its annotations use and its module does not have, from `annotations.local_names`.
    """

    __slots__ = (
        "_called",
        "_fields",
        "_fn",
        "_left_out",
        "_local",
        "_plain",
        "_signature",
        "_workflow",
        "_written",
    )

    def __init__(
        self,
        fn: Callable[..., object],
        workflow: str,
        local: Mapping[str, object],
        kind: Literal["workflow", "step"] = "workflow",
    ) -> None:
        self._fn = fn
        self._workflow = workflow
        self._called = f"{kind} {workflow!r}"
        self._local = local
        self._signature = _bare_signature(fn)
        self._fields: PayloadType[dict[str, object]] | None = None
        self._left_out: frozenset[str] = frozenset()
        self._plain = _only_positional(self._signature)
        self._written: set[str] = set()  # lately, by `encode`

    @classmethod
    def of(
        cls,
        fn: Callable[..., object],
        workflow: str | None = None,
        local: Mapping[str, object] | None = None,
    ) -> "InputType":
        """The input type of `fn`."""
        return cls(fn, workflow or plain_function(fn).__name__, local or {})

    @property
    def members(self) -> PayloadType[dict[str, object]]:
        """The type of the recorded object, with a member for each argument. Raises as `check`."""
        return self._resolved()

    def check(self) -> None:
        """Evaluate the annotations now.

        Raises:
            DefinitionError: One can't be evaluated, or its type has no JSON form.
        """
        self._resolved()

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        """The JSON text of a call's arguments.

        Raises:
            PayloadError: An argument is missing, unexpected, or does not fit its annotation.
            DefinitionError: An annotation can't be evaluated, or its type has no JSON form.
        """
        fields = self._resolved()
        values = self._bound(args, kwargs)
        try:
            text = fields.encode(values)
        except PayloadError as error:
            raise self._explained(error, values) from error.__cause__
        if len(text) <= _MAX_WRITTEN_CHARS:
            if len(self._written) >= _MAX_WRITTEN:
                self._written.clear()
            self._written.add(text)
        return text

    def _bound(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """The arguments of a call by name, with defaults."""
        plain = self._plain
        if plain is not None and not kwargs and len(args) == len(plain):  # `bind` takes far longer
            return dict(zip(plain, args, strict=True))
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise self._refused(f"{error}") from error
        given = set(bound.arguments)
        bound.apply_defaults()
        return {
            name: value
            for name, value in bound.arguments.items()
            if name in given or name not in self._left_out
        }

    def decode(self, text: str) -> tuple[tuple[object, ...], dict[str, object]]:
        """The positional and keyword arguments of a recorded input.

        Raises:
            PayloadError: The text does not fit the function's parameters, which have changed since.
        """
        values = self._resolved().decode(text)
        args: list[object] = []
        kwargs: dict[str, object] = {}
        in_order = True  # until a positional one is left out; those after it are named
        for name, parameter in self._signature.parameters.items():
            if name not in values:
                in_order = in_order and parameter.kind is _Parameter.KEYWORD_ONLY
            elif parameter.kind is _Parameter.VAR_POSITIONAL:
                args.extend(cast("tuple[object, ...]", values[name]))
            elif parameter.kind is _Parameter.VAR_KEYWORD:
                kwargs.update(cast("dict[str, object]", values[name]))
            elif in_order and parameter.kind is not _Parameter.KEYWORD_ONLY:
                args.append(values[name])
            else:
                kwargs[name] = values[name]
        return tuple(args), kwargs

    def canonical(self, text: str) -> str:
        """The input that JSON from outside (a command line, another language) stands for, as `encode` writes it.

        Args:
            text: JSON object with a member for each argument.

        Raises:
            PayloadError: It is no JSON object, or an argument is missing, unexpected or does not fit.
        """
        if text in self._written:  # by a client of this process
            return text
        fields = self._resolved()
        try:
            given: object = from_json(text)
        except ValueError as error:
            raise self._refused(f"it is no JSON: {error}") from error
        if not isinstance(given, dict):
            raise self._refused("it must be a JSON object with a member for each argument")
        if unknown := sorted(
            set(cast("dict[str, object]", given)) - set(self._signature.parameters)
        ):
            raise self._refused(f"it has no argument {unknown[0]!r}")
        try:
            fields.decode(text)
        except PayloadError as error:
            raise self._explained(error, {}) from error.__cause__
        args, kwargs = self.decode(text)
        return self.encode(args, kwargs)

    def same(self, first: str, second: str) -> bool:
        """Whether two recorded inputs are equal: in text, or in value where the order of a dict's keys differs."""
        if first == second:
            return True
        try:
            return self._resolved().decode(first) == self._resolved().decode(second)
        except PayloadError:
            return False

    def _resolved(self) -> PayloadType[dict[str, object]]:
        if self._fields is None:
            self._fields = self._resolve()
        return self._fields

    def _resolve(self) -> PayloadType[dict[str, object]]:
        members: dict[str, object] = {}
        left_out: set[str] = set()
        for name, parameter in self._signature.parameters.items():
            annotation = self._annotation(parameter)
            role = PayloadType.of(annotation, f"argument {name!r} of {self._called}")
            role.check()  # a type with no JSON form is told by the argument's name
            members[name] = annotation
            if parameter.default is not _Parameter.empty:
                members[name] = NotRequired[annotation]
                if not _has_json(role, parameter.default):
                    left_out.add(name)
            elif parameter.kind in (_Parameter.VAR_POSITIONAL, _Parameter.VAR_KEYWORD):
                members[name] = NotRequired[annotation]
        self._left_out = frozenset(left_out)
        # A class made at run time, of types known at run time: no checker can follow.
        shape: object = TypedDict("Input", members)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues, reportArgumentType]
        return cast(
            "PayloadType[dict[str, object]]",
            PayloadType.of(shape, f"input of {self._called}"),
        )

    def _annotation(self, parameter: inspect.Parameter) -> object:
        what = f"input of {self._called}"
        found = resolve(self._fn, parameter.name, self._local, what)
        declared = object if found is UNDECLARED else found
        if parameter.kind is _Parameter.VAR_POSITIONAL:
            return tuple[declared, ...]  # type: ignore[valid-type]
        if parameter.kind is _Parameter.VAR_KEYWORD:
            if get_origin(declared) is Unpack:
                return get_args(declared)[0]
            return dict[str, declared]  # type: ignore[valid-type]
        return declared

    def _refused(self, problem: str) -> PayloadError:
        takes = f"{self._workflow}({', '.join(self._signature.parameters)})"
        called = f"{self._called[0].upper()}{self._called[1:]}"
        return PayloadError(
            f"{called} can't take this input: {problem}. It takes {takes}. Nothing was written."
        )

    def _explained(self, error: PayloadError, values: Mapping[str, object]) -> PayloadError:
        """`error` in terms of arguments."""
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            first = cause.errors(include_url=False, include_context=False)[0]
            name = str(first["loc"][0]) if first["loc"] else ""
            if first["type"] == "missing" and len(first["loc"]) == 1:
                return self._refused(f"missing a required argument: {name!r}")
            return self._refused(f"argument {problems_of(cause)}")
        for name, value in values.items():  # the serializer does not say which argument it was at
            try:
                role = f"argument {name!r} of {self._called}"
                PayloadType.of(self._annotation(self._signature.parameters[name]), role).encode(
                    value
                )
            except PayloadError as found:
                return found
        return error


def _bare_signature(fn: Callable[..., object]) -> inspect.Signature:
    try:
        return signature_of(fn)
    except (TypeError, ValueError) as error:
        msg = f"{fn!r} has no signature that can be read, so its input can't be checked. Wrap it in a function."
        raise DefinitionError(msg) from error


def _only_positional(signature: inspect.Signature) -> tuple[str, ...] | None:
    """Names of the parameters, where as many positional arguments are simply they; None where it is not so simple."""
    parameters = signature.parameters.values()
    plain = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)
    simple = all(parameter.kind in plain for parameter in parameters)
    return tuple(signature.parameters) if simple else None


def _has_json(role: PayloadType[object], default: object) -> bool:
    try:
        role.encode(default)
    except PayloadError:
        return False
    return True
