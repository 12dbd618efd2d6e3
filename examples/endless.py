"""A workflow that never ends: it begins afresh from time to time, so that its history stays short.

    python examples/endless.py

`continue_as_new` ends this execution and begins the next under the same id. State is carried over by the arguments;
messages that were not received yet are kept.
"""

from refold import Engine, continue_as_new, publish, receive, workflow

AT_ONCE = 3


@workflow
async def tally(total: int = 0, rounds: int = 0) -> int:
    """Add up numbers; begin afresh after every few."""
    for _ in range(AT_ONCE):
        number = await receive("numbers", int)
        if number < 0:
            publish("rounds", rounds)
            return total
        total += number
    return continue_as_new(total, rounds + 1)


if __name__ == "__main__":
    with Engine("memory://") as engine:
        adding = engine.start(tally)
        for number in range(1, 11):
            adding.send("numbers", number)
        adding.send("numbers", -1)
        print("total", adding.result())
        print("begun afresh", adding.value("rounds", int), "times")
