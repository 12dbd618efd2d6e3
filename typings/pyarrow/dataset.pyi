from collections.abc import Sequence
from pathlib import Path

from pyarrow import Schema

class Dataset: ...

def dataset(source: Sequence[Path], *, schema: Schema, format: str) -> Dataset: ...  # noqa: A002
