"""Programs written for Prefect, with only the import renamed: they work, or are told what to do instead."""

import re
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import URL

from pgresults import PostgresStorage
from pgresults.runtime.absent import INSTEAD
from pgresults.serializers import Serializer
from tests.support.database import psycopg_url
from tests.support.documents import ROOT
from tests.tasks.snippets import caching, results, running, transactions  # noqa: F401 (they fill the table)
from tests.tasks.snippets.table import SNIPPETS

PAGE = (ROOT / "docs" / "quickstart.md").read_text()


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_program_works_or_is_told_what_to_do(
    name: str, shared_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Serializer, "_types", dict(Serializer._types))
    monkeypatch.setenv("PGRESULTS_DATABASE_URL", psycopg_url(shared_url))
    storage = PostgresStorage(shared_url, f"snippet-{uuid4().hex}")
    storage.save()
    monkeypatch.setenv("PGRESULTS_RESULTS_DEFAULT_STORAGE", storage.name)
    snippet = SNIPPETS[name]
    assert snippet.page in PAGE
    if snippet.error is None:
        snippet.run()
    else:
        with pytest.raises(snippet.error, match=re.compile(snippet.says, re.DOTALL)):
            snippet.run()
    storage.close()


def test_there_are_enough_of_them() -> None:
    assert len(SNIPPETS) >= 35


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_not_here_stands_on_the_page(name: str) -> None:
    assert re.search(rf"`{name}=?`", PAGE.partition("### What is not here")[2])
