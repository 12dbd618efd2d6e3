# kafka-python 3 ships no types, and the stubs that type checkers carry describe version 2: with those, right calls
# are errors and wrong ones pass. Until it has its own, all of it is Any, and log/ gives types to what enters there.
from typing import Any

def __getattr__(name: str) -> Any: ...
