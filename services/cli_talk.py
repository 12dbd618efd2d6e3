"""`refold send`, `ask`, `value` and `stream`: what a run hears from outside, and what it shows."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, TypeVar

import typer

from refold.engine.handle import Handle
from refold.engine.names import check_id
from refold.log.errors import UsageError
from refold.services.cli_values import read_json
from refold.services.exits import reported
from refold.services.opening import DEFAULT_URL, Debug, Url, awaiting_worker, client_at
from refold.services.terminal import json_text, note, print_json, printable

T = TypeVar("T")

RunId = Annotated[str, typer.Argument(metavar="ID", help="The run's id.")]
Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic that its code listens to.")]
Value = Annotated[
    str, typer.Argument(metavar="VALUE", help="JSON: 5, true, '\"text\"', '{\"amount\": 5}'.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", min=0, metavar="SECONDS", help="Longest wait; for ever if not given."
    ),
]


def send(
    id: RunId,
    topic: Topic,
    value: Value,
    *,
    message_id: Annotated[
        str | None,
        typer.Option(
            "--message-id",
            metavar="ID",
            help="The message's own id: a second one with it is taken for the first.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Send a message to a run, which gets it by `receive(TOPIC)`, once, whenever it asks for it.

    With --message-id a command that may have failed half-way can be given again: the run gets one message.
    """
    with reported(debug):
        check_id(id)
        read = read_json(value, "VALUE")

        async def sent(handle: Handle[Any]) -> None:
            async with awaiting_worker():
                await handle.send_async(topic, read, message_id=message_id)

        _with_handle(url, id, sent)
        note(
            f"sent to {id}, topic {topic}: it is recorded, and waits there until the code takes it"
        )


def ask(
    id: RunId,
    topic: Topic,
    value: Value,
    *,
    timeout: Timeout = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Ask a run, which answers through `requests(TOPIC)`, and print its answer as JSON.

    Where the run refuses the question, its reason is told and the exit code is 5. When --timeout is over the question
    stands all the same, and may be answered later.
    """
    with reported(debug):
        check_id(id)
        read = read_json(value, "VALUE")
        answer = _with_handle(
            url, id, lambda handle: handle.ask_async(topic, read, Any, timeout_s=timeout)
        )
        print_json(answer, pretty=True)


def value(
    id: RunId,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key that it publishes under.")],
    *,
    timeout: Timeout = None,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Print what a run has published under a key, as JSON; waits for it where there is nothing yet.

    Values can be read for as long as the log is kept, after the run's end as well.
    """
    with reported(debug):
        check_id(id)
        published = _with_handle(
            url, id, lambda handle: handle.value_async(key, Any, timeout_s=timeout)
        )
        print_json(published, pretty=True)


def stream(
    id: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The stream's name.")],
    *,
    start: Annotated[
        int, typer.Option("--start", min=0, metavar="N", help="Index of the first item, from 0.")
    ] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Each item as JSON on a line, text as well.")
    ] = False,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Text as it is, with nothing between: for a model's tokens."),
    ] = False,
    url: Url = DEFAULT_URL,
    debug: Debug = False,
) -> None:
    """Print what a run writes to a stream: what is there, then live, until the run ends or Ctrl-C.

    Each item is on a line: text as it is, everything else as JSON.
    """
    with reported(debug):
        check_id(id)
        if json and raw:
            raise UsageError("give --json or --raw, not both: raw text is no JSON")
        form = _json_line if json else _raw if raw else _line
        asyncio.run(_print_stream(url, id, name, start, form))


async def _print_stream(
    url: str, id_: str, name: str, start: int, form: Callable[[object], str]
) -> None:
    async with (
        client_at(url) as engine,
        aclosing(engine.handle(id_).stream_async(name, Any, start=start)) as items,
    ):
        async for item in items:
            sys.stdout.write(form(item))
            sys.stdout.flush()  # whoever reads along should see it now


def _line(item: object) -> str:
    return f"{printable(item)}\n" if isinstance(item, str) else _json_line(item)


def _raw(item: object) -> str:
    if not isinstance(item, str):
        return json_text(item)
    return printable(item) if sys.stdout.isatty() else item  # recorded data can't steer a terminal


def _json_line(item: object) -> str:
    return f"{json_text(item)}\n"


def _with_handle(url: str, id_: str, call: Callable[[Handle[Any]], Awaitable[T]]) -> T:
    """What `call` gives for the run's handle, in an engine that runs nothing itself."""

    async def talk() -> T:
        async with client_at(url) as engine:
            return await call(engine.handle(id_))

    return asyncio.run(talk())
