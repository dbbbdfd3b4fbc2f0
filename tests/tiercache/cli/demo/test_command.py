"""The arguments of the demo, and what it needs before it can run."""

import subprocess
import sys

import pytest

from tiercache.cli.main import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--seconds", "soon"],
        ["--readers", "-1"],
        ["--readers", "1e3"],
        ["--processes", "1001"],
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that makes no sense is refused by the name of its option, and shown."""
    with pytest.raises(SystemExit) as exit_:
        main(["demo", *arguments])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert arguments[0] in error
    assert repr(arguments[1]) in error


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (["rich"], "rich"),
        (["opentelemetry.sdk"], "opentelemetry-sdk"),
        (["rich", "opentelemetry.sdk"], "rich and opentelemetry-sdk"),
    ],
)
def test_missing_extras_are_named(missing: list[str], named: str) -> None:
    """Without the libraries of the extra it says what to install, and exits with 2."""
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({missing!r}))\n"  # what is None cannot be imported
        "from tiercache.cli.main import main\n"
        "sys.exit(main(['demo']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 2
    assert f"needs {named}," in done.stderr
    assert "pip install 'tiercache[demo]'" in done.stderr
