"""What a function's annotations mean: evaluated late, one at a time, with the names that the function could see.

Late, because a type may be defined after the function that names it. One at a time, because a step's arguments may be
of types that exist for the type checker only (`if TYPE_CHECKING:`), and only its result is recorded.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import ForwardRef, cast, get_type_hints

from refold.log.errors import DefinitionError

UNDECLARED = inspect.Signature.empty
"""Stands where a function has no annotation."""


def plain_function(fn: Callable[..., object]) -> Callable[..., object]:
    """The function below partials, bound methods and `functools.wraps`: the one whose module names the types."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    inner: Callable[..., object] = getattr(fn, "__func__", fn)
    plain: Callable[..., object] = inspect.unwrap(inner)
    return plain


def raw_annotations(fn: Callable[..., object]) -> Mapping[str, object]:
    """Annotations as they are written, strings where they are strings; not a reason to fail."""
    target = plain_function(fn)
    found: Mapping[str, object]
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 - no such module before 3.14

        found = annotationlib.get_annotations(target, format=annotationlib.Format.FORWARDREF)
    else:
        written: object = getattr(target, "__annotations__", None)
        found = cast("dict[str, object]", written) if isinstance(written, dict) else {}
    return found


def signature_of(fn: Callable[..., object]) -> inspect.Signature:
    """The parameters of `fn`, with annotations unevaluated: from Python 3.14 on, asking for them evaluates them all.

    Raises:
        TypeError, ValueError: As `inspect.signature`, where `fn` has none that can be read.
    """
    if sys.version_info >= (3, 14):
        import annotationlib  # noqa: PLC0415 - no such module before 3.14

        signature = inspect.signature(fn, annotation_format=annotationlib.Format.STRING)
    else:
        signature = inspect.signature(fn)
    return signature


def calling_frame() -> FrameType | None:
    """The frame of the code that called the function that calls this."""
    frame = inspect.currentframe()
    callee = frame.f_back if frame is not None else None
    return callee.f_back if callee is not None else None


def local_names(fn: Callable[..., object], frame: FrameType | None) -> dict[str, object]:
    """The local names that the string annotations of `fn` use, as they stand in `frame`, where `fn` is defined.

    With `from __future__ import annotations` nothing else keeps them: a function's globals do not hold a class that
    was defined inside another function. Only the names in use are kept, never the frame.
    """
    texts = [text for text in raw_annotations(fn).values() if isinstance(text, str)]
    if not texts or frame is None or "<locals>" not in plain_function(fn).__qualname__:
        return {}
    wanted = {name for text in texts for name in _names_in(text)}
    outer = (
        frame.f_back if "__qualname__" in frame.f_locals else None
    )  # a class body inside a function
    spaces = [outer.f_locals, frame.f_locals] if outer is not None else [frame.f_locals]
    return {name: space[name] for space in spaces for name in wanted if name in space}


def resolve(fn: Callable[..., object], name: str, local: Mapping[str, object], what: str) -> object:
    """The type that the annotation `name` (a parameter, or "return") of `fn` stands for.

    Args:
        fn: The function.
        name: The parameter's name, or "return".
        local: Names that are not in the function's module, from `local_names`.
        what: What the type is for, for the message.

    Returns:
        The type; `UNDECLARED` where there is no annotation.

    Raises:
        DefinitionError: A name in the annotation is not defined.
    """
    raw = raw_annotations(fn).get(name, UNDECLARED)
    if raw is UNDECLARED:
        return UNDECLARED
    target = plain_function(fn)
    holder = _Annotated({name: raw})
    space: dict[str, object] = getattr(target, "__globals__", {})
    try:
        return get_type_hints(holder, globalns=space, localns=dict(local), include_extras=True)[
            name
        ]
    except Exception as error:  # an annotation is an expression and may raise anything
        written = raw.__forward_arg__ if isinstance(raw, ForwardRef) else raw
        msg = (
            f"The annotation {written!r} of {name!r} in {target.__module__}.{target.__qualname__} ({what}) can't be "
            f"evaluated: {error}. refold needs the type when the workflow runs: import it at run time, not only "
            f"under TYPE_CHECKING, and define it in a module or before the function."
        )
        raise DefinitionError(msg) from error


class _Annotated:
    """Holds one annotation for `typing.get_type_hints`, which takes anything that has `__annotations__`."""

    def __init__(self, annotations: dict[str, object]) -> None:
        self.__annotations__ = annotations


def _names_in(text: str) -> tuple[str, ...]:
    try:
        return compile(text, "<annotation>", "eval").co_names
    except SyntaxError:
        return ()  # `resolve` says so, with the function's name
