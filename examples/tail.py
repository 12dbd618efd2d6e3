"""Tail: the history itself, as it happens and as it was. Filters, a cursor to go on from, and the past.

python examples/tail.py
"""

from refold import Cursor, Engine, set_attributes, step, tail_sync, workflow
from refold.log.events import StepCompleted, StepFailed

LOG = "sqlite:///lamps.db"


@step
async def light(lamp: int) -> str:
    """Lamp 3 is broken."""
    if lamp == 3:
        raise RuntimeError("no bulb")
    return f"lamp {lamp} is on"


@workflow
async def evening(street: str, lamps: int) -> int:
    """Lights the lamps of a street, as far as they go on."""
    set_attributes({"street": street})
    lit = 0
    for lamp in range(1, lamps + 1):
        try:
            await light(lamp)
            lit += 1
        except RuntimeError:
            continue
    return lit


if __name__ == "__main__":
    with Engine(LOG, workflows=[evening]) as engine:
        engine.start(evening, "Mill Lane", 2, id="mill-lane").result()
        engine.start(evening, "High Street", 4, id="high-street").result()

        # What there is already, of one street, in the order in which the log took it in.
        with tail_sync(
            LOG, since="start", follow=False, kind="step", attributes={"street": "High Street"}
        ) as events:
            for logged in events:
                match logged.event:
                    case StepCompleted(payload=told):
                        print("done:", told)
                    case StepFailed(error_message=why):
                        print("failed:", why)
                    case _:
                        print("something else")
            kept = str(events.cursor)  # a text for a file, or a row

        # Another day: what has come since, live. Nothing comes twice, nothing is left out.
        engine.start(evening, "Quay", 1, id="quay")
        with tail_sync(LOG, since=Cursor.of(kept), kind="workflow.completed") as events:
            ended = next(events).event
            print(ended.workflow_id, "has ended")
