"""Count function docstrings that open with a question word, and fail if they are more than 3 %.

Usage: docstrings.py PACKAGE…
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LIMIT = 0.03
OPENING = re.compile(r"\s*(What|Whether|Whose|Which|Of|By)\b")


def function_docstrings(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the location and the docstring of each function that has one."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
                yield f"{path}:{node.lineno}", text


def main(packages: list[str]) -> None:
    docstrings = [docstring for package in packages for docstring in function_docstrings(Path(package))]
    if not docstrings:
        sys.exit(f"Error: no docstrings in {' '.join(packages)}.")
    refused = [(location, text) for location, text in docstrings if OPENING.match(text)]
    share = len(refused) / len(docstrings)
    print(f"{len(refused)} of {len(docstrings)} function docstrings ({share:.1%}) open with a question word.")
    if share > LIMIT:
        for location, text in refused:
            print(f"{location}: {text.splitlines()[0]}")
        sys.exit(f"Error: at most {LIMIT:.0%} may: start docstrings with a verb.")


main(sys.argv[1:])
