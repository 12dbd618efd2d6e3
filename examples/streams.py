"""Streams: items that readers follow live, from any process and from any index.

    python examples/streams.py

Made for the tokens of a language model: the step that calls the model writes each token as it comes. A step that is
tried again writes again; what workflow code itself writes stands in the stream exactly once.
"""

from refold import Engine, step, stream, workflow

SAYING = "a stitch in time saves nine"


@step
def complete(prompt: str) -> str:
    """Stands in for a language model that answers word by word."""
    words: list[str] = []
    for word in f"{prompt}: {SAYING}".split():
        stream("tokens").write(word)
        words.append(word)
    return " ".join(words)


@workflow
async def chat(prompt: str) -> str:
    """Ask the model, and say when it is done."""
    answer = await complete.aio(prompt)
    stream("tokens").write("(done)")
    return answer


if __name__ == "__main__":
    with Engine("memory://") as engine:
        chatting = engine.start(chat, "Say")
        print(*chatting.stream("tokens", str))  # ends when the run does
        print(chatting.result())
        print(*chatting.stream("tokens", str, start=5))
