"""The audit on lives drawn at random: crashes, zombies and races leave nothing that looks like tampering."""

from tests.simulation.trials import drawn

from refold.log.protocol import Channel
from refold.projections.audit_walk import Standing, Walk

SEEDS = 60


def test_no_crash_and_no_zombie_looks_like_tampering() -> None:
    """Given many lives, the audit finds the garbage that strangers wrote into them, and nothing else."""
    stale = 0
    for seed in range(SEEDS):
        store = drawn(seed).world.store
        for partition in range(store.partitions):
            walk = Walk(partition, Standing())
            for record in store.read(Channel.EVENTS, partition, 0):
                walk.take(record)
            stale += walk.stale
            others = [finding for finding in walk.findings if finding.kind != "foreign"]
            assert not others, f"seed {seed}, partition {partition}"
    assert stale > SEEDS // 5  # else these lives show nothing of zombies
