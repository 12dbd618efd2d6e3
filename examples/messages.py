"""Messages between workflows, and from outside: kept until they are received, each exactly once.

    python examples/messages.py

`send` returns when the message is recorded with its receiver. A message may come before anybody waits for it. With
`message=`, one call starts a run, or finds it, and sends it a message.
"""

from refold import Engine, WorkflowNotFound, receive, send, workflow


@workflow
async def kitchen() -> int:
    """Cook what is ordered until closing time."""
    cooked = 0
    while (dish := await receive("orders", str)) != "close":
        cooked += 1
        await send("waiter", "ready", f"{dish} no. {cooked}")
    return cooked


@workflow
async def waiter(dishes: list[str]) -> list[str]:
    """Order, and wait for each dish; give up after ten seconds."""
    served: list[str] = []
    for dish in dishes:
        await send("kitchen", "orders", dish)
        served.append(await receive("ready", str, timeout=10))
    try:
        await send("dishwasher", "orders", "plates")
    except WorkflowNotFound:
        served.append("nobody washes up")
    return served


if __name__ == "__main__":
    with Engine("memory://") as engine:
        engine.start(kitchen, id="kitchen")
        serving = engine.start(waiter, ["soup", "pie"], id="waiter")
        for line in serving.result():
            print(line)
        cooking = engine.start(kitchen, id="kitchen", message=("orders", "close"))
        print("cooked", cooking.result())
