"""`make bench`: measure throughput, latency and recovery on every log, beside a peer.

    python benchmarks/run.py                            everything but ten-million, some half an hour
    python benchmarks/run.py --quick                    small sizes, about a minute
    python benchmarks/run.py --only throughput,latency  --backends sqlite,dbos
    KAFKA_BOOTSTRAP=host:9092 python benchmarks/run.py  on a broker that is running already
    python benchmarks/run.py --merge A.json B.json --json C.json    one file of several, of which later ones count

README.md in this directory says how to read what comes out.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "benchmarks" / "harness"), str(ROOT / "tools")]

from suite import main  # noqa: E402 - found by way of the line above

if __name__ == "__main__":
    sys.exit(main())
