"""Schedules: a workflow that is started again and again, at times that are said once.

    python examples/schedules.py

A schedule lives in the log, as runs do: whoever works on the log carries it out, and each due time starts one run,
whose id is the schedule's name and that time. Nobody has to be there when it is due: the latest time that was missed is
met when somebody is, within `catch_up`.
"""

import time
from datetime import timedelta
from zoneinfo import ZoneInfo

from refold import Engine, workflow

BERLIN = ZoneInfo("Europe/Berlin")


@workflow
def report(region: str) -> str:
    """What is wanted every night."""
    return f"report for {region}"


if __name__ == "__main__":
    with Engine("memory://") as engine:
        nightly = engine.schedule(
            "nightly",
            report,
            "eu",
            cron="0 3 * * *",
            timezone="Europe/Berlin",
            reason="the board wants it",
        )
        due = nightly.info().next_due
        assert due is not None
        print(f"due next at {due.astimezone(BERLIN):%H:%M}")
        print(nightly.trigger(reason="last night's was wrong").result())  # now, beside the others
        nightly.pause(reason="holidays")

        often = engine.schedule("often", report, "us", every=timedelta(seconds=1), overlap="skip")
        while often.info().started < 2:
            time.sleep(0.05)
        for info in engine.schedules():
            state = "paused" if info.paused else "goes on"
            print(f"{info.name}: {state}, starts {info.spec.workflow}")
        often.delete(reason="seen enough")
        print("left:", [info.name for info in engine.schedules()])
