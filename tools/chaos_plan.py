"""What is broken when: a schedule that follows from its seed alone, so that a run can be had again."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from chaos_log import SESSION_MS

SESSION_S: Final = SESSION_MS / 1_000
BEGIN_AFTER_S: Final = 2.0
"""Load first: a fault on an idle system shows little."""
MEAN_PAUSE_S: Final = 3.0
"""Between the beginnings of two faults. With one a second, of some five seconds each, little is ever done at all."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Args:
        name: As `worker.kill`.
        weight: How often, beside the others.
        shortest_s: Least length in seconds. Of a kill, it is how long nobody is there.
        longest_s: Greatest length in seconds.
    """

    name: str
    weight: int
    shortest_s: float
    longest_s: float

    @property
    def victim(self) -> str:
        """Whom it befalls: `worker`, `broker`, `client` or `link`."""
        return self.name.partition(".")[0]


KINDS: Final = (
    Kind("worker.kill", 6, 0.0, 3.0),
    Kind("worker.pause", 3, 0.2, 0.8 * SESSION_S),
    Kind("worker.pause_past_session", 4, 1.3 * SESSION_S, 2.5 * SESSION_S),
    Kind("worker.freeze", 3, 1.5 * SESSION_S, 2.5 * SESSION_S),
    Kind("worker.drain", 4, 0.0, 1.0),
    Kind("worker.add", 2, 3.0, 8.0),
    Kind("broker.kill", 3, 0.5, 4.0),
    Kind("broker.stop", 1, 0.5, 3.0),
    Kind("broker.pause", 3, 0.5, 6.0),
    Kind("link.cut", 3, 0.3, 6.0),
    Kind("link.hold", 2, 0.5, 6.0),
    Kind("link.half_open", 3, 0.5, 6.0),
    Kind("link.slow", 2, 2.0, 6.0),
    Kind("client.kill", 1, 0.0, 2.0),
)


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come.

    Args:
        at_s: When, in seconds from the beginning of the load.
        kind: What.
        target: Whom: `worker-1`, `broker-2`, `client-1`, or a link's two ends: `worker-1 - broker-2`, and
            `worker-1 - *` for all of its links.
        length_s: How long.
        delay_s: Of a slow link.
    """

    at_s: float
    kind: str
    target: str
    length_s: float
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Cast:
    """Who there is.

    Args:
        workers: Names of the workers.
        spares: Names of the workers that are not there at first.
        brokers: Names of the brokers.
        clients: Names of the clients.
    """

    workers: Sequence[str]
    spares: Sequence[str]
    brokers: Sequence[str]
    clients: Sequence[str]


def plan(
    seed: int,
    seconds: float,
    cast: Cast,
    mean_pause_s: float = MEAN_PAUSE_S,
    only: Sequence[str] = (),
) -> list[Planned]:
    """The faults of a run.

    One broker is broken at a time: of three, two must be there for anything to be written. Nobody is broken in two
    ways at once, but workers, links and a broker are broken in each other's company.

    Args:
        seed: The same gives the same.
        seconds: All begin and end in this time; SIGTERM's end is the process's own business.
        cast: Whom it may befall.
        mean_pause_s: Mean time between the beginnings of two faults, in seconds.
        only: Kinds of faults, by the beginnings of their names: `worker`, `link.cut`. All where none is given.
    """
    kinds = [kind for kind in KINDS if not only or kind.name.startswith(tuple(only))]
    random = Random(f"faults/{seed}")
    faults: list[Planned] = []
    busy_until: dict[str, float] = {}
    at_s = BEGIN_AFTER_S
    while at_s < seconds:
        kind = random.choices(kinds, [kind.weight for kind in kinds])[0]
        length_s = random.uniform(kind.shortest_s, kind.longest_s)
        candidates = [
            who for who in _candidates(kind, cast) if busy_until.get(_key(who), 0) <= at_s
        ]
        if candidates and at_s + length_s < seconds:
            target = random.choice(candidates)
            delay_s = random.uniform(0.02, 0.4) if kind.name == "link.slow" else 0.0
            faults.append(Planned(round(at_s, 3), kind.name, target, round(length_s, 3), delay_s))
            rest_s = 3.0 if kind.victim == "broker" else 1.0
            busy_until[_key(target)] = at_s + length_s + rest_s
        at_s += random.expovariate(1 / mean_pause_s)
    return faults


def _candidates(kind: Kind, cast: Cast) -> list[str]:
    match kind.victim:
        case "broker":
            return list(cast.brokers)
        case "client":
            return list(cast.clients)
        case "link":
            near = [*cast.workers, *cast.clients]
            far = [*cast.brokers, "*"]
            return [f"{process} - {broker}" for process in near for broker in far]
        case _:
            return list(cast.spares if kind.name == "worker.add" else cast.workers)


def _key(target: str) -> str:
    """What may be broken in one way at a time: all brokers together, a process, all links of a process."""
    process, link, _ = target.partition(" - ")
    return "a broker" if target.startswith("broker") else process + link
