"""The command line: what it offers, and what it refuses."""

import subprocess
import sys

import pytest

import tiercache
from tiercache.cli.main import main


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists each command and exits with 0."""
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the version of the package."""
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.split() == ["tiercache", tiercache.__version__]


@pytest.mark.parametrize("argv", [[], ["dmeo"]])
def test_a_command_is_needed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command, or with one that does not exist, it says so and exits with 2."""
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help_loads_nothing_heavy() -> None:
    """Asking for help loads neither rich nor the SDK nor a library of a server."""
    program = (
        "import sys\n"
        "from tiercache.cli.main import main\n"
        "try:\n"
        "    main(['demo', '--help'])\n"
        "except SystemExit:\n"
        "    heavy = {'rich', 'opentelemetry.sdk', 'redis', 'asyncpg', 'sqlite3'}\n"
        "    print('loaded:', *sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr
