"""Python's cyclic garbage collector, set for a process that does nothing but run workflows."""

import gc

THRESHOLDS = (100_000, 10, 10)
"""Young objects before a collection; Python's own 700 suits small programs. A thousand runs under way hold some fifty
thousand objects at once, all of which survive: with Python's setting the collector took a sixth of the time of a step,
and with 10,000 still a tenth. refold itself makes no cyclic garbage (a run lets go of itself when it is over), so what
waits for a collection is the steps' own."""


def settle_garbage_collector() -> None:
    """Leave what the imports made out of all later collections, and collect less often. For processes of our own
    only: a library does not change its host's settings.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
