"""The quick `__init__` of events and commands does what the one that `dataclasses` makes would do."""

import dataclasses
from dataclasses import dataclass

import pytest

from refold.log.events import EVENT_CLASSES, Event
from refold.log.quick_init import quicken


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    first: int
    second: str = "two"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived(Base):
    third: float


quicken([Base, Derived])


def test_fields_and_defaults_are_set() -> None:
    """Given a class with a base, fields of both are set, defaults where nothing is given."""
    assert dataclasses.astuple(Derived(first=1, third=3.0)) == (1, "two", 3.0)
    assert Derived(first=1, second="2", third=3.0).second == "2"


def test_arguments_are_checked_as_before() -> None:
    """Given too few, unknown or positional arguments, there is a TypeError."""
    with pytest.raises(TypeError, match="third"):
        Derived(first=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="fourth"):
        Base(first=1, fourth=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="positional"):
        Base(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("cls", EVENT_CLASSES)
def test_events_stay_frozen(cls: type[Event]) -> None:
    """Given any kind of event, `replace` makes a changed copy, and the event itself can't be changed."""
    values = {field.name: object() for field in dataclasses.fields(cls)}
    event = cls(**values)  # type: ignore[arg-type]
    assert {name: getattr(event, name) for name in values} == values
    assert dataclasses.replace(event, worker="other").worker == "other"
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.worker = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
