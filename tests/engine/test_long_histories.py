"""A history that grows: warned of in time, parked at the limit, never cut and never killed."""

from claimed import NOW, claimed
from refold import receive, workflow
from refold.engine.active import OwnerSettings
from refold.engine.definitions import Catalogue
from refold.engine.owner import Owner
from refold.engine.runs import CodeRuns
from refold.engine.state import Status
from refold.engine.thread_slots import ThreadSlots
from refold.log.codec import decode_event
from refold.log.commands import Command, ResumeWorkflow, SendMessage, StartWorkflow
from refold.log.protocol import Record


@workflow
async def count(until: int) -> int:
    """Receives so many messages, each of which is an entry in its history."""
    for _ in range(until):
        await receive("letters", int)
    return until


class Trial:
    """An owner with low limits, and what it has written."""

    def __init__(self) -> None:
        self.state, _ = claimed()
        runs = CodeRuns(Catalogue.of([count]), "raise", ThreadSlots(1))
        settings = OwnerSettings(worker="w", warn_at_history=3, park_at_history=5)
        self.owner = Owner(0, self.state, settings, runs, lambda: 0.5, lambda: 0)
        self.kinds: list[str] = []
        self._commands = 0
        self.tell(
            StartWorkflow(
                command_id="start",
                workflow_id="long",
                reply_to=None,
                requested_at=NOW,
                workflow="count",
                payload='{"until":12}',
            )
        )

    def tell(self, command: Command) -> None:
        """Have the owner handle a command, and note what it writes."""
        self.owner.handle(self._commands, command, NOW)
        self._commands += 1
        for offset, entry in enumerate(self.owner.take_entries()):
            event = decode_event(Record(offset, NOW, *entry))
            self.kinds.append(getattr(event, "kind", "unreadable"))

    def send(self, count: int) -> None:
        """Send so many messages."""
        for _ in range(count):
            number = self._commands
            self.tell(
                SendMessage(
                    command_id=f"send-{number}",
                    workflow_id="long",
                    reply_to=None,
                    requested_at=NOW,
                    name="letters",
                    payload=str(number),
                    message_id=f"m-{number}",
                )
            )

    def resume(self) -> None:
        """Let it go on."""
        self.tell(
            ResumeWorkflow(
                command_id=f"resume-{self._commands}",
                workflow_id="long",
                reply_to=None,
                requested_at=NOW,
            )
        )


def test_a_growing_history_is_warned_of() -> None:
    """Given a limit of 3 for the warning, the third entry brings it, once, and the run goes on."""
    trial = Trial()
    trial.send(4)
    assert trial.kinds.count("workflow.warned") == 1
    assert trial.kinds[4] == "workflow.warned"
    assert trial.state.open["long"].status is Status.RUNNING


def test_a_long_history_is_parked_and_loses_nothing() -> None:
    """Given a limit of 5, the fifth entry parks the run; what comes meanwhile is kept, and it goes on when resumed."""
    trial = Trial()
    trial.send(5)
    run = trial.state.open["long"]
    assert run.status is Status.PARKED
    assert run.parked is not None
    assert run.parked.name == "history_full"
    assert "continue_as_new" in run.parked.error_message

    trial.send(2)
    assert trial.kinds[-2:] == ["message.received", "message.received"]
    trial.resume()
    assert trial.state.open["long"].parked is None


def test_a_resumed_history_may_grow_as_much_again() -> None:
    """Given a run that was resumed at the limit, it is parked at twice the limit, resumed again, and ends."""
    trial = Trial()
    trial.send(5)
    trial.resume()
    trial.send(5)
    assert trial.state.open["long"].status is Status.PARKED
    trial.resume()
    trial.send(2)
    assert trial.kinds[-1] == "workflow.completed"
    assert trial.kinds.count("workflow.parked") == 2
