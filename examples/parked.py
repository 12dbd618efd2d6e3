"""Parked runs: code that no longer fits what was recorded stops its runs, and a fix lets them go on.

    python examples/parked.py

A parked run waits for a person. Nothing of it is lost, nothing is guessed, and no other run is held up. The three
engines here stand for three deploys of one worker. `@step(on_exhausted="park")` parks a run as well, where its
attempts are used up.
"""

from refold import Engine, Runs, Status, WorkflowParked, publish, receive, step, workflow

LOG = "sqlite:///parked.db"
TEAS = ("assam", "sencha")


@step
def brew(tea: str) -> str:
    """Takes its time."""
    print("brewing", tea)
    return f"pot of {tea}"


@step
def warm(pot: str) -> str:
    """What the later deploys want besides."""
    return f"warm {pot}"


@workflow(name="teatime")
async def teatime(tea: str) -> str:
    """As it was deployed first."""
    pot = await brew.aio(tea)
    publish("pot", pot)
    return f"{pot} for {await receive('guest', str)}"


@workflow(name="teatime")
async def careless(tea: str) -> str:
    """The next deploy: a new step in front of one that open runs have behind them."""
    pot = await warm.aio("pot")
    pot += await brew.aio(tea)
    publish("pot", pot)
    return f"{pot} for {await receive('guest', str)}"


@workflow(name="teatime")
async def mended(tea: str) -> str:
    """The fix: what is recorded stays where it was, and what is new comes after it."""
    pot = await brew.aio(tea)
    publish("pot", pot)
    pot = await warm.aio(pot)
    return f"{pot} for {await receive('guest', str)}"


if __name__ == "__main__":
    with Engine(LOG, workflows=[teatime]) as engine:
        for tea in TEAS:
            print("ready:", engine.start(teatime, tea, id=tea).value("pot", str))

    with Engine(LOG, workflows=[careless]) as engine:
        for tea in TEAS:
            try:
                engine.handle(tea).result()
            except WorkflowParked as error:
                print("parked:", error)

    with Engine(LOG, workflows=[mended]) as engine:
        parked = Runs(status=Status.PARKED, reason="no longer matches")
        print("to go on:", sorted(run.id for run in engine.resume_all(parked)))
        for tea in TEAS:
            handle = engine.handle(tea, mended)
            handle.send("guest", "Ada")
            print("served:", handle.result())
