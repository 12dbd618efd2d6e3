"""Resume, rewind, fork: another try for a run that failed, from the very step.

    python examples/again.py

What was recorded before that step is replayed, not done again: no card is charged twice.
"""

from pathlib import Path

from refold import Engine, Status, step, workflow
from refold import Runs as Where

PRINTER = Path("printer-has-paper")
charged: list[str] = []


@step
def charge(card: str) -> str:
    """Must not happen twice."""
    charged.append(card)
    return f"{card} charged {len(charged)} time"


@step
def print_ticket(receipt: str) -> str:
    """Fails while there is no paper."""
    if not PRINTER.exists():
        raise OSError("the printer has no paper")
    return f"ticket for {receipt}"


@workflow
async def sale(card: str) -> str:
    """Charge, then print."""
    receipt = await charge.aio(card)
    return await print_ticket.aio(receipt)


if __name__ == "__main__":
    PRINTER.unlink(missing_ok=True)
    with Engine("memory://") as engine:
        selling = engine.start(sale, "card 7", id="sale-7")
        try:
            selling.result()
        except OSError as error:
            print("failed:", error)
        PRINTER.touch()

        failed = Where(status=Status.FAILED, workflow="sale")
        print("to be resumed:", [each.id for each in engine.resume_all(failed, dry_run=True)])
        engine.resume_all(failed, reason="paper is there")
        print("resumed:", selling.result())

        # Numbers are never used twice: the second try at the ticket is step 2.
        copy = selling.fork(step=2, id="sale-7-copy")
        print("forked:", copy.result())

        selling.rewind(2, reason="the ticket is lost")  # in place, to before that step
        print("rewound:", selling.result())
    PRINTER.unlink()
