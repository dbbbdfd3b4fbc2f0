"""Run the Python blocks of a Markdown file as one program.

A block runs in the namespace the blocks before it left behind, and may `await` at its top level:
one event loop serves the whole file. `<!-- no-run -->` in the line before a block has it compiled
only; `<!-- setup` ... `-->` holds code that readers do not see. As a program:
`python -m tests.markdown FILE [PLACEHOLDER=VALUE ...]`.
"""

import ast
import asyncio
import inspect
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

_BLOCK = re.compile(
    r"(?P<skip>^[ \t]*<!-- no-run -->[ \t]*\n\s*)?"
    r"(?:^(?P<indent>[ \t]*)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$"
    r"|^<!-- setup[ \t]*\n(?P<setup>.*?)^-->)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A piece of Python in a text: what it says, where it begins, whether it is to be run."""

    code: str
    line: int
    run: bool


def blocks(text: str) -> Iterator[Block]:
    """Yield the Python blocks of a Markdown text in their order."""
    for match in _BLOCK.finditer(text):
        part = "setup" if match["code"] is None else "code"
        line = text.count("\n", 0, match.start(part)) + 1
        yield Block(dedent(match[part]), line, run=match["skip"] is None)


def compiled(block: Block, path: Path) -> types.CodeType:
    """Compile a block such that errors name the line of the Markdown file."""
    source = "\n" * (block.line - 1) + block.code
    code: types.CodeType = compile(
        source, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    return code


def run(path: Path, replacements: dict[str, str]) -> None:
    """Run a file's blocks; the first error ends it."""
    text = path.read_text()
    for placeholder, value in replacements.items():
        text = text.replace(placeholder, value)
    name = path.stem.lower().replace("-", "_")
    module = types.ModuleType(f"page_{name}")  # a page may be called like a package
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and annotations look for names
    with asyncio.Runner() as runner:
        for block in blocks(text):
            code = compiled(block, path)
            if not block.run:
                continue
            if code.co_flags & inspect.CO_COROUTINE:
                runner.run(eval(code, module.__dict__))
            else:
                exec(code, module.__dict__)


if __name__ == "__main__":
    run(Path(sys.argv[1]), dict(pair.split("=", 1) for pair in sys.argv[2:]))
