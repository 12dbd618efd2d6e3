"""The user's code in the tests of talking to runs and of orders. Tests copy it to a directory of their own."""

from pathlib import Path

from refold import (
    patched,
    publish,
    receive,
    receive_sync,
    requests,
    set_attributes,
    step,
    stream,
    workflow,
)


@step
def write(line: str) -> str:
    """A step that leaves a trace outside refold, and fails while the file `broken` is there."""
    if Path("broken").exists():
        raise ConnectionError("the office is closed")
    with Path("journal.txt").open("a") as journal:
        journal.write(f"{line}\n")
    return line


@workflow
async def desk(name: str = "desk") -> list[int]:
    """Answers questions until somebody sends `close`; publishes and streams what it hears."""
    publish("name", name)
    set_attributes({"desk": name})
    heard = stream("heard")
    numbers: list[int] = []
    asked = requests("number", int, validate=_positive)
    heard.write("open\n")
    while len(numbers) < 2:
        request = await asked.receive()
        if request.value > 100:
            request.refuse("more than a hundred is too much")
            continue
        numbers.append(request.value)
        heard.write({"heard": request.value})
        request.reply(sum(numbers))
    await receive("close", str)
    heard.write("closed")
    return numbers


def _positive(number: int) -> None:
    if number < 0:
        raise ValueError("a number is not negative")


@workflow
def letters(what: str) -> list[str]:
    """Writes one line, waits for a word, writes another."""
    lines = [write(f"{what} begun")]
    word = receive_sync("word", str)
    lines.append(write(f"{what} {word}"))
    return lines


@workflow(name="memo")
def memo_1(text: str) -> str:
    """The first version."""
    return f"1 {text} {receive_sync('go', str)}"


@workflow(name="memo", version=2)
def memo_2(text: str, copies: int = 1) -> str:
    """The second, with one more parameter and a change inside."""
    how = "printed" if patched("printed") else "written"
    return f"2 {how} {text} {copies} {receive_sync('go', str)}"
