"""What the documents point to is there, and every document can be found from an index."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *DOCS.rglob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
    ROOT / "benchmarks" / "README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SOURCE = re.compile(
    r"\b(?:log|engine|projections|services|tests|tools|examples|benchmarks)/[\w/.]+\.\w+\b"
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """The links of a page to files of ours: as written, where to, and to which heading."""
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", link):
            path, _, heading = link.partition("#")
            yield link, (page.parent / path).resolve() if path else page, heading


def test_every_link_leads_somewhere() -> None:
    """Given each link to a file or a heading of ours, both are there."""
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in DOCUMENTS
        for link, target, heading in links(page)
        if not target.exists() or (heading and heading not in anchors(target))
    ]
    assert broken == []


def test_every_source_file_that_the_map_names_is_there() -> None:
    """Given the paths in the texts on the inside, each is a file."""
    inside = [
        ROOT / "ARCHITECTURE.md",
        *(DOCS / "internals").glob("*.md"),
        *(DOCS / "decisions").glob("*.md"),
    ]
    gone = [
        f"{page.name}: {path}"
        for page in inside
        for path in SOURCE.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    ]
    assert gone == []


def test_every_page_that_the_code_names_is_there() -> None:
    """Given `docs/NAME.md` in a message or a docstring, it is a page."""
    named = {
        path
        for folder in ("log", "engine", "projections", "services", "src/refold")
        for source in (ROOT / folder).glob("*.py")
        for path in re.findall(r"docs/[\w/-]+\.md", source.read_text(encoding="utf-8"))
    }
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_every_page_is_in_its_index() -> None:
    """Given the pages of docs, the index beside them, or ARCHITECTURE.md for what is inside, links each of them."""
    for index, folder in (
        (DOCS / "README.md", DOCS),
        (ROOT / "ARCHITECTURE.md", DOCS / "internals"),
        (DOCS / "decisions" / "README.md", DOCS / "decisions"),
    ):
        linked = {target for _, target, _ in links(index)}
        assert set(folder.glob("*.md")) - linked - {index} == set()
