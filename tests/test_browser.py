"""The browser that pages are tested in: it reads files and loopback, and sees what goes wrong."""

import asyncio
from pathlib import Path

from browser import Tab


def page(path: Path, body: str) -> Path:
    path.write_text(f"<!doctype html><meta charset=utf-8><body>{body}</body>")
    return path


def test_a_page_runs_its_code_beside_a_test_s_own_event_loop(
    browser_page: Tab, tmp_path: Path
) -> None:
    """Given a file with a script, its text is what the script made of it, and the test may still run coroutines."""
    browser_page.open(
        page(
            tmp_path / "a.html", "<p></p><script>document.querySelector('p').innerText=6*7</script>"
        )
    )
    asyncio.run(asyncio.sleep(0))
    assert browser_page.text("p") == "42"


def test_nothing_beyond_this_machine_is_reached(browser_page: Tab, tmp_path: Path) -> None:
    """Given an image on another host, it is refused and told."""
    browser_page.open(page(tmp_path / "a.html", "<img src='https://refold.invalid/a.png'>"))
    browser_page.wait_until("document.readyState === 'complete'")
    assert browser_page.refused == ["https://refold.invalid/a.png"]
    assert browser_page.errors
    browser_page.refused.clear()
    browser_page.errors.clear()


def test_errors_of_a_page_are_told(browser_page: Tab, tmp_path: Path) -> None:
    """Given a script that throws, its error is among the page's errors."""
    browser_page.open(page(tmp_path / "a.html", "<script>throw new Error('gone wrong')</script>"))
    assert any("gone wrong" in error for error in browser_page.errors)
    browser_page.errors.clear()
