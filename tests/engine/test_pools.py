"""Who gets which attempt of a pool's steps: the owner's side, with a clock that the tests set."""

from dataclasses import dataclass, field

import pytest

from refold.engine.effects import Answer, Effect, Grant, Launch
from refold.engine.operations import StepCall, StepOptions
from refold.engine.payload import PayloadType
from refold.engine.pool_messages import (
    Attempted,
    Offer,
    PoolStep,
    offer_text,
    read_cancelled,
    read_lease_s,
    read_task,
)
from refold.engine.pools import MIN_LEASE_S, Pools
from refold.engine.proof import FRESH_S
from refold.log.commands import BeginStep, KeepStep, OfferWork, ReportStep
from refold.log.errors import UsageError

LEASE_S = 20.0
SECOND = 1_000_000
RENDER = PoolStep("gpu", "render")
ANY = PayloadType.of(object, "result")


def launch(
    workflow_id: str = "film", step: int = 0, attempt: int = 1, name: str = "render"
) -> Launch:
    call = StepCall(name, lambda: None, False, StepOptions(pool="gpu"), ANY, '{"frame":1}')
    return Launch(workflow_id, "film", step, attempt, call, None)


@dataclass
class Scene:
    """A partition's pools, with all attempts wanted but those in `unwanted`."""

    now_us: int = 1000 * SECOND
    unwanted: list[Launch] = field(default_factory=list[Launch])
    commands: int = 0

    def __post_init__(self) -> None:
        self.pools = Pools(lambda it: it not in self.unwanted, lambda: self.now_us, LEASE_S)

    def passes(self, seconds: float) -> list[Effect]:
        self.now_us += round(seconds * SECOND)
        self.pools.tick()
        return self.pools.divert([])

    def ready(self, *launches: Launch, is_inherited: bool = False) -> list[Effect]:
        for each in launches:
            self.pools.expect(each, is_inherited=is_inherited)
        return self.pools.divert(list(launches))

    def offer(
        self,
        client: str,
        slots: int = 1,
        steps: tuple[PoolStep, ...] = (RENDER,),
        declined: tuple[Attempted, ...] = (),
        lasts_s: float = 90.0,
    ) -> list[Effect]:
        offer = Offer(slots=slots, steps=steps, lasts_s=lasts_s, declined=declined)
        self.pools.offered(
            OfferWork(
                command_id=self.next_id(client),
                workflow_id="gpu",
                reply_to=client,
                requested_at=0,
                payload=offer_text(offer),
            )
        )
        return self.pools.divert([])

    def begin(self, client: str, what: Launch) -> list[Effect]:
        self.pools.begin(
            BeginStep(
                command_id=self.next_id(client),
                workflow_id=what.workflow_id,
                reply_to=client,
                requested_at=0,
                step=what.step,
                attempt=what.attempt,
            )
        )
        return self.pools.divert([])

    def keep(self, client: str, what: Launch) -> list[Effect]:
        self.pools.keep(
            KeepStep(
                command_id=self.next_id(client),
                workflow_id=what.workflow_id,
                reply_to=client,
                requested_at=0,
                step=what.step,
                attempt=what.attempt,
            )
        )
        return self.pools.divert([])

    def report(self, client: str, what: Launch) -> ReportStep:
        return ReportStep(
            command_id=self.next_id(client),
            workflow_id=what.workflow_id,
            reply_to=client,
            requested_at=0,
            step=what.step,
            attempt=what.attempt,
            payload="{}",
        )

    def next_id(self, client: str) -> str:
        self.commands += 1
        return f"{client}/{self.commands}"


def said(effects: list[Effect]) -> list[tuple[str, str, str]]:
    """To whom what is said, and about which workflow."""
    assert all(isinstance(effect, Answer | Grant) for effect in effects)
    told = [effect for effect in effects if isinstance(effect, Answer | Grant)]
    return [(each.client_id, each.reply.status, each.reply.workflow_id) for each in told]


def given(client: str, workflow_id: str = "film") -> tuple[str, str, str]:
    return client, "step", workflow_id


class TestGiving:
    """What waits is given to those who offer."""

    def test_a_step_waits_for_an_offer(self) -> None:
        """Given a step and nobody who has it, it is given to the first who offers, with all that is needed."""
        scene = Scene()
        assert scene.ready(launch(attempt=3)) == []
        assert scene.pools.waiting() == {"gpu": 1}
        effects = scene.offer("a")
        assert said(effects) == [given("a")]
        answer = effects[0]
        assert isinstance(answer, Answer)
        task = read_task(answer.reply)
        assert (task.attempted, task.pool, task.name) == (Attempted("film", 0, 3), *RENDER)
        assert task.input == '{"frame": 1}'
        assert scene.pools.waiting() == {}

    def test_only_those_get_a_step_who_have_it(self) -> None:
        """Given offers of another step and of another pool, a step waits."""
        scene = Scene()
        scene.offer("a", steps=(PoolStep("gpu", "train"), PoolStep("cpu", "render")))
        assert scene.ready(launch()) == []

    def test_other_launches_pass(self) -> None:
        """Given a step without a pool, it is left to the owner's own worker."""
        call = launch().call._replace(options=StepOptions())
        own = launch()._replace(call=call)
        assert Scene().pools.divert([own]) == [own]

    def test_steps_go_round(self) -> None:
        """Given two workers with room, each gets its turn; without room, the rest waits for a slot in order."""
        scene = Scene()
        scene.offer("a", slots=2)
        scene.offer("b", slots=1)
        names = [f"film-{n}" for n in range(5)]
        effects = [e for name in names for e in scene.ready(launch(name))]
        assert said(effects) == [given("a", names[0]), given("b", names[1]), given("a", names[2])]
        assert scene.pools.reported(scene.report("b", launch(names[1]))) is not None
        assert said(scene.pools.divert([])) == [given("b", names[3])]
        assert scene.pools.waiting() == {"gpu": 1}

    def test_a_declined_step_goes_to_another(self) -> None:
        """Given a worker that is full with other partitions' steps, what it declines is given to another."""
        scene = Scene()
        scene.offer("a")
        assert said(scene.ready(launch())) == [given("a")]
        declined = (Attempted("film", 0, 1),)
        assert scene.offer("a", slots=0, declined=declined) == []
        assert said(scene.offer("b")) == [given("b")]

    def test_who_goes_away_gets_nothing(self) -> None:
        """Given a worker that says good-bye, or is not heard of for the time that it named, it is given nothing."""
        scene = Scene()
        scene.offer("a")
        scene.offer("a", steps=())
        scene.offer("b", lasts_s=90)
        scene.passes(91)
        assert scene.ready(launch()) == []

    def test_an_offer_that_is_renewed_lasts(self) -> None:
        """Given a worker that offers again in time, it is given steps."""
        scene = Scene()
        scene.offer("a", lasts_s=90)
        scene.passes(60)
        scene.offer("a", lasts_s=90)
        scene.passes(60)
        assert said(scene.ready(launch())) == [given("a")]


class TestLeases:
    """Who may begin, and for how long."""

    def test_only_who_was_given_a_step_may_begin(self) -> None:
        """Given a step that one worker was given, it is granted; another is told that nobody waits for it."""
        scene = Scene()
        scene.offer("a")
        scene.ready(launch())
        effects = scene.begin("a", launch())
        assert isinstance(effects[0], Grant)
        assert read_lease_s(effects[0].reply) == LEASE_S
        scene.offer("b")
        (refusal,) = scene.begin("b", launch())
        assert isinstance(refusal, Answer)
        assert read_cancelled(refusal.reply) == Attempted("film", 0, 1)

    def test_a_step_that_nobody_wants_may_not_begin(self) -> None:
        """Given a step whose workflow has gone on without it, no grant comes."""
        scene = Scene()
        scene.offer("a")
        it = launch()
        scene.ready(it)
        scene.unwanted.append(it)
        assert said(scene.begin("a", it)) == [("a", "cancel", "film")]

    def test_a_step_that_is_not_begun_is_given_again(self) -> None:
        """Given a worker that does not even ask, the step goes to another, and so does what comes after."""
        scene = Scene()
        scene.offer("a")
        scene.ready(launch())
        scene.offer("b")
        assert said(scene.passes(LEASE_S / 4)) == [("a", "unknown", ""), given("b")]
        assert scene.ready(launch("film-2")) == []

    def test_a_lease_runs_out(self) -> None:
        """Given a worker that fell silent, the step goes to another after the lease, and the first may not begin."""
        scene = Scene()
        scene.offer("a")
        scene.ready(launch())
        scene.begin("a", launch())
        scene.offer("b")
        assert scene.passes(LEASE_S * 0.9) == []
        assert said(scene.passes(LEASE_S * 0.1)) == [("a", "unknown", ""), given("b")]
        scene.offer("a")
        assert said(scene.begin("a", launch())) == [("a", "cancel", "film")]
        assert said(scene.keep("a", launch())) == [("a", "cancel", "film")]

    def test_a_word_in_time_keeps_the_lease(self) -> None:
        """Given a worker that says that it goes on, the step is its own for as long as it does."""
        scene = Scene()
        scene.offer("a", lasts_s=1000)
        scene.offer("b", lasts_s=1000)
        scene.ready(launch())
        scene.begin("a", launch())
        for _ in range(5):
            assert scene.passes(LEASE_S * 0.9) == []
            assert scene.keep("a", launch()) == []
        assert said(scene.passes(LEASE_S)) == [("a", "unknown", ""), given("b")]

    def test_who_has_a_cancelled_step_is_told(self) -> None:
        """Given a step whose workflow ended, its worker hears of it, and has room for the next."""
        scene = Scene()
        scene.offer("a")
        scene.ready(launch())
        scene.ready(launch("film-2"))
        scene.pools.cancel("film", 0)
        assert said(scene.pools.divert([])) == [given("a", "film-2"), ("a", "cancel", "film")]

    def test_a_lease_is_longer_than_a_begin_takes(self) -> None:
        """Given a lease within which a worker could still begin, it is refused."""
        with pytest.raises(UsageError, match="lease"):
            Pools(lambda _: True, lambda: 0, MIN_LEASE_S - 0.1)


class TestReports:
    """Which reports count."""

    def test_a_report_counts_once(self) -> None:
        """Given the report of who has the step, it counts; the same again, or of another attempt, does not."""
        scene = Scene()
        scene.offer("a")
        it = launch(attempt=2)
        scene.ready(it)
        assert scene.pools.reported(scene.report("a", launch(attempt=1))) is None
        assert scene.pools.reported(scene.report("a", it)) is it
        assert scene.pools.reported(scene.report("a", it)) is None

    def test_a_late_report_counts_where_nobody_is_about_to_begin(self) -> None:
        """Given a worker that lost its lease, its report counts unless the next one has just been let begin."""
        scene = Scene()
        scene.offer("a")
        it = launch()
        scene.ready(it)
        scene.begin("a", it)
        scene.passes(LEASE_S)
        scene.offer("b")
        scene.begin("b", it)
        assert scene.pools.reported(scene.report("a", it)) is None
        scene.passes(FRESH_S + 0.1)
        assert scene.pools.reported(scene.report("a", it)) is it
        assert ("b", "cancel", "film") in said(scene.pools.divert([]))


class TestTakeover:
    """A new owner, which knows nothing of what the former one gave to whom."""

    def test_inherited_steps_are_held(self) -> None:
        """Given a step from before the takeover, it is given to nobody until whoever is at it could say so."""
        scene = Scene()
        scene.offer("b")
        assert scene.ready(launch(), is_inherited=True) == []
        assert scene.pools.wake_at() is not None
        assert scene.passes(LEASE_S / 2 - 0.1) == []
        assert said(scene.passes(0.1)) == [given("b")]

    def test_who_is_at_it_goes_on(self) -> None:
        """Given a worker at a step that the former owner gave it, the new one lets it go on, and asks for its offer."""
        scene = Scene()
        scene.offer("b")
        it = launch()
        scene.ready(it, is_inherited=True)
        assert said(scene.keep("a", it)) == [("a", "unknown", "film")]
        assert scene.passes(LEASE_S * 0.9) == []
        scene.passes(LEASE_S)
        assert scene.pools.reported(scene.report("b", it)) is it

    def test_a_grant_of_the_former_owner_is_waited_out(self) -> None:
        """Given a report just after a takeover, it counts only when nobody can begin on the former owner's word."""
        scene = Scene()
        it = launch()
        scene.ready(it, is_inherited=True)
        report = scene.report("a", it)
        assert scene.pools.puts_off(report)
        assert scene.pools.take_put_off() == []
        scene.passes(FRESH_S + 0.1)
        assert scene.pools.take_put_off() == [report]
        assert not scene.pools.puts_off(report)
        assert scene.pools.reported(report) is it

    def test_a_question_about_a_former_owners_gift_is_refused(self) -> None:
        """Given a worker that was given a step by the former owner and has not begun, it is not let begin."""
        scene = Scene()
        scene.ready(launch(), is_inherited=True)
        told = said(scene.begin("a", launch()))
        assert told == [("a", "unknown", "film"), ("a", "cancel", "film")]

    def test_a_lost_partition_lets_all_workers_know(self) -> None:
        """Given a partition that is given up, its workers are told to offer again."""
        scene = Scene()
        scene.offer("a")
        (answer,) = scene.pools.abandoned()
        assert (answer.client_id, answer.reply.status, answer.reply.command_id) == (
            "a",
            "unknown",
            "a/1",
        )
