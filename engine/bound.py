"""A workflow with its input: what `Engine.start` starts, typed so that the input is checked before anything runs.

Python can't type a call that takes a workflow's own parameters and further keywords of ours beside them (PEP 612), so
`start(checkout, order, id="order-42")` is typed by the number of positional arguments, and whatever needs keywords is
bound first: `start(checkout.bind(order, note="gift"), id="order-42")`.
"""

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from refold.engine.payload import PayloadType

R_co = TypeVar("R_co", covariant=True)
A1_contra = TypeVar("A1_contra", contravariant=True)
A2_contra = TypeVar("A2_contra", contravariant=True)
A3_contra = TypeVar("A3_contra", contravariant=True)
A4_contra = TypeVar("A4_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Bound(Generic[R_co]):
    """A workflow with its input, checked and encoded.

    Args:
        workflow: The definition; an engine that runs workflows registers it on start.
        payload: JSON of the input.
        result_type: How the result comes back.
    """

    workflow: Any
    payload: str
    result_type: PayloadType[R_co]


class Takes0(Protocol[R_co]):
    """A workflow that can be called without arguments."""

    def bind(self) -> Bound[R_co]: ...  # noqa: D102


class Takes1(Protocol[A1_contra, R_co]):
    """A workflow that can be called with one positional argument."""

    def bind(self, a1: A1_contra, /) -> Bound[R_co]: ...  # noqa: D102


class Takes2(Protocol[A1_contra, A2_contra, R_co]):
    """A workflow that can be called with two positional arguments."""

    def bind(self, a1: A1_contra, a2: A2_contra, /) -> Bound[R_co]: ...  # noqa: D102


class Takes3(Protocol[A1_contra, A2_contra, A3_contra, R_co]):
    """A workflow that can be called with three positional arguments."""

    def bind(  # noqa: D102
        self, a1: A1_contra, a2: A2_contra, a3: A3_contra, /
    ) -> Bound[R_co]: ...


class Takes4(Protocol[A1_contra, A2_contra, A3_contra, A4_contra, R_co]):
    """A workflow that can be called with four positional arguments."""

    def bind(  # noqa: D102
        self, a1: A1_contra, a2: A2_contra, a3: A3_contra, a4: A4_contra, /
    ) -> Bound[R_co]: ...
