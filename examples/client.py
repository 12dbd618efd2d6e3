"""A client of workers that run elsewhere: it starts runs, looks at them, and waits for their results.

    refold worker examples.client --url kafka://localhost:29092/demo       # any number of these, anywhere
    REFOLD_URL=kafka://localhost:29092/demo python examples/client.py

`docker compose up` starts Kafka, two workers and this client. Without REFOLD_URL it is its own worker, in memory.
A client that is started again starts nothing twice: the ids say which runs are meant, and the results are there.
"""

import os
import platform

from refold import Engine, step, workflow

PARCELS = 6


@step
def pack(parcel: str) -> str:
    """Somebody packs it."""
    return f"{parcel}: packed"


@step
def carry(packed: str) -> str:
    """Somebody carries it, maybe another worker than the one that packed it."""
    return f"{packed}, carried by {platform.node()}"


@workflow
def delivery(parcel: str) -> str:
    """Pack and carry; a worker that dies in between is replaced, and nothing is packed twice."""
    return carry(pack(parcel))


def main() -> None:
    """Start the deliveries, and wait for all of them."""
    url = os.environ.get("REFOLD_URL")
    with Engine(url or "memory://", worker=url is None) as engine:
        parcels = [f"parcel-{number}" for number in range(1, PARCELS + 1)]
        deliveries = [engine.start(delivery, parcel, id=parcel) for parcel in parcels]
        for run in deliveries:
            print(run.result(), flush=True)
        print(f"{len(deliveries)} parcels", flush=True)


if __name__ == "__main__":
    main()
