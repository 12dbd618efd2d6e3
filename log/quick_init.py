"""A quicker way to make a frozen dataclass: each field is put into its slot, and not through `object.__setattr__`.

`dataclasses` looks the attribute up by name for every field of a frozen class. A slot's descriptor knows its place: an
event with fourteen fields is made in 1.0 µs rather than 1.6. A step makes one event, a recovery one a record.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import cast


def quicken(classes: Iterable[type]) -> None:
    """Give frozen, slotted dataclasses whose fields are all by keyword an `__init__` that does the same, sooner.

    Args:
        classes: They.
    """
    for cls in classes:
        assert not hasattr(cls, "__post_init__")
        names: dict[str, object] = {}
        parameters: list[str] = []
        for field in dataclasses.fields(cls):
            name = field.name
            names[f"set_{name}"] = getattr(cls, name).__set__
            if field.default is dataclasses.MISSING:
                assert field.default_factory is dataclasses.MISSING
                assert field.kw_only
                parameters.append(name)
            else:
                names[f"default_{name}"] = field.default
                parameters.append(f"{name}=default_{name}")
        lines = [
            f"def __init__(self, *, {', '.join(parameters)}):",
            *(f"    set_{field.name}(self, {field.name})" for field in dataclasses.fields(cls)),
        ]
        exec("\n".join(lines), names)  # noqa: S102 - the source is made above from our own fields only
        init = cast("Callable[..., None]", names["__init__"])
        made = vars(cls)["__init__"]
        init.__annotations__ = made.__annotations__
        init.__qualname__ = made.__qualname__
        setattr(cls, "__init__", init)  # noqa: B010 - to be assigned for a type checker it must not be
