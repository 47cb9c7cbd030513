"""What the documents show, runs."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from conftest import psycopg_url
from pgresults.serializers import JSONSerializer
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore

DOCS = Path(__file__).parents[1] / "docs"


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / name).read_text(), re.MULTILINE | re.DOTALL)


def test_the_statements_run(fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    ResultStore(result_storage=storage, serializer=JSONSerializer()).write({"model": "small"}, key="reports/may")
    found = blocks("sql.md", "sql")
    assert len(found) == 8
    with psycopg.connect(psycopg_url(fresh_url), autocommit=True) as connection:
        for block in found:
            connection.execute(block.encode())
    storage.close()


def test_the_programs_run(fresh_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", psycopg_url(fresh_url))
    monkeypatch.setenv("PGRESULTS_SEAL_KEY", str(tmp_path / "seal.pem"))
    found = blocks("audit.md", "python")
    assert len(found) == 2
    names: dict[str, Any] = {}
    for block in found:
        exec(block, names)
    assert "(1, 'write'" in capsys.readouterr().out
    names["store"].storage().close()
