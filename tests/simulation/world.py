"""A simulated world: one partition's log, workers that come and go, clients, and one scheduler that has them act.

All chance comes from one seed and all time is virtual, so a world can be lived through again, act by act. The group
that shares out the partition is modelled after Kafka's: a member that is silent for a session's time loses what it
has, and finds that out some time after it has come back.
"""

from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from functools import partial
from random import Random
from typing import Any

from tests.simulation.attempts import SECOND_US
from tests.simulation.faults import Fault, Faults, NoFaults
from tests.simulation.journal import Audit, Begin, Digests, Given, Journal, Silence
from tests.simulation.shapes import Outside, Shape, catalogue, outside
from tests.simulation.shell import NEVER_US, PARTITION, SimWorker

from refold.engine.definitions import Workflow
from refold.engine.effects import Answer, Launch
from refold.engine.fold import PartitionState, digest, evolve
from refold.engine.operations import Outcome
from refold.engine.owner import Owner, OwnerSettings
from refold.engine.thread_slots import ThreadSlots
from refold.log.codec import decode_event, encode_command
from refold.log.commands import Command, ResumeWorkflow, StartWorkflow, WatchWorkflow
from refold.log.memory import MemoryStore
from refold.log.protocol import Channel, Entry

START_US = 1_767_225_600 * SECOND_US  # 2026-01-01T00:00:00Z
SESSION_US = 6 * SECOND_US
"""Silence after which the group gives a member's partitions to others: design section 4."""
MAX_ACTS = 100_000
"""More than any world needs that comes to rest: one that does not, is a finding."""
MAX_WORKFLOW_THREADS = 2
"""So few that `def` workflows are suspended and brought back all the time."""

Act = Callable[[], None]


class World:
    """Everything there is.

    Args:
        seed: Where all chance comes from.
        faults: What becomes of appends.
        disturb: Share of acts before which something happens to a worker: it is killed, stopped or told to drain.
        disturbances: How many of these there may be.
        skew_us: How far workers' clocks may be off.
        max_kept_result_bytes: As in `OwnerSettings`.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        *,
        disturb: float = 0.0,
        disturbances: int = 0,
        skew_us: int = 0,
        max_kept_result_bytes: int = 32_000_000,
    ) -> None:
        self.now_us = START_US
        self.random = Random(seed)
        self.store = MemoryStore(1, lambda: self.now_us)
        self.journal = Journal()
        self.audit = Audit(self.store, PARTITION)
        self.outside = Outside()
        self.version = 1
        self.workers: list[SimWorker] = []
        self._faults: Faults = faults or NoFaults()
        self._disturb = disturb
        self._disturbances = disturbances
        self._skew_us = skew_us
        self._max_kept_result_bytes = max_kept_result_bytes
        self._assigned: SimWorker | None = None
        self._resume_us: dict[SimWorker, int] = {}
        self._plans: list[tuple[int, Act]] = []
        self._late: list[list[Entry]] = []
        self._slots = ThreadSlots(MAX_WORKFLOW_THREADS)
        self._reader = PartitionState()
        self._read = 0
        self._commands = 0

    # Living -----------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Act until nothing is left to do, not even by those that were stopped."""
        context = Context()
        context.run(outside.set, self.outside)
        context.run(self._live)

    def settle(self, shapes: Mapping[str, Shape]) -> None:
        """All trouble ends; a fresh worker finishes what is open; clients ask how it went; then look for silence.

        Args:
            shapes: What was started, by workflow id.
        """
        self._faults, self._disturbances = NoFaults(), 0
        self.live()
        self.outside.mended = True
        for version in (1, 2):  # what diverged goes on under the code that it began with
            self.version = version
            self._replace()
            self.live()
            self.audit.advance()
            for workflow_id in shapes:
                if self.audit.ended(workflow_id) is None:
                    self.submit(self._resume(workflow_id))
                self.submit(self._watch(workflow_id))
            self.live()
        self._look_for_silence()
        self._compare_readers()

    def close(self) -> None:
        """End all threads."""
        for worker in self.workers:
            if worker.alive:
                worker.die()
        self._slots.close()

    def plan(self, after_us: int, act: Act) -> None:
        """Have something happen, that long after the start."""
        self._plans.append((START_US + after_us, act))
        self._plans.sort(key=lambda plan: plan[0])

    def submit(self, command: Command) -> None:
        """A client appends a command."""
        self.store.append(Channel.COMMANDS, PARTITION, [encode_command(command)])

    def start(
        self, workflow_id: str, shape: Shape, args: Sequence[object] | None = None
    ) -> StartWorkflow:
        """The command that starts a run; each call makes another one."""
        bound = shape.workflow.bind(*(shape.args if args is None else args))
        self._commands += 1
        return StartWorkflow(
            command_id=f"start-{self._commands}",
            workflow_id=workflow_id,
            reply_to=f"client-{self._commands}",
            requested_at=self.now_us,
            workflow=shape.name,
            payload=bound.payload,
        )

    def resume(self, workflow_id: str) -> None:
        """Somebody mends what was out of order, and resumes the run."""
        self.outside.mended = True
        self.submit(self._resume(workflow_id))

    def watch(self, workflow_id: str) -> None:
        """A client asks how a run ends."""
        self.submit(self._watch(workflow_id))

    def poison_command(self, key: str | None) -> None:
        """Something that is no command comes into the commands."""
        garbage = self.random.randbytes(self.random.randrange(20))
        self.store.append(Channel.COMMANDS, PARTITION, [Entry(key, garbage)])

    def poison_stream(self, workflow_id: str) -> None:
        """The owner was of a newer release: it recorded what nobody here can read, and died."""
        self._note(f"an owner poisons {workflow_id} and dies")
        self._replace()
        self.audit.advance()
        headers = (("kind", b"workflow.improved"), ("claim", b"%d" % self.audit.claim))
        entry = Entry(workflow_id, b"\0\0\0\0\7 newer", headers)
        self.store.append(Channel.EVENTS, PARTITION, [entry])

    def _watch(self, workflow_id: str) -> WatchWorkflow:
        self._commands += 1
        return WatchWorkflow(
            command_id=f"watch-{self._commands}",
            workflow_id=workflow_id,
            reply_to=f"client-{self._commands}",
            requested_at=self.now_us,
        )

    def _resume(self, workflow_id: str) -> ResumeWorkflow:
        self._commands += 1
        return ResumeWorkflow(
            command_id=f"resume-{self._commands}",
            workflow_id=workflow_id,
            reply_to=f"client-{self._commands}",
            requested_at=self.now_us,
        )

    def intrude(self, workflow_id: str) -> None:
        """Somebody who is no worker writes garbage into a run's stream, while its owner is at work."""
        self._note(f"somebody writes garbage into {workflow_id}")
        entry = Entry(workflow_id, self.random.randbytes(self.random.randrange(20)))
        self.store.append(Channel.EVENTS, PARTITION, [entry])

    # Surroundings of workers ------------------------------------------------------------------------------

    def fate(self, worker: SimWorker, entries: int) -> Fault:
        """What becomes of the worker's next append."""
        fault = self._faults.at_append(entries)
        self._note(f"{worker.name} appends {entries}: {fault.kind} {fault.written}")
        return fault

    def stall(self, worker: SimWorker) -> None:
        """The worker stops; its session ends, and somebody else is to take over."""
        self._note(f"{worker.name} stops")
        worker.stopped = True
        if self._disturb and self.random.random() < 0.5:  # else it stops until all is done
            self._resume_us[worker] = self.now_us + self.random.randrange(10 * SESSION_US)
        if worker is self._assigned:
            self.now_us += SESSION_US
            self._assign()

    def land_later(self, entries: Sequence[Entry]) -> None:
        """Records are on their way."""
        if entries:
            self._late.append(list(entries))

    def owns(self, worker: SimWorker, claim: int) -> None:
        """The worker takes itself for the owner."""
        self._note(f"{worker.name} owns by {claim}")
        self.journal.owners.append((worker.name, claim))

    def began(self, worker: SimWorker, launch: Launch, knew: Sequence[Outcome]) -> None:
        """A step's attempt begins now."""
        audit = self.audit
        audit.advance()
        owner = worker.owner
        due_us = 0 if self._skew_us else audit.due_us(launch.workflow_id, launch.step)
        begin = Begin(
            worker=worker.name,
            workflow_id=launch.workflow_id,
            step=launch.step,
            attempt=launch.attempt,
            at_us=self.now_us,
            owned=owner is not None and owner.state.claim == audit.claim,
            failed=audit.failed(launch.workflow_id, launch.step),
            recorded_at_us=audit.recorded_at_us(launch.workflow_id, launch.step),
            overlaps=worker.under_way(launch),
            early_us=due_us - self.now_us,
            missing=tuple(outcome for outcome in knew if not audit.holds(outcome)),
        )
        self._note(f"{worker.name} begins {launch.workflow_id}/{launch.step} #{launch.attempt}")
        self.journal.begins.append(begin)

    def answered(self, answer: Answer) -> None:
        """A client hears a reply."""
        self.audit.advance()
        workflow_id = answer.reply.workflow_id
        stream = len(self.audit.stream(workflow_id))
        given = Given(answer.client_id, answer.reply, stream, self.audit.ended(workflow_id))
        self._note(f"{answer.client_id} hears {workflow_id} {answer.reply.status}")
        self.journal.answers.append(given)

    def quiet(self, worker: SimWorker, owner: Owner) -> None:
        """All that the owner has made is confirmed: its state is what any reader has."""
        if owner.next_offset == self.store.end(Channel.EVENTS, PARTITION):
            self._read_on()
            self.journal.digests.append(
                Digests(self._read, worker.name, digest(owner.state), digest(self._reader))
            )

    # The scheduler ----------------------------------------------------------------------------------------

    def _live(self) -> None:
        for _ in range(MAX_ACTS):
            self._maybe_disturb()
            acts = self._acts()
            if acts:
                self.random.choice(acts)()
                self.now_us += self.random.randrange(2000)
            elif not self._pass_time():
                return
        raise AssertionError(f"not at rest after {MAX_ACTS} acts: {self.journal.acts[-30:]}")

    def _acts(self) -> list[Act]:
        while self._plans and self._plans[0][0] <= self.now_us:
            self._plans.pop(0)[1]()
        acts: list[Act] = [partial(self._land, entries) for entries in self._late]
        self.workers = [worker for worker in self.workers if worker.alive]
        for worker in self.workers:
            acts.extend(worker.acts())
            if worker.stopped and self._resume_us.get(worker, NEVER_US) <= self.now_us:
                acts.append(partial(self._let_go_on, worker))
            if worker is not self._assigned and not worker.stopped:
                acts.append(partial(self._revoke, worker))
        if self._assigned is None or not self._assigned.alive:
            acts.append(self._assign)
        return acts

    def _pass_time(self) -> bool:
        """Go on to when the next thing happens; False where nothing ever will."""
        times = [at_us for at_us, _ in self._plans]
        times.extend(self._resume_us.values())
        for worker in self.workers:
            at_us = worker.next_time_us()
            if at_us is not None and at_us < NEVER_US:
                times.append(at_us)
        if times:
            self.now_us = max(self.now_us, min(times))
            return True
        stopped = [worker for worker in self.workers if worker.stopped]
        for worker in stopped:  # those that were to stop until all is done
            self._let_go_on(worker)
        return bool(stopped)

    def _maybe_disturb(self) -> None:
        worker = self._assigned
        if self._disturbances == 0 or worker is None or not worker.alive or worker.stopped:
            return
        if self.random.random() >= self._disturb:
            return
        self._disturbances -= 1
        match self.random.randrange(5):
            case 0:
                self._note(f"{worker.name} is killed")
                worker.die()
            case 1:
                self.stall(worker)
            case 2:
                self._note(f"{worker.name} drains")
                worker.drain()
            case 3:
                self._note(f"{worker.name} has its clock set")
                worker.set_clock(self._skew())
            case _:  # the group moves the partition while its owner lives and acts
                self.now_us += SESSION_US
                self._assign()

    def _land(self, entries: list[Entry]) -> None:
        self._note(f"{len(entries)} late records land")
        self._late.remove(entries)
        self.store.append(Channel.EVENTS, PARTITION, entries)

    def _let_go_on(self, worker: SimWorker) -> None:
        self._note(f"{worker.name} goes on")
        worker.stopped = False
        self._resume_us.pop(worker, None)

    def _revoke(self, worker: SimWorker) -> None:
        self._note(f"{worker.name} hears that it has lost the partition")
        worker.revoke()

    def _assign(self) -> None:
        """A new member of the group gets the partition."""
        number = self.random.randrange(1_000_000)
        settings = OwnerSettings(
            worker=f"worker-{number}",
            max_kept_result_bytes=self._max_kept_result_bytes,
            suspend_after_s=30.0,
        )
        workflows: Mapping[str, Workflow[..., Any]] = catalogue(self.version)
        worker = SimWorker(self, settings, workflows, self._slots, self._skew())
        self._note(f"{worker.name} is assigned")
        self._assigned = worker
        self.workers.append(worker)

    def _skew(self) -> int:
        return self.random.randrange(-self._skew_us, self._skew_us + 1)

    def _replace(self) -> None:
        """Every worker dies, and a fresh one begins."""
        for worker in self.workers:
            if worker.alive:
                worker.die()
        self.workers.clear()
        self._resume_us.clear()
        self._assigned = None

    # Looking on -------------------------------------------------------------------------------------------

    def _note(self, act: str) -> None:
        self.journal.acts.append(f"{(self.now_us - START_US) / SECOND_US:12.6f} {act}")

    def _read_on(self) -> None:
        for record in self.store.read(Channel.EVENTS, PARTITION, self._read):
            self._reader = evolve(self._reader, decode_event(record), record.offset)
            self._read = record.offset + 1

    def _look_for_silence(self) -> None:
        """A fresh worker recovers the finished log: note what it does."""
        begun, end = len(self.journal.begins), self.store.end(Channel.EVENTS, PARTITION)
        self._replace()
        self.live()
        events = [
            decode_event(record) for record in self.store.read(Channel.EVENTS, PARTITION, end)
        ]
        kinds = tuple(getattr(event, "kind", "unreadable") for event in events)
        self.journal.silence = Silence(kinds, len(self.journal.begins) - begun)

    def _compare_readers(self) -> None:
        """Compare the reader that went along, and one that begins anew, with the owner."""
        self._read_on()
        fresh = PartitionState()
        for record in self.store.read(Channel.EVENTS, PARTITION, 0):
            fresh = evolve(fresh, decode_event(record), record.offset)
        self.journal.digests.append(
            Digests(self._read, "a fresh reader", digest(fresh), digest(self._reader))
        )
