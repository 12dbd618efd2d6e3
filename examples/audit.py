"""An audit: who ordered what, a seal over the log, and the page that proves one run's history.

    python examples/audit.py          (needs the extra: pip install 'refold[crypto]')

Then somebody edits the log's file with a database's own tools, and is found out.
"""

import sqlite3
import subprocess
import sys

from refold import Engine, receive, step, workflow

URL = "sqlite:///audit.db"


@step
def charge(amount: int) -> str:
    """What somebody might like to have been less."""
    return f"charged {amount}"


@workflow
async def order(amount: int) -> str:
    """Charge, then wait until it is sent."""
    receipt = await charge.aio(amount)
    return f"{receipt}, sent by {await receive('sent', str)}"


def audit(*words: str) -> str:
    """What `refold audit` says."""
    command = [sys.executable, "-m", "refold", "audit", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


if __name__ == "__main__":
    with Engine(URL, requested_by="anna@office") as engine:
        handle = engine.start(order, 500, id="order-1")
        handle.pause("the customer called")
        handle.resume("it is all right")
        handle.send("sent", "post")
        print(handle.result())

    print(audit("log", URL))
    sealed = ("--seals", "seals.jsonl", "--public-key", "seal.key.pub")
    audit("keygen", "seal.key")
    audit("seal", URL, "--key", "seal.key", "--to", "seals.jsonl")
    print(audit("verify", URL, *sealed))
    audit("report", "order-1", "-o", "order-1.html", "--url", URL, *sealed)
    print(audit("check", "order-1.html", "--public-key", "seal.key.pub"))

    file = sqlite3.connect("audit.db")
    file.execute("UPDATE events SET value = CAST(replace(value, '500', '5.0') AS BLOB)")
    file.commit()
    file.close()
    print(audit("verify", URL))
