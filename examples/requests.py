"""Questions with an answer, and values that anybody may read: a workflow as a small service.

    python examples/requests.py

A question is validated before it is recorded: a refused one leaves no trace in the workflow's history. Published
values can be read at any time, also after the run has ended.
"""

from refold import AskRefused, Engine, publish, requests, workflow


def reasonable(amount: int) -> None:
    """Who raises an error here refuses the question."""
    if amount <= 0:
        raise ValueError("put in more than nothing")


@workflow
async def piggy_bank(goal: int) -> int:
    """Take coins until there are enough."""
    balance = 0
    publish("balance", balance)
    async for request in requests("put in", int, validate=reasonable):
        balance += request.value
        publish("balance", balance)
        request.reply(balance)
        if balance >= goal:
            break
    return balance


if __name__ == "__main__":
    with Engine("memory://") as engine:
        bank = engine.start(piggy_bank, 10, id="piggy")
        print("balance", bank.value("balance", int))
        print("after a coin", bank.ask("put in", 4, int))
        try:
            bank.ask("put in", -1, int)
        except AskRefused as error:
            print("refused:", str(error).rsplit(": ", 1)[-1])
        print("after another", bank.ask("put in", 6, int))
        print("in the end", bank.result(), bank.value("balance", int))
