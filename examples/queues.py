"""A queue: no more runs of a kind at once than something outside can take, in all workers together.

    python examples/queues.py

Who waits is recorded, and holds no thread and no coroutine. It is told by `refold queue list`, `refold queue show` and
`refold list --status queued`; `refold queue set mail --concurrency 20` lets more go at once, while all runs.
"""

import tempfile
import threading
import time
from pathlib import Path

from refold import Engine, step, workflow

LOCK = threading.Lock()
SENDING: list[str] = []
MOST: list[int] = []


@step
def deliver(to: str) -> str:
    """What the provider takes two of at a time."""
    with LOCK:
        SENDING.append(to)
        MOST.append(len(SENDING))
    time.sleep(0.02)
    with LOCK:
        SENDING.remove(to)
    return to


@workflow(queue="mail")
def send_mail(to: str) -> str:
    """Each run waits in the queue until it is its turn."""
    return f"told {deliver(to)}"


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'mail.db'}"
        with Engine(url, workflows=[send_mail]) as engine:
            engine.set_queue("mail", concurrency=2, reason="the provider takes two at a time")
            runs = [engine.start(send_mail, name, id=f"mail-{name}") for name in "abcdefgh"]
            print(", ".join(run.result(timeout_s=30) for run in runs))
            print(
                f"at most {max(MOST)} at once; the queue takes {engine.queue('mail').concurrency}"
            )


if __name__ == "__main__":
    main()
