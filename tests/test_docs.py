"""What the documentation shows works: its code runs, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.markdown import Block, blocks

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
REDIS = "redis://localhost:6379/0"
POSTGRES = "postgresql://localhost/app"


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _run(page: Path, folder: Path, **replacements: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "tests.markdown", str(page)),
            *(f"{placeholder}={value}" for placeholder, value in replacements.items()),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )


@pytest.mark.parametrize("page", [page for page in PAGES if [*blocks(page.read_text())]], ids=_name)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The Python blocks of a page, one after the other, make a program that runs without error."""
    text = page.read_text()
    replacements = {}
    if REDIS in text:
        replacements[REDIS] = request.getfixturevalue("redis_url")
    if POSTGRES in text:
        replacements[POSTGRES] = request.getfixturevalue("postgres_dsn")
    done = _run(page, tmp_path, **replacements)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository names one that exists."""
    prose = re.sub(r"^[ \t]*```.*?^[ \t]*```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", prose)
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_blocks_are_found_in_order() -> None:
    """Plain, indented, skipped and hidden blocks are found, with the line they begin at."""
    text = (
        "```python\na = 1\n```\n"
        "- item\n\n  ```python\n  b = 2\n  ```\n"
        "<!-- no-run -->\n```python\nc = 3\n```\n"
        "```sh\nd\n```\n"
        "<!-- setup\ne = 5\n-->\n"
    )
    assert [*blocks(text)] == [
        Block("a = 1\n", 2, run=True),
        Block("b = 2\n", 7, run=True),
        Block("c = 3\n", 11, run=False),
        Block("e = 5\n", 17, run=True),
    ]


def test_blocks_share_names_and_a_loop(tmp_path: Path) -> None:
    """A block sees what those before it made, and may await what they started."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nimport asyncio\n```\n"
        "```python\nawait asyncio.sleep(0)\n"
        "future = asyncio.get_running_loop().create_future()\n```\n"
        "```python\nfuture.set_result('PLACE')\n```\n"
        "```python\nprint(await future)\n```\n"
    )
    done = _run(page, tmp_path, PLACE="found")
    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr


@pytest.mark.parametrize("skip", ["", "<!-- no-run -->\n"])
def test_a_broken_block_is_reported_at_its_line(tmp_path: Path, skip: str) -> None:
    """An error names the page and the line, and code that is not run must still be Python."""
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{skip}```python\nx = = 1\n```\n")
    done = _run(page, tmp_path)
    assert done.returncode == 1
    assert f'page.md", line {5 if skip else 4}' in done.stderr
