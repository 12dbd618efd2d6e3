"""A customer's data is encrypted with keys of its own, and gone from the log for ever when those are destroyed.

Run it: python examples/privacy.py     (needs the extra `crypto`)
"""

import tempfile
from pathlib import Path

from refold import Engine, PayloadErased, step, workflow
from refold.log.key_directory import DirectoryKeys
from refold.log.key_master import LocalMaster

PLACE = Path(tempfile.mkdtemp())
EMAIL = "bob@example.com"


@step
async def send_mail(email: str) -> str:
    """Pretend to send something."""
    return f"sent to {email}"


@workflow
async def welcome(email: str) -> str:
    """Greet a new customer."""
    return await send_mail(email)


def kept_in_the_clear() -> bool:
    """Whether any file has the address."""
    return any(EMAIL.encode() in path.read_bytes() for path in PLACE.rglob("*") if path.is_file())


if __name__ == "__main__":
    master = LocalMaster(
        [bytes(32)]
    )  # in earnest: a random one, from `refold keys new`, that only the workers have
    keys = DirectoryKeys(PLACE / "keys", master)
    with Engine(f"sqlite:///{PLACE}/shop.db", keys=keys) as engine:
        run = engine.start(welcome, EMAIL, id="welcome-7", subject="customer-7")
        print(run.result())
        print("in the clear:", kept_in_the_clear())
        print("recorded as", str(getattr(run.history()[0], "payload", ""))[:37] + "...")
        erased = engine.erase("customer-7", why="request of 12 November")
        print("erased:", erased.runs, "run")
        try:
            run.result()
        except PayloadErased as error:
            print("gone:", str(error).partition(" was erased")[0], "...")
        print("still known:", engine.status("welcome-7").status)
