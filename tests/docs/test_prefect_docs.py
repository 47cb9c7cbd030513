"""The blocks of ``docs/prefect.md``, run in order."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from tests.support.database import psycopg_url
from tests.support.documents import ROOT, Reader
from tests.support.prefect_fixtures import MARKS, STARTUP_SECONDS, require_prefect

pytestmark = MARKS
prefect: Any = require_prefect()

PAGE = "prefect.md"


def test_every_block_runs(fresh_url: URL, tmp_path: Path) -> None:
    (tmp_path / ".prefect" / "storage").mkdir(parents=True)
    document = (ROOT / "docs" / PAGE).read_text()
    if find_spec("importlib_metadata") is None:  # without it, and not asking for it, the program of Prefect 3.1 fails
        document = document.replace("\nprefect config set", "\necho prefect config set")
    with prefect.testing.utilities.prefect_test_harness(STARTUP_SECONDS):
        reader = Reader(tmp_path, {"app": fresh_url}, names={"URL": psycopg_url(fresh_url), "__name__": "document"})
        reader.follow(PAGE, document)
    assert "'name': 'double'" in reader.printed
    assert "0 files" in reader.printed
