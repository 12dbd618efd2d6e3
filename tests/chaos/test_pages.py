"""The page of a fault run in a real browser: it is drawn, needs nothing else, and complains of nothing."""

from pathlib import Path

from tests.chaos.story import WORKER, at
from tests.chaos.test_report import handed_over

from browser import Tab
from chaos_checker import violations
from chaos_figures import figures_of
from chaos_history import Fault
from chaos_report import PAGE, write_report


def test_a_fault_run_s_page_is_drawn(browser_page: Tab, tmp_path: Path) -> None:
    """Given a run with a fault, its page has the fault and a chart, in the dark as well."""
    story = handed_over()
    story.faults.append(Fault(1, "worker.kill", WORKER, at(10), at(11), 17))
    case = story.told()
    write_report(tmp_path, "make chaos SEED=5", figures_of(case, 30.0), violations(case), case)
    browser_page.open(tmp_path / PAGE)
    assert "worker.kill" in browser_page.evaluate("document.body.textContent")
    assert browser_page.evaluate("document.querySelector('svg').getBoundingClientRect().height") > 0
    browser_page.screenshot(tmp_path / "dark.png", dark=True)
