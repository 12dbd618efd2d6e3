"""A simulated world: a log of some partitions, workers that come and go, clients, and one scheduler that has them act.

All chance comes from one seed and all time is virtual, so a world can be lived through again, act by act. The group
that shares out the partitions is modelled after Kafka's: a member that is silent for a session's time loses what it
has, and finds that out some time after it has come back.
"""

from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import replace
from functools import partial
from random import Random

from tests.simulation.attempts import SECOND_US, Attempt, carry_out
from tests.simulation.clients import Clients
from tests.simulation.corpus import catalogue
from tests.simulation.faults import Fault, Faults, NoFaults
from tests.simulation.journal import Audit, Begin, Given, Journal, Silence, read
from tests.simulation.operators import forking, reopening
from tests.simulation.readers import Readers
from tests.simulation.scene import START_US
from tests.simulation.shapes import Outside, outside
from tests.simulation.shell import DRAIN_US, NEVER_US, SimWorker

from refold.engine.active import Items
from refold.engine.checkpoints import CheckpointSettings
from refold.engine.definitions import Catalogue
from refold.engine.effects import Answer, Launch
from refold.engine.handover import report
from refold.engine.operations import Outcome
from refold.engine.owner import Owner, OwnerSettings
from refold.engine.recovery import Folded
from refold.engine.thread_slots import ThreadSlots
from refold.log.codec import encode_command
from refold.log.commands import Command
from refold.log.events import CheckpointBegun, CheckpointCompleted, CheckpointPart
from refold.log.keys import PayloadKeys
from refold.log.layout import Layout
from refold.log.memory import MemoryStore
from refold.log.protocol import Channel, Entry

SESSION_US = 6 * SECOND_US
"""Silence after which the group gives a member's partitions to others: design section 4."""
MAX_ACTS = 100_000
"""More than any world needs that comes to rest: one that does not, is a finding."""
MAX_WORKFLOW_THREADS = 2
"""So few that `def` workflows are suspended and brought back all the time."""

CHECKPOINT = (CheckpointBegun, CheckpointPart, CheckpointCompleted)

Act = Callable[[], None]


class World:
    """Everything there is.

    Args:
        seed: Where all chance comes from.
        faults: What becomes of appends.
        partitions: How many the log has.
        disturb: Share of acts before which something happens to a worker: it is killed, stopped or told to drain.
        disturbances: How many of these there may be.
        skew_us: How far workers' clocks may be off.
        code: What workers have; the whole corpus where it is not given.
        max_kept_result_bytes, max_idle_runs, warn_at_history: As in `OwnerSettings`.
        checkpoint_bytes: Events between two checkpoints, in bytes, at least.
        keys: With what workers encrypt payloads; None for none.
        pools: Each pool with the number of its own partitions, beside those: their workers have the pool's code alone.
    """

    def __init__(
        self,
        seed: int,
        faults: Faults | None = None,
        *,
        partitions: int = 1,
        disturb: float = 0.0,
        disturbances: int = 0,
        skew_us: int = 0,
        code: Catalogue | None = None,
        max_kept_result_bytes: int = 32_000_000,
        max_idle_runs: int = 1_000,
        warn_at_history: int = 50_000,
        checkpoint_bytes: int = 3_000,
        keys: PayloadKeys | None = None,
        pools: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.now_us = START_US
        self.random = Random(seed)
        self.layout = Layout(partitions, pools)
        self.store = MemoryStore(self.layout.partitions, lambda: self.now_us)
        self.journal = Journal()
        self.audit = Audit(self.store)
        self.outside = Outside()
        self.clients = Clients(lambda: self.now_us)
        self.version = 1
        self.workers: list[SimWorker] = []
        self.set_clocks = False  # whether a clock was ever off
        self._faults: Faults = faults or NoFaults()
        self._disturb = disturb
        self._disturbances = disturbances
        self._skew_us = skew_us
        self._code = code
        self._keys = keys
        self._settings = OwnerSettings(
            worker="",
            max_kept_result_bytes=max_kept_result_bytes,
            suspend_after_s=30.0,
            max_idle_runs=max_idle_runs,
            warn_at_history=warn_at_history,
            checkpoints=CheckpointSettings(min_bytes=checkpoint_bytes),
        )
        self._assigned: list[SimWorker | None] = [None] * self.layout.partitions
        self._resume_us: dict[SimWorker, int] = {}
        self._plans: list[tuple[int, Act]] = []
        self._late: list[tuple[Channel, int, list[Entry]]] = []
        self._going_on: list[Attempt] = []
        self._slots = ThreadSlots(MAX_WORKFLOW_THREADS)
        self._readers = Readers(self.store, self.journal)

    # Living -----------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Act until nothing is left to do, not even by those that were stopped."""
        context = Context()
        context.run(outside.set, self.outside)
        context.run(self._live)

    def settle(self, workflow_ids: Iterable[str]) -> None:
        """All trouble ends; a fresh worker finishes what is open; clients ask how it went; then look for silence.

        Args:
            workflow_ids: The runs that are to come to their end.
        """
        self._faults, self._disturbances = NoFaults(), 0
        self.live()
        self.look_for_silence()
        self.outside.mended = True
        for version in (1, 2):  # what diverged goes on under the code that it began with
            self.version = version
            self._replace()
            self.live()
            self.audit.advance()
            for workflow_id in workflow_ids:
                if self.audit.ended(workflow_id) is None:
                    self.submit(self.clients.resume(workflow_id))
                self.submit(self.clients.watch(workflow_id))
            self.live()
        self.look_for_silence()
        self._readers.compare_fresh()

    def look_for_silence(self) -> None:
        """Fresh workers recover a log on which all rests: note what they do."""
        begun = len(self.journal.begins)
        partitions = range(self.store.partitions)
        ends = [self.store.end(Channel.EVENTS, partition) for partition in partitions]
        self._replace()
        self.live()
        for partition, end in enumerate(ends):
            found = map(read, self.store.read(Channel.EVENTS, partition, end))
            events = tuple(event for event in found if not isinstance(event, CHECKPOINT))
            self.journal.silences.append(
                Silence(partition, events, len(self.journal.begins) - begun)
            )

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
        partition = self.layout.place(command.workflow_id)
        self.store.append(Channel.COMMANDS, partition, [encode_command(command)])

    def kill(self, partition: int) -> None:
        """The owner of a partition dies."""
        worker = self._assigned[partition]
        if worker is not None and worker.alive:
            worker.die()

    def give_up(self) -> None:
        """The owner of the first partition is told to stop, and hands it over with the steps that are under way."""
        worker = self._assigned[0]
        if worker is not None and worker.alive:
            self._note(f"{worker.name} drains")
            worker.drain(hands_over=True)

    def offer(self, stops_for_us: int | None = None) -> None:
        """The group moves the first partition to another worker; its owner goes on until it is asked.

        Args:
            stops_for_us: It is stopped (SIGSTOP) when it is about to begin a step, and goes on so long after; None for
                not at all.
        """
        worker = self._assigned[0]
        if worker is not None and worker.alive:
            self._move(worker)
            if stops_for_us is not None:
                self._stop_beginning(worker, stops_for_us)

    def hand_over(self, partition: int) -> None:
        """The group gives a partition to another worker, while its owner lives."""
        self.now_us += SESSION_US
        self._assign(partition)

    def reopen(self, workflow_id: str, step: int | None) -> None:
        """An operator reopens a run, if it has ended by now."""
        for command in reopening(self.clients, self.store, workflow_id, step):
            self.submit(command)

    def fork(self, workflow_id: str, fork_id: str, step: int | None) -> None:
        """An operator forks a run, if it is there by now."""
        for command in forking(self.clients, self.store, workflow_id, fork_id, step):
            self.submit(command)

    def mend(self, workflow_id: str) -> None:
        """Somebody mends what was out of order, and resumes the run."""
        self.outside.mended = True
        self.submit(self.clients.resume(workflow_id))

    def poison_command(self, key: str | None) -> None:
        """Something that is no command comes into the commands."""
        garbage = self.random.randbytes(self.random.randrange(20))
        partition = self.layout.place(key or "")
        self.store.append(Channel.COMMANDS, partition, [Entry(key, garbage)])

    def poison_stream(self, workflow_id: str) -> None:
        """The owner was of a newer release: it recorded what nobody here can read, and died."""
        self._note(f"an owner poisons {workflow_id} and dies")
        self._replace()
        self.audit.advance()
        partition = self.layout.place(workflow_id)
        claim = self.audit.claims[partition]
        headers = (("kind", b"workflow.improved"), ("claim", b"%d" % claim))
        entry = Entry(workflow_id, b"\0\0\0\0\7 newer", headers)
        self.store.append(Channel.EVENTS, partition, [entry])

    def intrude(self, workflow_id: str) -> None:
        """Somebody who is no worker writes garbage into a run's stream, while its owner is at work."""
        self._note(f"somebody writes garbage into {workflow_id}")
        entry = Entry(workflow_id, self.random.randbytes(self.random.randrange(20)))
        partition = self.layout.place(workflow_id)
        self.store.append(Channel.EVENTS, partition, [entry])

    # Surroundings of workers ------------------------------------------------------------------------------

    def fate(self, worker: SimWorker, channel: Channel, partition: int, entries: int) -> Fault:
        """What becomes of the worker's next append."""
        fault = self._faults.at_append(entries)
        where = f"{entries} {channel} to {partition}"
        self._note(f"{worker.name} appends {where}: {fault.kind} {fault.written}")
        return fault

    def stall(self, worker: SimWorker) -> None:
        """The worker stops; its session ends, and somebody else is to take over."""
        self._note(f"{worker.name} stops")
        worker.stopped = True
        if self._disturb and self.random.random() < 0.5:  # else it stops until all is done
            self._resume_us[worker] = self.now_us + self.random.randrange(10 * SESSION_US)
        if worker is self._assigned[worker.partition]:
            self.now_us += SESSION_US
            self._assign(worker.partition)

    def land_later(self, channel: Channel, partition: int, entries: Sequence[Entry]) -> None:
        """Records are on their way."""
        if entries:
            self._late.append((channel, partition, list(entries)))

    def owns(self, worker: SimWorker, folded: Folded) -> None:
        """The worker takes itself for the owner: by the same fold as without any checkpoint."""
        claim = folded.state.claim
        self._note(
            f"{worker.name} owns {worker.partition} by {claim}, from checkpoint {folded.checkpoint}"
        )
        self._readers.compare_recovery(worker.name, worker.partition, folded)
        self.journal.owners.append((worker.name, worker.partition, claim))

    def began(self, worker: SimWorker, launch: Launch, knew: Sequence[Outcome]) -> None:
        """A step's attempt begins now."""
        audit = self.audit
        audit.advance()
        owner = worker.owner
        due_us = 0 if self.set_clocks else audit.due_us(launch.workflow_id, launch.step)
        begin = Begin(
            worker=worker.name,
            workflow_id=launch.workflow_id,
            step=launch.step,
            attempt=launch.attempt,
            at_us=self.now_us,
            owned=owner is not None and owner.state.claim == audit.claims[worker.partition],
            failed=audit.failed(launch.workflow_id, launch.step),
            recorded_at_us=audit.recorded_at_us(launch.workflow_id, launch.step),
            overlaps=worker.under_way(launch),
            early_us=due_us - self.now_us,
            missing=tuple(o for o in knew if not audit.holds(launch.workflow_id, o)),
        )
        self._note(f"{worker.name} begins {launch.workflow_id}/{launch.step} #{launch.attempt}")
        self.journal.begins.append(begin)

    def goes_on(self, worker: SimWorker, attempts: Sequence[Attempt]) -> None:
        """These go on after their worker has handed the partition over; some die with its process, or are cut off."""
        self._note(f"{worker.name} hands {worker.partition} over, {len(attempts)} steps go on")
        cut_off_us = self.now_us + 2 * DRAIN_US  # clocks differ: some are reported late
        self._going_on.extend(
            a for a in attempts if self.random.random() < 0.8 and a.done_at_us < cut_off_us
        )

    def answered(self, answer: Answer) -> None:
        """A client hears a reply."""
        self.audit.advance()
        workflow_id = answer.reply.workflow_id
        stream = len(self.audit.stream(workflow_id))
        given = Given(answer.client_id, answer.reply, stream)
        self._note(f"{answer.client_id} hears {workflow_id} {answer.reply.status}")
        self.journal.answers.append(given)

    def quiet(self, worker: SimWorker, owner: Owner) -> None:
        """All that the owner has made is confirmed: its state is what any reader has."""
        self._readers.compare_owner(worker.name, worker.partition, owner)

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
        acts: list[Act] = [partial(self._land, late) for late in self._late]
        due = [attempt for attempt in self._going_on if attempt.done_at_us <= self.now_us]
        acts.extend(partial(self._report, attempt) for attempt in due)
        self.workers = [worker for worker in self.workers if worker.alive]
        for worker in self.workers:
            acts.extend(worker.acts())
            if worker.stopped and self._resume_us.get(worker, NEVER_US) <= self.now_us:
                acts.append(partial(self._let_go_on, worker))
            gone_on = worker.stopped or worker.offers  # by itself it hears nothing, or it knows
            if worker is not self._assigned[worker.partition] and not gone_on:
                acts.append(partial(self._revoke, worker))
        for partition, assigned in enumerate(self._assigned):
            if assigned is None or not assigned.alive:
                acts.append(partial(self._assign, partition))
        return acts

    def _pass_time(self) -> bool:
        """Go on to when the next thing happens; False where nothing ever will."""
        times = [at_us for at_us, _ in self._plans]
        times.extend(self._resume_us.values())
        times.extend(attempt.done_at_us for attempt in self._going_on)
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
        if self._disturbances == 0 or self.random.random() >= self._disturb:
            return
        worker = self.random.choice(self._assigned)
        if worker is None or not worker.alive or worker.stopped:
            return
        self._disturbances -= 1
        match self.random.randrange(7):
            case 0:
                self._note(f"{worker.name} is killed")
                worker.die()
            case 1:
                self.stall(worker)
            case 2:
                self._move(worker)
            case 3 | 4:  # mostly there is no step under way, or it is recorded before
                self._note(f"{worker.name} drains")
                worker.drain()
            case 5:
                self._note(f"{worker.name} has its clock set")
                worker.set_clock(self._skew())
            case _:
                self.hand_over(worker.partition)

    def _move(self, worker: SimWorker) -> None:
        """Mostly the group waits until the partition has been offered before it gives it to another."""
        self._note(f"{worker.name} is to give {worker.partition} up")
        if not worker.offer():
            worker.drain()
        else:
            self._plan_move(worker.partition, self.random.choice((0, 0.001, 0.01, 0.1, 1)))

    def _stop_beginning(self, worker: SimWorker, for_us: int) -> None:
        if worker.is_about_to_begin:
            self._note(f"{worker.name} stops")
            worker.stopped = True
            self._resume_us[worker] = self.now_us + for_us
        elif worker.alive:
            again_us = self.now_us - START_US + 100
            self.plan(again_us, partial(self._stop_beginning, worker, for_us))

    def _plan_move(self, partition: int, after_s: float) -> None:
        self.plan(
            self.now_us - START_US + round(after_s * SECOND_US),
            partial(self._assign, partition),
        )

    def _land(self, late: tuple[Channel, int, list[Entry]]) -> None:
        channel, partition, entries = late
        self._note(f"{len(entries)} late {channel} land in {partition}")
        self._late.remove(late)
        self.store.append(channel, partition, entries)

    def _report(self, attempt: Attempt) -> None:
        """A step that went on in a former owner has ended; some reports come twice."""
        self._going_on.remove(attempt)
        items: list[Items] = []
        result = carry_out(
            attempt, lambda stream, item: items.append(Items(stream, f"[{item}]", 1))
        )
        launch = attempt.launch
        self._note(f"the end of {launch.workflow_id}/{launch.step} #{launch.attempt} is reported")
        for _ in range(self.random.choice((1, 1, 1, 2))):
            self.submit(report(launch, result, items, self.now_us))

    def _let_go_on(self, worker: SimWorker) -> None:
        self._note(f"{worker.name} goes on")
        worker.stopped = False
        self._resume_us.pop(worker, None)

    def _revoke(self, worker: SimWorker) -> None:
        self._note(f"{worker.name} hears that it has lost the partition")
        worker.revoke()

    def _assign(self, partition: int) -> None:
        """A new member of the group gets the partition."""
        number = self.random.randrange(1_000_000)
        settings = replace(self._settings, worker=f"worker-{number}")
        workflows = self._code if self._code is not None else catalogue(self.version)
        if self.layout.pools:
            here = [w for w in workflows.definitions() if partition in self.layout.of(w.pool)]
            workflows = Catalogue.of(here)
        worker = SimWorker(
            self, partition, settings, workflows, self._slots, self._skew(), self._keys
        )
        self._note(f"{worker.name} is assigned {partition}")
        self._assigned[partition] = worker
        self.workers.append(worker)

    def _skew(self) -> int:
        skew_us = self.random.randrange(-self._skew_us, self._skew_us + 1)
        self.set_clocks = self.set_clocks or skew_us != 0
        return skew_us

    def _replace(self) -> None:
        """Every worker dies, and fresh ones begin."""
        for worker in self.workers:
            if worker.alive:
                worker.die()
        self.workers.clear()
        self._resume_us.clear()
        self._assigned = [None] * self.store.partitions

    def _note(self, act: str) -> None:
        self.journal.acts.append(f"{(self.now_us - START_US) / SECOND_US:12.6f} {act}")
