"""What a schedule's own run is called, for those who meet it in the log: the engine, and projections."""

from typing import Final

SCHEDULE: Final = "refold.schedule"
"""The workflow of schedules' own runs; also the topic on which they take orders, and the key of what they publish."""
PREFIX: Final = "schedule:"
"""The id of a schedule's own run is this and the schedule's name."""
