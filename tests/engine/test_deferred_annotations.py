"""Annotations that are evaluated when they are asked for, as all are from Python 3.14 on (PEP 649)."""

import __future__

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from refold.log.errors import DefinitionError
from refold.services.arguments import bind

CODE = """
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refold import step, workflow

if TYPE_CHECKING:
    from collections.abc import Hashable


@step
def finds(key: Hashable, till: Till) -> list[Late | None]:
    return [Late(1), None]


@workflow
def takes(late: Late, *more: Late) -> Late:
    return late


@workflow
def keyed(key: Hashable) -> int:
    return 1


class Till:
    @step
    def counts(self, key: Hashable) -> dict[str, Late]:
        return {"a": Late(2)}


@dataclass
class Late:
    number: int
"""

# What the code means where nothing is asked of it: before Python 3.14 only with the import from __future__.
FLAGS = 0 if sys.version_info >= (3, 14) else __future__.annotations.compiler_flag


@pytest.fixture(scope="module")
def module() -> Any:
    """The code's names: as text, since an older Python would refuse it here."""
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(CODE, __file__, "exec", FLAGS, dont_inherit=True), names)
    return SimpleNamespace(**names)


def test_a_type_that_comes_later_is_found(module: Any) -> None:
    """Given a type that is defined after the step, method or workflow that names it, values come back as that type."""
    late = module.Late
    assert module.finds.result_type.round_trip([late(1), None])[1] == [late(1), None]
    assert module.Till().counts.result_type.round_trip({"a": late(2)})[1] == {"a": late(2)}
    assert module.takes.result_type.round_trip(late(3))[1] == late(3)
    payload = module.takes.input_type.encode((late(1), late(2)), {})
    assert module.takes.input_type.decode(payload) == ((late(1), late(2)), {})


def test_an_argument_of_a_step_may_be_for_the_checker_only(module: Any) -> None:
    """Given a step's parameter whose type is imported under TYPE_CHECKING, the step is called and recorded."""
    assert module.finds("key", module.Till()) == [module.Late(1), None]
    assert module.Till().counts("key") == {"a": module.Late(2)}


def test_an_input_for_the_checker_only_is_told(module: Any) -> None:
    """Given a workflow's parameter of such a type, the error quotes it, also for input from the command line."""
    told = r"'Hashable' of 'key' in .*keyed.*TYPE_CHECKING"
    with pytest.raises(DefinitionError, match=told):
        module.keyed.check()
    with pytest.raises(DefinitionError, match=told):
        bind(module.keyed, None, ["a"])
