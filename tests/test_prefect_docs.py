"""The snippets of ``docs/prefect.md``, run in order."""

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from conftest import psycopg_url

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.filterwarnings("default"),  # Prefect and its server have warnings of their own
]
prefect: Any = pytest.importorskip("prefect", reason="needs an installed Prefect")
testing: Any = pytest.importorskip("prefect.testing.utilities")

PAGE = Path(__file__).parents[1] / "docs" / "prefect.md"


def test_every_snippet_runs(fresh_url: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert snippets
    names: dict[str, Any] = {"URL": psycopg_url(fresh_url), "__name__": "snippets"}
    with testing.prefect_test_harness():
        for number, snippet in enumerate(snippets):
            file = tmp_path / f"snippet_{number}.py"
            file.write_text(snippet)  # Prefect reads a task's source
            exec(compile(snippet, file, "exec"), names)
    assert "'name': 'double'" in capsys.readouterr().out
