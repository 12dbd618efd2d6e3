"""Attributes: names and values on a run, to find it by; set at its start, and by its own code.

python examples/attributes.py
"""

from refold import Engine, receive, set_attributes, workflow
from refold import Runs as Where


@workflow
async def parcel(weight_kg: float) -> None:
    """Goes from place to place."""
    set_attributes({"heavy": weight_kg > 20})
    while (place := await receive("arrived", str)) != "home":
        set_attributes({"place": place})


if __name__ == "__main__":
    with Engine("memory://") as engine:
        for number, weight in enumerate([2.5, 31.0, 24.0]):
            engine.start(parcel, weight, id=f"parcel-{number}", attributes={"customer": "Ada"})
        engine.handle("parcel-1").send("arrived", "Oslo")
        for run in sorted(
            engine.list(Where(attributes={"heavy": True})), key=lambda r: r.workflow_id
        ):
            print(run.workflow_id, dict(sorted(run.attributes.items())))
        engine.cancel_all(Where(workflow="parcel"), reason="end of the example")
