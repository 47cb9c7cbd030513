"""The blocks of ``docs/prefect.md``, run in order."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.support.database import psycopg_url
from tests.support.documents import ROOT, Reader
from tests.support.prefect_fixtures import MARKS, harness, require_prefect

pytestmark = MARKS
require_prefect()

PAGE = "prefect.md"


@pytest.mark.timeout(300)
def test_every_block_runs(fresh_url: URL, tmp_path: Path) -> None:
    (tmp_path / ".prefect" / "storage").mkdir(parents=True)
    document = (ROOT / "docs" / PAGE).read_text()
    if find_spec("importlib_metadata") is None:  # without it, and not asking for it, the program of Prefect 3.1 fails
        document = document.replace("\nprefect config set", "\necho prefect config set")
    with harness():
        reader = Reader(tmp_path, {"app": fresh_url}, names={"URL": psycopg_url(fresh_url), "__name__": "document"})
        reader.follow(PAGE, document)
    assert "'name': 'double'" in reader.printed
    assert re.search(r"^[0-9a-f]{8,}\s+1\s.*\bpickle\b", reader.printed, re.MULTILINE), "what `ls` shows"
    assert "0 files" in reader.printed
