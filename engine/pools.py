"""Steps that pools of workers carry out, as a partition's owner sees them: who offers what, and who has which attempt.

A pool's worker owns nothing and writes no event. It is a client of the namespace that offers to carry steps out; the
owner gives it an attempt, lets it begin, and records what it reports. All of this is in the owner's memory alone: the
log knows of no pool, and a new owner begins with no offer. Rules:

1. An attempt that nobody offers to carry out waits. Among those who offer, the one that was given nothing for longest
   gets it.
2. A worker begins only with a grant, which it asks for, and only within `proof.FRESH_S` of asking. Only the worker that
   the attempt was given to gets one.
3. A grant is a lease: without a word for `lease_s` (by a clock that nobody can set) the attempt is given to another.
   As the lease is longer than `FRESH_S`, whoever was stopped meanwhile does not begin any more.
4. A report counts from whoever has the attempt, or where nobody has it. It counts as well from a worker that has lost
   its lease, unless the one that has it now may be about to begin: no step begins once its outcome is recorded.
5. After a takeover, attempts of runs that were there before are given to nobody for `hold_s`: longer than `FRESH_S`,
   for the former owner may have let somebody begin; and long enough for whoever is at it to say so (`KeepStep`), which
   then goes on with it.
6. Workers may be lost like commands and replies may: what was given and is not begun is given again.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from refold.engine.effects import Answer, Effect, Grant, Launch
from refold.engine.pool_messages import (
    Attempted,
    Offer,
    PoolStep,
    cancel_reply,
    granted_reply,
    read_offer,
    task_reply,
)
from refold.engine.privacy import Privacy
from refold.engine.proof import FRESH_S
from refold.log.commands import BeginStep, KeepStep, OfferWork, Reply, ReportStep
from refold.log.errors import UsageError

DEFAULT_LEASE_S: Final = 30.0
MIN_LEASE_S: Final = 2 * FRESH_S
"""So that nobody begins after it, nor after the half of it for which a new owner waits."""
MICROSECONDS = 1_000_000
_MOMENT_US: Final = 10_000
_FRESH_US: Final = round(FRESH_S * MICROSECONDS)

Key = tuple[str, int]
"""Workflow id and step."""


def check_lease(lease_s: float) -> float:
    """`lease_s` if it can be one.

    Raises:
        UsageError: It is so short that a step could begin after it.
    """
    if not lease_s >= MIN_LEASE_S:
        msg = f"the lease of a pool's steps can't be {lease_s!r} s: it takes {MIN_LEASE_S:g} s at least"
        raise UsageError(msg)
    return lease_s


@dataclass(slots=True)
class _Worker:
    """A pool's worker that offers to carry steps out."""

    client_id: str
    command_id: str
    offer: Offer
    until: int
    given_at: int = 0  # of the last: a count, not a time
    alarm: int = 0
    has: set[Key] = field(default_factory=set[Key])


@dataclass(slots=True)
class _Attempt:
    """An attempt that is waited for."""

    launch: Launch
    is_inherited: bool  # a former owner may have given it to somebody
    number: int = 0  # when it began to wait: a count
    client_id: str | None = None  # who has it
    granted_at: int | None = None  # when that one was last let begin
    until: int = 0  # when it is given up
    alarm: int = 0

    @property
    def attempted(self) -> Attempted:
        return Attempted(self.launch.workflow_id, self.launch.step, self.launch.attempt)

    @property
    def key(self) -> Key:
        return self.launch.workflow_id, self.launch.step

    @property
    def step(self) -> PoolStep:
        call = self.launch.call
        return PoolStep(call.options.pool or "", call.name)


class Pools:
    """The attempts of one owned partition that pools carry out, and their workers.

    Args:
        wants: Whether an attempt is still waited for.
        elapsed: A clock that only goes forward, in microseconds.
        lease_s: How long a worker may go on with a step without a word.
        privacy: With what arguments are encrypted; None for none.
    """

    def __init__(
        self,
        wants: Callable[[Launch], bool],
        elapsed: Callable[[], int],
        lease_s: float = DEFAULT_LEASE_S,
        privacy: Privacy | None = None,
    ) -> None:
        self._privacy = privacy
        self._wants = wants
        self._elapsed = elapsed
        self._lease_s = check_lease(lease_s)
        self._lease_us = round(lease_s * MICROSECONDS)
        self._answer_us = max(_FRESH_US, self._lease_us // 4)
        self._began_at = elapsed()
        self._count = 0
        self._is_used = False
        self._workers: dict[str, _Worker] = {}
        self._attempts: dict[Key, _Attempt] = {}
        self._waiting: dict[PoolStep, dict[Key, _Attempt]] = {}
        # When, tie-break, and whose: an attempt's, a worker's, or that of reports which were put off.
        self._alarms: list[tuple[int, int, Key | str | None]] = []
        self._put_off: list[ReportStep] = []
        self._out: list[Effect] = []

    # Attempts ---------------------------------------------------------------------------------------------

    def expect(self, launch: Launch, *, is_inherited: bool) -> None:
        """Take note of an attempt that will be `ready` soon, and may be reported already.

        Args:
            launch: The attempt.
            is_inherited: Whether a former owner may have given it to somebody.
        """
        self._is_used = True
        self.cancel(launch.workflow_id, launch.step)
        self._attempts[launch.workflow_id, launch.step] = _Attempt(launch, is_inherited)

    def divert(self, effects: list[Effect]) -> list[Effect]:
        """Take over the attempts that are for pools; returns the other effects, with what is to be told to workers."""
        if not self._is_used and not self._out:  # mostly
            return effects
        others: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Launch) and effect.call.options.pool is not None:
                self._ready(effect)
            else:
                others.append(effect)
        others.extend(self._out)
        self._out.clear()
        return others

    def cancel(self, workflow_id: str, step: int) -> None:
        """Forget an attempt that nobody waits for any more, and tell who has it."""
        attempt = self._attempts.get((workflow_id, step))
        if attempt is None:
            return
        self._forget(attempt)
        if attempt.client_id is not None:
            self._tell(attempt.client_id, cancel_reply(attempt.attempted, ""))

    def reported(self, command: ReportStep) -> Launch | None:
        """The attempt that a report is about, which is over with it; None where it does not count."""
        if command.reply_to is not None:
            self._meet(command.reply_to, command.workflow_id)
        attempt = self._attempts.get((command.workflow_id, command.step))
        if attempt is None or attempt.launch.attempt != command.attempt:
            return None
        if attempt.client_id not in (None, command.reply_to):
            granted_at = attempt.granted_at
            if granted_at is not None and self._elapsed() - granted_at <= _FRESH_US:
                return None  # rule 4
            self._tell(attempt.client_id, cancel_reply(attempt.attempted, ""))
        self._forget(attempt)
        return attempt.launch

    def puts_off(self, command: ReportStep) -> bool:
        """Whether a report has to wait: just after a takeover, somebody else may be about to begin (rule 4)."""
        attempt = self._attempts.get((command.workflow_id, command.step))
        until = self._began_at + _FRESH_US
        if attempt is None or not attempt.is_inherited or self._elapsed() > until:
            return False
        self._put_off.append(command)
        self._ring_at(until + 1, None)
        return True

    def take_put_off(self) -> list[ReportStep]:
        """The reports that need wait no longer."""
        if not self._put_off or self._elapsed() <= self._began_at + _FRESH_US:
            return []
        reports, self._put_off = self._put_off, []
        return reports

    def waiting(self) -> Counter[str]:
        """How many attempts each pool has nobody for."""
        counts: Counter[str] = Counter()
        for step, attempts in self._waiting.items():
            counts[step.pool] += len(attempts)
        return counts

    # Workers ----------------------------------------------------------------------------------------------

    def offered(self, command: OfferWork) -> None:
        """A worker offers to carry steps out, declines some, or goes away."""
        client_id = command.reply_to
        if client_id is None:
            return
        offer = read_offer(command)
        until = self._elapsed() + round(offer.lasts_s * MICROSECONDS)
        worker = self._workers.get(client_id)
        if not offer.steps:
            self._workers.pop(client_id, None)
        elif worker is None:
            worker = _Worker(client_id, command.command_id, offer, until)
            worker.has = {k for k, a in self._attempts.items() if a.client_id == client_id}
            self._workers[client_id] = worker
            worker.alarm = self._ring_at(until, client_id)
        else:
            worker.command_id, worker.offer, worker.until = command.command_id, offer, until
        for declined in offer.declined:
            attempt = self._attempts.get((declined.workflow_id, declined.step))
            if attempt is not None and attempt.client_id == client_id:
                self._place_again(attempt, declined)
        if worker is not None and offer.steps:
            self._serve(worker)

    def begin(self, command: BeginStep) -> None:
        """A worker asks whether it may begin."""
        client_id = command.reply_to
        if client_id is None:
            return
        self._meet(client_id, command.workflow_id)
        asked = Attempted(command.workflow_id, command.step, command.attempt)
        attempt = self._attempts.get((command.workflow_id, command.step))
        if (
            attempt is None
            or attempt.client_id != client_id
            or attempt.attempted != asked
            or not self._wants(attempt.launch)
        ):
            self._tell(client_id, cancel_reply(asked, command.command_id))
            return
        attempt.granted_at = self._elapsed()
        attempt.until = attempt.granted_at + self._lease_us
        grant = granted_reply(asked, command.command_id, self._lease_s)
        self._out.append(Grant(client_id, grant))

    def keep(self, command: KeepStep) -> None:
        """A worker goes on with an attempt: ours, or one that a former owner gave it."""
        client_id = command.reply_to
        if client_id is None:
            return
        at_it = Attempted(command.workflow_id, command.step, command.attempt)
        attempt = self._attempts.get((command.workflow_id, command.step))
        self._meet(client_id, command.workflow_id)
        if attempt is None or attempt.attempted != at_it:
            self._tell(client_id, cancel_reply(at_it, command.command_id))
        elif attempt.client_id is None:
            self._leave_queue(attempt)
            self._lend(attempt, client_id, self._lease_us)
        elif attempt.client_id == client_id:
            attempt.until = self._elapsed() + self._lease_us
        else:
            self._tell(client_id, cancel_reply(at_it, command.command_id))

    # Time -------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Give up on who has not been heard of, and give away what was held."""
        while self._alarms and self._alarms[0][0] <= self._elapsed():
            _, number, whose = heappop(self._alarms)
            if isinstance(whose, str):
                worker = self._workers.get(whose)
                if worker is not None and worker.alarm == number:
                    self._worker_rung(worker)
            elif whose is not None:
                attempt = self._attempts.get(whose)
                if attempt is not None and attempt.alarm == number:
                    self._attempt_rung(attempt)

    def wake_at(self) -> int | None:
        """When `tick` has something to do next; None for never."""
        return self._alarms[0][0] if self._alarms else None

    def abandoned(self) -> list[Answer]:
        """What the workers are told when the partition is lost or given up: offer again, and say what you are at."""
        told = [(worker.client_id, worker.command_id) for worker in self._workers.values()]
        self._workers.clear()
        self._attempts.clear()
        self._waiting.clear()
        self._alarms.clear()
        self._put_off.clear()
        self._out.clear()
        return [Answer(client_id, _offer_again(command_id)) for client_id, command_id in told]

    # Within -----------------------------------------------------------------------------------------------

    def _meet(self, client_id: str, workflow_id: str) -> None:
        """Have a worker offer again that the former owner knew."""
        if client_id not in self._workers:
            self._tell(client_id, _offer_again("", workflow_id))

    def _ready(self, launch: Launch) -> None:
        key = launch.workflow_id, launch.step
        attempt = self._attempts.get(key)
        if attempt is None or attempt.launch is not launch:
            if attempt is not None or not self._wants(launch):
                return  # it was cancelled meanwhile, or reported
            attempt = self._attempts[key] = _Attempt(launch, is_inherited=False)
        if attempt.client_id is not None or not self._wants(launch):
            return  # the one who is at it has said so already
        held_until = self._began_at + self._lease_us // 2
        if attempt.is_inherited and self._elapsed() < held_until:
            attempt.until = held_until
            self._watch(attempt)
        else:
            self._place(attempt)

    def _place(self, attempt: _Attempt) -> None:
        """Give an attempt to a worker, or let it wait for one."""
        step = attempt.step
        free = [w for w in self._workers.values() if step in w.offer.steps and _has_room(w)]
        if free:
            self._give(attempt, min(free, key=lambda worker: worker.given_at))
        else:
            attempt.number = self._next()
            self._waiting.setdefault(step, {})[attempt.key] = attempt

    def _serve(self, worker: _Worker) -> None:
        """Give what waits, the longest waiting first, to a worker that has room."""
        while _has_room(worker):
            queues = (self._waiting.get(step) for step in worker.offer.steps)
            heads = [next(iter(queue.values())) for queue in queues if queue]
            if not heads:
                return
            oldest = min(heads, key=lambda attempt: attempt.number)
            self._leave_queue(oldest)
            self._give(oldest, worker)

    def _give(self, attempt: _Attempt, worker: _Worker) -> None:
        worker.given_at = self._next()
        attempt.granted_at = None
        self._lend(attempt, worker.client_id, self._answer_us)
        self._tell(worker.client_id, task_reply(attempt.launch, worker.command_id, self._privacy))

    def _lend(self, attempt: _Attempt, client_id: str, for_us: int) -> None:
        attempt.client_id = client_id
        attempt.until = self._elapsed() + for_us
        worker = self._workers.get(client_id)
        if worker is not None:
            worker.has.add(attempt.key)
        self._watch(attempt)

    def _attempt_rung(self, attempt: _Attempt) -> None:
        if attempt.until > self._elapsed():
            self._watch(attempt)
        elif attempt.client_id is None:
            if any((report.workflow_id, report.step) == attempt.key for report in self._put_off):
                attempt.until = self._elapsed() + _MOMENT_US  # it is as good as over
                self._watch(attempt)
            else:
                self._place(attempt)
        else:
            silent = self._workers.get(attempt.client_id)
            if silent is not None:  # it is gone, or else it offers again
                del self._workers[silent.client_id]
                self._tell(silent.client_id, _offer_again(silent.command_id))
            self._place_again(attempt, attempt.attempted)

    def _worker_rung(self, worker: _Worker) -> None:
        if worker.until <= self._elapsed():
            del self._workers[worker.client_id]  # what it has is given up when its lease is over
        else:
            worker.alarm = self._ring_at(worker.until, worker.client_id)

    def _place_again(self, attempt: _Attempt, which: Attempted) -> None:
        if attempt.attempted != which:
            return
        self._take_back(attempt)
        self._place(attempt)

    def _take_back(self, attempt: _Attempt) -> None:
        worker = self._workers.get(attempt.client_id or "")
        if worker is not None:
            worker.has.discard(attempt.key)
        attempt.client_id, attempt.granted_at, attempt.alarm = None, None, 0

    def _forget(self, attempt: _Attempt) -> None:
        """An attempt is over: whoever had it has room for another."""
        del self._attempts[attempt.key]
        self._leave_queue(attempt)
        worker = self._workers.get(attempt.client_id or "")
        if worker is not None:
            worker.has.discard(attempt.key)
            self._serve(worker)

    def _leave_queue(self, attempt: _Attempt) -> None:
        queue = self._waiting.get(attempt.step)
        if queue is not None and queue.pop(attempt.key, None) is not None and not queue:
            del self._waiting[attempt.step]

    def _watch(self, attempt: _Attempt) -> None:
        attempt.alarm = self._ring_at(attempt.until, attempt.key)

    def _ring_at(self, at: int, whose: Key | str | None) -> int:
        number = self._next()
        heappush(self._alarms, (at, number, whose))
        return number

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _tell(self, client_id: str, reply: Reply) -> None:
        self._out.append(Answer(client_id, reply))


def _offer_again(command_id: str, workflow_id: str = "") -> Reply:
    return Reply(command_id=command_id, workflow_id=workflow_id, status="unknown")


def _has_room(worker: _Worker) -> bool:
    return len(worker.has) < worker.offer.slots


def all_waiting(pools: Iterable[Pools]) -> Counter[str]:
    """How many attempts of all these each pool has nobody for."""
    return sum((each.waiting() for each in pools), Counter[str]())
