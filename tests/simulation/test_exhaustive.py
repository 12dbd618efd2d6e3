"""Every shape of workflow survives every fault at every append, and the death of who recovers it as well."""

from itertools import product

import pytest
from tests.simulation.faults import Fault, Kind
from tests.simulation.shapes import SHAPES, Shape
from tests.simulation.trials import appends, disturbed, undisturbed

EVERY = [pytest.param(shape, id=shape.name) for shape in SHAPES]
SMALL = [pytest.param(shape, id=shape.name) for shape in SHAPES if shape.small]

FAULTS = [kind for kind in Kind if kind is not Kind.OK]
CRASHES = (Fault(Kind.CRASH, 0), Fault(Kind.CRASH))


@pytest.mark.parametrize("shape", EVERY)
def test_a_run_ends_as_it_must_when_nothing_goes_wrong(shape: Shape) -> None:
    """Given no fault, one worker brings the run to the end that its code says; and every invariant holds."""
    world, _ = undisturbed(shape, mended=True)
    problem = shape.expected(world.audit.stream("w"))
    assert problem is None, "\n".join([*world.journal.acts, problem])
    trial = disturbed(shape, {})
    assert not trial.problems, trial.report()


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("shape", EVERY)
def test_a_run_survives_any_fault_at_any_append(shape: Shape, kind: Kind) -> None:
    """Given one fault at append k, with none, all or the first few of its records written, the run still ends as it
    must and every invariant holds; for each k.
    """
    for k, size in enumerate(appends(shape)):
        for written in range(size + 1):
            trial = disturbed(shape, {k: Fault(kind, written)})
            assert not trial.problems, trial.report()


@pytest.mark.parametrize("shape", SMALL)
def test_a_run_survives_a_crash_and_another_one_during_recovery(shape: Shape) -> None:
    """Given a crash at append k and one at a later append, which the worker that recovers makes, the run ends as
    it must.
    """
    count = len(appends(shape))
    for first in range(count):
        for second, one, two in product(range(first + 1, count + 2), CRASHES, CRASHES):
            trial = disturbed(shape, {first: one, second: two})
            assert not trial.problems, trial.report()


@pytest.mark.parametrize("kind", [Kind.LOST, Kind.ZOMBIE])
@pytest.mark.parametrize("shape", SMALL)
def test_a_run_survives_a_crash_after_its_owner_has_come_back(shape: Shape, kind: Kind) -> None:
    """Given an append whose ack is lost, or whose maker is stopped, and a crash at the next few appends, the run ends
    as it must.
    """
    for k in range(len(appends(shape))):
        for later, written in product((1, 2, 3), (0, None)):
            trial = disturbed(shape, {k: Fault(kind, written), k + later: Fault(Kind.CRASH)})
            assert not trial.problems, trial.report()
