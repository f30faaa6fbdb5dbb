"""The page of errors has every code, and says of each what is so."""

import ast
import re

from tests.local import TREE
from tundish.job import RETRYABLE, Code

PAGE = (TREE / "docs" / "errors.md").read_text()


def test_the_page_has_every_code_of_a_job() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \|", PAGE, re.MULTILINE)
    assert dict(rows) == {code.value: "yes" if code in RETRYABLE else "no" for code in Code}


def test_the_page_has_every_code_of_a_call_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}[\d, ]*) \| (`[^|]+) \|", PAGE, re.MULTILINE)
    told = {(status, code) for statuses, codes in rows for status in statuses.split(", ") for code in codes.split(", ")}
    statuses = _statuses()
    for path in [*(TREE / "api").glob("*.py"), TREE / "tundish" / "lineup.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in statuses:
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    assert (statuses[node.func.id], f"`{code.value!s}`") in told, f"{path}:{node.lineno}"


def _statuses() -> dict[str, str]:
    """Of each Problem, by its name."""
    text = (TREE / "tundish" / "errors.py").read_text()
    return dict(re.findall(r"^class (\w+)\(Problem\):\n    status = (\d+)", text, re.MULTILINE)) | {"Problem": "500"}
