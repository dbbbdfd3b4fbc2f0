"""The audit after each test sees what a test leaves behind."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SAMPLES = """
import asyncio, threading, time

async def test_leaves_a_task():
    asyncio.create_task(asyncio.Event().wait(), name="forgotten task")

async def test_ends_its_task():
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    task.cancel()

def test_leaves_a_thread():
    threading.Thread(target=time.sleep, args=(2,), name="forgotten thread").start()

async def test_uses_the_executor_of_the_loop():
    await asyncio.to_thread(int)

async def test_fails_by_itself():
    asyncio.create_task(asyncio.Event().wait())
    raise AssertionError("the real reason")
"""


def test_audit(tmp_path: Path) -> None:
    """What a test leaves running is an error of that test, unless it failed by itself."""
    file = tmp_path / "test_sample.py"
    file.write_text(SAMPLES)
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"),
            *("-c", str(ROOT / "pyproject.toml"), f"--rootdir={tmp_path}", str(file)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
    )
    summary = run.stdout.partition("short test summary info")[2]
    assert "ERROR test_sample.py::test_leaves_a_task" in summary, run.stdout + run.stderr
    assert "ERROR test_sample.py::test_leaves_a_thread" in summary
    assert "FAILED test_sample.py::test_fails_by_itself" in summary
    assert "1 failed, 4 passed, 2 errors" in summary
    assert "forgotten task" in run.stdout
    assert "forgotten thread" in run.stdout
