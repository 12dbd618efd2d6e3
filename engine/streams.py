"""Streams: what a workflow or one of its steps writes item by item, for others to follow (`Handle.stream`).

Made for the tokens of a language model: a write returns at once. From workflow code an item is written exactly once;
from a step at least once, since an attempt that fails has written what it has.
"""

from refold.engine.emissions import emission, encoded
from refold.engine.names import check_name
from refold.engine.scope import StepContext, current
from refold.log.errors import UsageError


class Stream:
    """The writing side of one of a workflow's streams. Made by `stream`."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<stream {self._name!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def write(self, item: object) -> None:
        """Add an item; in workflow code of both kinds, and in steps.

        Args:
            item: The item; its JSON is that of its own type.

        Raises:
            UsageError: The caller is neither workflow code nor a step.
            PayloadError: The item has no JSON form. Nothing was written.
        """
        scope = current()
        if scope is None:
            raise UsageError(
                f"stream {self._name!r} was written to outside a workflow; workflow code and its steps write to"
                " streams, others read them from the workflow's handle"
            )
        what = f"item of stream {self._name!r}"
        if isinstance(scope, StepContext):
            scope.write(self._name, encoded(item, what))
            return
        text = encoded(item, what, scope.max_payload_bytes)
        scope.emit(emission("stream.written", self._name, f"[{text}]"))


def stream(name: str) -> Stream:
    """One of the workflow's streams, to write to. It begins with its first item and ends with the workflow.

    Args:
        name: Its name, 1 to 255 characters.

    Raises:
        UsageError: The name can't be used.
    """
    check_name(name, "stream")
    return Stream(name)
