"""What a sink writes down of itself in its target, so that no other namespace's rows ever get into it.

{"format": 1, "id": ..., "namespace": ..., "identity": ..., "partitions": 2, "columns": {"log_offset": "integer", ...}}

`id` is the target's own, drawn when it is made. Processes that share the work find each other by it, so nobody has to
name the target twice in the same way, and two targets never share.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast
from uuid import uuid4

from refold.log.event_columns import Kind
from refold.projections.store import Identity
from refold.projections.target import TargetMismatch

FORMAT: Final = 1

_AGAIN: Final = "Name another target for this log, or remove this one to write it anew"


class Found(NamedTuple):
    """What a target's note says.

    Args:
        id: The target's.
        missing: Columns that it lacks: those that came with this release, or are asked for since.
    """

    id: str
    missing: Mapping[str, Kind]

    @property
    def group(self) -> str:
        """The group of those that share the partitions for this very target."""
        return f"sink.{self.id}"


@dataclass(frozen=True, slots=True)
class Note:
    """A sink's note.

    Args:
        source: Where its rows come from.
        columns: Those of its table.
    """

    source: Identity
    columns: Mapping[str, Kind]

    @staticmethod
    def new_id() -> str:
        """For a target that is about to be made."""
        return uuid4().hex[:12]

    def to_dict(self, id_: str) -> dict[str, object]:
        """As JSON has it, of the target that has this id."""
        of = self.source
        return {
            "format": FORMAT,
            "id": id_,
            "namespace": of.namespace,
            "identity": of.log,
            "partitions": of.partitions,
            "columns": dict(self.columns),
        }

    def to_json(self, id_: str) -> str:
        """As text."""
        return json.dumps(self.to_dict(id_))

    def found_in(self, text: str, where: str) -> Found:
        """Check the note that a target has against this one.

        Args:
            text: What the target has; JSON with more members than the note's is one as well.
            where: The target, for messages.

        Raises:
            TargetMismatch: It is of another log or of a newer release, or has columns that are not asked for.
        """
        try:
            whole = cast("dict[str, Any]", json.loads(text))
            format_ = int(whole["format"])
            if format_ > FORMAT:
                raise TargetMismatch(
                    f"{where} was written by a newer release of refold (format {format_}, and this one knows "
                    f"{FORMAT}): upgrade refold"
                )
            found = Identity(whole["namespace"], whole["identity"], whole["partitions"])
            columns: dict[str, str] = dict(whole["columns"])
            id_ = str(whole["id"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TargetMismatch(
                f"what {where} says of itself is damaged ({error!r}). {_AGAIN}"
            ) from error
        if found != self.source:
            raise TargetMismatch(
                f"{where} has events of {_told(found)}, not of {_told(self.source)}. {_AGAIN}"
            )
        for name, kind in columns.items():
            if self.columns.get(name) != kind:
                asked = f"as {self.columns[name]}" if name in self.columns else "not at all"
                raise TargetMismatch(
                    f"{where} has a column {name!r} of kind {kind}, which is wanted {asked} this time: ask for the "
                    f"same columns as at first (--types), or upgrade refold. {_AGAIN}"
                )
        return Found(
            id_, {name: kind for name, kind in self.columns.items() if name not in columns}
        )


def _told(source: Identity) -> str:
    identity = f", id {source.log}" if source.log else ""
    return f"{source.namespace!r} ({source.partitions} partition(s){identity})"
