"""What an engine and its handles share: the way to the engine's loop, and what works there."""

from dataclasses import dataclass
from typing import Any

from refold.engine.bridge import Bridge
from refold.engine.client import Client
from refold.engine.emissions import encoded
from refold.engine.operator import Operator
from refold.engine.payload import PayloadType


@dataclass(frozen=True, slots=True)
class Access:
    """What handles share: the way to the engine's loop, and what works there.

    Args:
        bridge: The way to the loop.
        client: Asks the owners of runs.
        operator: Gives orders.
        max_payload_bytes: Largest JSON of a message or question.
        timeout_s: Longest wait for a worker to take something, in seconds.
    """

    bridge: Bridge
    client: Client
    operator: Operator
    max_payload_bytes: int
    timeout_s: float

    def encoded(self, value: object, what: str) -> str:
        """The JSON of a value, by its own type.

        Raises:
            PayloadError: It has none, or is too large.
        """
        return encoded(value, what, self.max_payload_bytes)


def expected_type(annotation: object, what: str) -> PayloadType[Any]:
    """The payload type of what is expected.

    Raises:
        DefinitionError: The type has no JSON form.
    """
    expected = PayloadType.of(object if annotation is Any else annotation, what)
    expected.check()
    return expected
