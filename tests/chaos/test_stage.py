"""The processes of a fault run."""

import asyncio
import signal
from pathlib import Path

from chaos_history import Scribe, load
from chaos_stage import Company


def test_who_is_told_to_freeze_before_it_listens_goes_on(tmp_path: Path) -> None:
    """Given a process that knows nothing of the signal to freeze, the next one ends it, and not that one."""

    async def told(company: Company) -> None:
        company.want("worker-1")
        company.dismiss("worker-1")
        for number in (signal.SIGUSR1, signal.SIGTERM):
            company.signal("worker-1", number)
        assert await company.gone(["worker-1"], 60) == []

    with Scribe(tmp_path, "main") as scribe:
        company = Company(tmp_path, scribe, {})
        company.add("worker-1", lambda _: ["sleep", "60"])
        try:
            asyncio.run(told(company))
        finally:
            company.close()
    (life,) = load(tmp_path).lives
    assert life.exit_code == -signal.SIGTERM
