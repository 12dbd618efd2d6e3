"""Metrics from history: a number invented today has values for all that was before it.

python examples/metrics.py
refold metrics metrics.py --url sqlite:///bakery.db      the same as a table, for any log and any time
"""

import asyncio
import random

from refold import Engine, MetricContext, metric, read_metrics, set_attributes, step, workflow
from refold.log.events import StepCompleted
from refold.projections.metrics_ready import step_failures

LOG = "sqlite:///bakery.db"


@step
async def bake(grams: int) -> dict[str, float]:
    """Says what it took, as a step that calls a model would say its tokens."""
    if grams > 900:
        raise ValueError("the tin is too small")
    return {"flour_g": grams * 0.6, "cents": grams * 0.2}


@workflow
async def loaf(grams: int, shop: str) -> float:
    """A loaf for a shop."""
    set_attributes({"shop": shop})
    return (await bake(grams))["cents"]


@metric(unit="g", by=("attribute:shop",), kinds="step.completed", aggregate="sum")
def flour(event: StepCompleted, context: MetricContext) -> float | None:
    """Flour that went into loaves, by shop."""
    taken: float = context.value["flour_g"]
    return taken if event.name == "bake" else None


@metric(unit="cents", by=("workflow", "version"), kinds="step.completed")
def cost(event: StepCompleted, context: MetricContext) -> float:
    """What a loaf cost."""
    paid: float = context.value["cents"]
    return paid


if __name__ == "__main__":
    chance = random.Random(1)
    with Engine(LOG, workflows=[loaf]) as engine:
        loaves = [
            engine.start(
                loaf, 1000 if number == 7 else chance.randrange(400, 900), shop, id=f"loaf-{number}"
            )
            for number, shop in enumerate(["north", "south"] * 10)
        ]
        for one in loaves:
            try:
                one.result()
            except ValueError as error:
                print(f"{one.id}: {error}")

    # From the log's first event to its last, with one of the metrics that come with refold.
    cells = asyncio.run(read_metrics(LOG, [flour, cost, step_failures]))
    for key, cell in sorted(cells.items()):
        match key.metric:
            case "flour":
                print(f"flour for {key.labels[0]}: {cell.sum:.0f} g")
            case "cost":
                print(f"cost: {cell.count} loaves, {cell.percentile(0.5):.0f} cents in the middle")
            case _:
                print(f"of the loaves failed: {cell.mean:.0%}")
