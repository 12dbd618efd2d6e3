"""One life of the demo's worker: `python worker.py URL LIFE RELEASE`. Started, killed and started again by run.py.

It is all that a durable job needs: open the log, start the run under its id, wait for the result. The same three
lines the second time do not start anything: the id's run goes on where it stood.
"""

import sys

from pydantic import TypeAdapter

from atlas.job import build_atlas
from atlas.model import Release
from refold import Engine

WORKFLOW_ID = "airport-atlas"


def main() -> None:
    """Run until the atlas is there."""
    url, life, release_json = sys.argv[1:]
    release = TypeAdapter(Release).validate_json(release_json)
    with Engine(url, workflows=[build_atlas], name=f"life-{life}") as engine:
        engine.start(build_atlas, release, id=WORKFLOW_ID).result()


if __name__ == "__main__":
    main()
