"""A workflow as it may be in your project; test_rental.py beside it tests it.

pytest examples/testing
"""

from datetime import timedelta

from refold import Retry, receive, step, workflow


class CardRefused(Exception):
    """No try again would help."""


class Gateway:
    """The outside world, in one place, so that a test can put something else there."""

    async def charge(self, customer: str, cents: int) -> str:
        """An HTTP call, in real life."""
        return f"payment of {cents} by {customer}"

    async def remind(self, customer: str) -> None:
        """A mail, in real life."""


gateway = Gateway()


@step(retry=Retry(attempts=3, initial_s=0.01, on=(ConnectionError,)))
async def charge(customer: str, cents: int) -> str:
    """Takes the deposit."""
    return await gateway.charge(customer, cents)


@step
async def remind(customer: str) -> None:
    """Asks for the bicycle."""
    await gateway.remind(customer)


@workflow
async def rental(customer: str) -> str:
    """Takes a deposit, and waits two weeks for the bicycle."""
    await charge(customer, 5000)
    try:
        place = await receive("returned", str, timeout=timedelta(days=14))
    except TimeoutError:
        await remind(customer)
        return "reminded"
    return f"returned to {place}"
