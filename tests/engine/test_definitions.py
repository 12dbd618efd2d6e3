"""Definitions: what the decorators make of functions, and the catalogue of what was declared."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from refold.engine.definitions import (
    AsyncStep,
    Catalogue,
    SyncStep,
    Workflow,
    run_step_sync,
    step,
    workflow,
)
from refold.log.errors import DefinitionError, PayloadError

if TYPE_CHECKING:
    from collections.abc import Hashable

STEP: Any = step
"""The decorator with no types: for what checkers refuse, and Python lets through."""


@dataclass
class Money:
    cents: int


class Till: ...


@step
async def charge(amount: Money, note: str = "") -> Money:
    return Money(amount.cents + len(note))


# What can be defined --------------------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


class Callable_:  # noqa: N801 - the name is for this test
    def __call__(self) -> int:
        return 1


class Descriptor(Callable_):
    def __get__(self, instance: object, owner: type[object] | None = None) -> "Descriptor":
        return self


def named(number: int) -> int:
    return number


@pytest.mark.parametrize("decorate", [step, workflow, step(name="x"), workflow(name="x")])
@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (generator, "generator"),
        (async_generator, "generator"),
        (Till, "class"),
        (Callable_(), "no function"),
        (Descriptor(), "no function"),
        (functools.partial(abs, 1), "no function"),
        (functools.wraps(named)(functools.partial(named, 1)), "no function"),
        (functools.partialmethod(named, 1), "no function"),
        (functools.cached_property(named), "no function"),
        (5, "no function"),
        (charge, "step already|no function"),
    ],
)
def test_what_is_no_function_can_not_be_decorated(decorate: Any, fn: object, told: str) -> None:
    """Given a generator, a class or a thing, the decorator says what to do instead."""
    with pytest.raises(DefinitionError, match=told):
        decorate(fn)


def test_a_lambda_has_no_name_to_record() -> None:
    """Given a lambda with no name, decorators and run_step say so."""
    with pytest.raises(DefinitionError, match="lambda"):
        step(lambda: 1)
    with pytest.raises(DefinitionError, match="lambda"):
        workflow(lambda: 1)
    with pytest.raises(DefinitionError, match="name='what-it-does'"):
        run_step_sync(lambda: 1)
    assert step(name="one")(lambda: 1).name == "one"


def test_a_method_can_not_be_a_workflow() -> None:
    """Given a method, its instance could not be brought back."""
    with pytest.raises(DefinitionError, match="method"):

        class _Shop:  # pyright: ignore[reportUnusedClass]
            @workflow
            def sell(self) -> int:
                return 1


@pytest.mark.parametrize("name", ["", "x" * 201, "tab\t", "line\n", "bell\x07"])
def test_a_name_that_can_not_be_recorded_is_refused(name: str) -> None:
    """Given an empty, over-long or unprintable name, the error says what a name is."""
    with pytest.raises(DefinitionError, match="1 to 200 printable characters"):
        step(name=name)(plain)
    with pytest.raises(DefinitionError, match="1 to 200 printable characters"):
        workflow(name=name)(plain)
    with pytest.raises(DefinitionError, match="1 to 200 printable characters"):
        run_step_sync(plain, name=name)


def plain() -> int:
    """Says one."""
    return 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: step(timeout_s=0), "timeout_s=0"),
        (lambda: step(timeout_s=float("nan")), "timeout_s=nan"),
        (lambda: step(total_timeout_s=-1), "total_timeout_s=-1"),
        (lambda: STEP(on_exhausted="stop"), "on_exhausted='stop'"),
        (lambda: STEP(retry=3), "retry=3"),
    ],
)
def test_an_option_out_of_range_is_refused(make: Callable[[], object], told: str) -> None:
    """Given an impossible option, the error names it before any function is decorated."""
    with pytest.raises(DefinitionError, match=told):
        make()


def test_a_definition_keeps_what_the_function_says_of_itself() -> None:
    """Given a decorated function, its name, documentation and signature can still be read."""
    one, two = step(plain), workflow(plain)
    for made in (one, two):
        assert made.__doc__ == "Says one."
        assert getattr(made, "__name__", "") == "plain"
    assert isinstance(one, SyncStep)
    assert isinstance(charge, AsyncStep)
    assert two.name == "plain"
    assert two.source.endswith(f"test_definitions.py:{plain.__code__.co_firstlineno}")


def test_the_code_hash_changes_with_the_code() -> None:
    """Given two functions, their hashes differ; given the same source, with or without the file, it is stable."""

    def make(body: str) -> Workflow[..., Any]:
        space: dict[str, Any] = {}
        exec(f"def flow():\n    return {body}", space)  # a function without source
        return cast("Workflow[..., Any]", workflow(cast("Callable[[], object]", space["flow"])))

    assert make("1 + a").code_hash == make("1 + a").code_hash
    assert make("1 + a").code_hash != make("1 - a").code_hash
    assert workflow(plain).code_hash == workflow(plain).code_hash
    assert len(workflow(plain).code_hash) == 16


# Annotations ----------------------------------------------------------------------------------------------------


def test_a_type_defined_after_the_function_is_found() -> None:
    """Given a forward reference, the annotation is evaluated at the first use."""

    @step
    def late() -> "Late":
        return Late(1)

    assert late.result_type.round_trip(late())[1] == Late(1)


@dataclass
class Late:
    number: int


def test_a_type_local_to_a_function_is_found() -> None:
    """Given string annotations of a class in the same function, the names are kept from where it was defined."""

    @dataclass
    class Local:
        number: int

    @step
    def makes() -> "list[Local]":
        return [Local(1)]

    @workflow
    def takes(local: "Local") -> "Local":
        return local

    assert makes.result_type.round_trip(makes())[1] == [Local(1)]
    assert takes.input_type.decode(takes.input_type.encode((Local(2),), {})) == ((Local(2),), {})
    assert takes.result_type.round_trip(Local(3))[1] == Local(3)


def test_only_the_result_of_a_step_needs_a_type_at_run_time() -> None:
    """Given a parameter whose type is for the checker only, the step works."""

    @step
    def keyed(key: "Hashable") -> int:
        return hash(key)

    keyed.result_type.check()


def test_an_annotation_that_can_not_be_evaluated_names_the_function() -> None:
    """Given a name that is nowhere, the error names function and annotation, and comes at each use."""

    def lost(key: "Hashable") -> object:
        return key

    lost.__annotations__["return"] = "Nowhere"
    definition = workflow(lost)
    for _ in range(2):
        with pytest.raises(DefinitionError, match=r"'Hashable' of 'key' in .*lost"):
            definition.check()
        with pytest.raises(DefinitionError, match=r"'Nowhere' of 'return' in .*lost"):
            definition.result_type.check()


# Catalogue ------------------------------------------------------------------------------------------------------


def two_named_alike(name: str = "alike") -> tuple[Workflow[..., Any], Workflow[..., Any]]:
    def first() -> int:
        return 1

    def second() -> int:
        return 2

    return workflow(name=name)(first), workflow(name=name)(second)


def test_two_workflows_with_one_name_are_refused_in_a_list() -> None:
    """Given a list with one name twice, the error tells both places."""
    first, second = two_named_alike()
    with pytest.raises(DefinitionError) as caught:
        Catalogue.of([first, second])
    assert first.source in str(caught.value)
    assert second.source in str(caught.value)
    catalogue = Catalogue.of([first])
    with pytest.raises(DefinitionError, match="'alike'"):
        catalogue.add(second)
    assert catalogue["alike"] is first


def test_two_declared_workflows_with_one_name_matter_when_the_name_is_looked_up() -> None:
    """Given two modules that never meet, their equal names do not stop an engine that uses neither."""
    first, _ = two_named_alike()
    mine = workflow(name="mine-alone")(plain)
    catalogue = Catalogue.declared()
    assert catalogue["mine-alone"] is mine
    assert "alike" in catalogue
    with pytest.raises(DefinitionError, match="'alike' means several workflows"):
        catalogue.get("alike")
    with pytest.raises(DefinitionError, match="'alike'"):
        catalogue.add(first)
    assert catalogue.get("nowhere") is None


def test_a_redefinition_replaces_what_it_redefines() -> None:
    """Given a cell that is run twice in a notebook, the later definition counts."""

    def define() -> Workflow[..., Any]:
        @workflow(name="cell")
        def cell() -> int:
            return 1

        return cell

    define()
    later = define()
    assert Catalogue.declared()["cell"] is later
    catalogue = Catalogue.of([define()])
    catalogue.add(later)
    assert catalogue["cell"] is later


def test_a_catalogue_is_its_engines_own() -> None:
    """Given two catalogues, what is added to one is not in the other."""
    one, other = Catalogue(), Catalogue()
    one.add(workflow(name="only-in-one")(plain))
    assert list(one) == ["only-in-one"]
    assert (len(one), len(other)) == (1, 0)


# Versions -------------------------------------------------------------------------------------------------------


def two_versions(name: str = "versioned") -> tuple[Workflow[..., Any], Workflow[..., Any]]:
    """Two functions with one qualified name, as where a module's second `def` shadows its first."""

    def define(version: int) -> Workflow[..., Any]:
        @workflow(name=name, version=version)
        def checkout(order: int) -> int:
            return order + version

        return checkout

    return define(1), define(2)


def test_a_definition_is_of_version_1_where_it_does_not_say() -> None:
    """Given definitions with and without a version, each says its own."""
    first, second = two_versions()
    assert (first.version, second.version) == (1, 2)
    assert workflow(plain).version == 1
    assert "version 2" in repr(second)


def test_versions_of_one_name_stand_beside_each_other() -> None:
    """Given two versions whose functions have one name, both are found, and the newest without asking."""
    first, second = two_versions()
    for catalogue in (Catalogue.of([second, first]), Catalogue.declared()):
        assert catalogue.find("versioned", 1) is first
        assert catalogue.find("versioned", 2) is second
        assert catalogue.find("versioned") is catalogue["versioned"] is second
        assert catalogue.versions("versioned") == [1, 2]
    assert catalogue.versions("nowhere") == []


def test_functions_of_any_name_can_be_versions_of_one_workflow() -> None:
    """Given functions of two names and a third version, a catalogue counts one name and holds three definitions."""

    @workflow(name="renamed", version=3)
    def third() -> int:
        return 3

    @workflow(name="renamed", version=20251122)
    def latest() -> int:
        return 4

    catalogue = Catalogue.of([latest, workflow(name="renamed")(plain), third])
    assert catalogue.versions("renamed") == [1, 3, 20251122]
    assert catalogue["renamed"] is latest
    assert (list(catalogue), len(catalogue)) == (["renamed"], 1)
    assert len({definition.code_hash for definition in catalogue.definitions()}) == 3


def test_two_definitions_of_one_name_and_version_are_refused() -> None:
    """Given two functions that both say version 2, the error names version and both places."""
    # A name of its own: what is declared stays declared, and other tests ask for what is.
    _, second = two_versions("twice-newest")
    other = workflow(name="twice-newest", version=2)(plain)
    with pytest.raises(DefinitionError, match="several workflows of version 2") as caught:
        Catalogue.of([second, other])
    assert second.source in str(caught.value)
    assert other.source in str(caught.value)


def test_an_unclear_old_version_does_not_stand_in_the_way_of_a_new_one() -> None:
    """Given two declared definitions of version 1 and one of version 2, only looking up version 1 is an error."""
    two_named_alike("once-alike")
    newest = workflow(name="once-alike", version=2)(plain)
    catalogue = Catalogue.declared()
    assert catalogue["once-alike"] is newest
    with pytest.raises(DefinitionError, match="several workflows of version 1"):
        catalogue.find("once-alike", 1)


def test_what_is_not_there_is_told_with_what_is() -> None:
    """Given a name or version that is not registered, the error says which are."""
    catalogue = Catalogue.of([*two_versions(), workflow(name="other")(plain)])
    with pytest.raises(KeyError) as caught:
        catalogue.find("checkout")
    assert (
        "'checkout' is not registered with the worker, which knows: other (version 1), "
        "versioned (versions 1, 2)"
    ) in caught.value.args[0]
    with pytest.raises(KeyError) as caught:
        catalogue.find("versioned", 3)
    assert (
        "version 3 of workflow 'versioned' is not registered with the worker, which knows: "
        "versioned (versions 1, 2)"
    ) in caught.value.args[0]
    with pytest.raises(KeyError, match="knows: none"):
        Catalogue().find("any")


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "2", None, 2**63])
def test_a_version_that_is_no_number_from_1_upwards_is_refused(version: Any) -> None:
    """Given a version that can't be counted, the error shows it before any function is decorated."""
    with pytest.raises(DefinitionError, match=rf"version={version!r}.*whole number from 1"):
        workflow(version=version)


def test_a_function_that_makes_workflows_makes_all_of_them() -> None:
    """Given workflows of several names from one inner function, each is declared."""

    def make(name: str) -> Workflow[..., Any]:
        @workflow(name=name)
        def made() -> str:
            return name

        return made

    made = [make(f"made-{number}") for number in range(3)]
    catalogue = Catalogue.declared()
    assert [catalogue[definition.name] for definition in made] == made


# Binding --------------------------------------------------------------------------------------------------------


def test_an_input_is_checked_when_it_is_bound() -> None:
    """Given a wrong argument, nothing is made that could be started."""

    @workflow
    async def takes(money: Money, *, note: str = "") -> Money:
        return money

    bound = takes.bind(Money(1), note="n")
    assert bound.payload == '{"money":{"cents":1},"note":"n"}'
    assert bound.workflow is takes
    untyped: Any = takes
    with pytest.raises(PayloadError, match="argument"):
        untyped.bind("five")
