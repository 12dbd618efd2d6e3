"""What an owner keeps for clients that ask late."""

from refold.engine.effects import Answer, Lookup
from refold.engine.state import Closed, Status
from refold.engine.watchers import Watchers
from refold.log.commands import Reply

CLOSED = Closed(
    workflow="w",
    version=1,
    input_digest=b"",
    status=Status.COMPLETED,
    position=3,
    started_at=0,
    ended_at=1,
    parent_id=None,
    parent_step=None,
    attributes=None,
)


def test_results_go_with_the_ids_of_their_runs() -> None:
    """Given results of runs of which one was forgotten, its result takes no memory any more, the other is told."""
    watchers = Watchers(max_result_bytes=1_000_000)
    for workflow_id in ("old", "new"):
        watchers.keep(
            workflow_id, Reply(command_id="", workflow_id=workflow_id, status="completed")
        )
    watchers.forget_all_but({"new"})
    assert isinstance(watchers.result("new", CLOSED, "client", "c"), Answer)
    assert isinstance(watchers.result("old", CLOSED, "client", "c"), Lookup)
