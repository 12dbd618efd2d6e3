"""Annotations that are strings, as `from __future__ import annotations` makes all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from refold.engine.definitions import run_step_sync, step, workflow
from refold.log.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass
class Money:
    cents: int


@step
def in_module(amount: Money) -> Late:
    return Late(amount)


class Till:
    @step
    def method(self) -> list[Money]:
        return [Money(1)]


@dataclass
class Late:
    money: Money


def test_types_of_the_module_are_found() -> None:
    """Given types of the module, defined before or after, results come back as those types."""
    assert in_module.result_type.round_trip(Late(Money(1)))[1] == Late(Money(1))
    assert Till().method.result_type.round_trip([Money(2)])[1] == [Money(2)]


def test_types_local_to_a_function_are_found() -> None:
    """Given types of an enclosing function, all decorators find them, in a local class as well."""

    @dataclass
    class Local:
        number: int

    @step(name="makes")
    def makes() -> Local:
        return Local(1)

    class Shop:
        @step
        def sells(self) -> list[Local]:
            return [Local(2)]

    @workflow(name="takes")
    def takes(local: Local, *more: Local, **named: Local) -> Local | None:
        return local

    assert makes.result_type.round_trip(Local(1))[1] == Local(1)
    assert Shop().sells.result_type.round_trip([Local(2)])[1] == [Local(2)]
    assert takes.result_type.round_trip(Local(3))[1] == Local(3)
    back = takes.input_type.decode(takes.input_type.encode((Local(1), Local(2)), {"a": Local(3)}))
    assert back == ((Local(1), Local(2)), {"a": Local(3)})


def test_run_step_finds_local_types() -> None:
    """Given a closure with a local type outside of any workflow, the call is plain."""

    @dataclass
    class Local:
        number: int

    def makes() -> Local:
        return Local(4)

    assert run_step_sync(makes) == Local(4)


def test_a_local_type_that_comes_later_is_told() -> None:
    """Given a type that is made after the function, inside a function, no one can find it, and the error says so."""

    @step
    def makes() -> Later:
        return Later()

    class Later: ...

    with pytest.raises(
        DefinitionError, match=r"'Later' of 'return' in .*makes.*before the function"
    ):
        makes.result_type.check()


def test_a_type_for_the_checker_only_is_told() -> None:
    """Given a name that is imported under TYPE_CHECKING, the error says to import it at run time."""

    @workflow
    def takes(key: Hashable) -> int:
        return 1

    with pytest.raises(DefinitionError, match=r"'Hashable' of 'key' in .*takes.*TYPE_CHECKING"):
        takes.check()
