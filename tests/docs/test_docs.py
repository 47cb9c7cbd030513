"""The documents: every block of every page runs, every public name and setting stands in one."""

import gc
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

import pgresults
from pgresults import cache_policies, errors, locking, settings, transactions
from pgresults.flows import FlowOptions
from pgresults.records.records import ResultRecordMetadata
from pgresults.serializers import JSONSerializer, Serializer
from pgresults.storage import PostgresStorage
from pgresults.storage.registry import _shared
from pgresults.store import ResultStore
from pgresults.tasks import Task, TaskOptions
from tests.support.database import psycopg_url
from tests.support.documents import ROOT, RUNNERS, Reader, parse, require_output

DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text() for page in sorted(DOCS.glob("*.md"))}
ELSEWHERE = {"prefect.md": "test_prefect_docs.py"}
"""Pages that need more than is installed here, and what runs them."""


@pytest.fixture
def reader(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Somebody with a migrated database, of his own where he follows a page."""
    database = request.getfixturevalue("fresh_url" if "page" in request.fixturenames else "shared_url")
    monkeypatch.setattr(Serializer, "_types", dict(Serializer._types))  # types of a document end with it
    reader = Reader(tmp_path, {"team": database})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # programs in a document do not close what they end with
        yield reader
        for storage in [value for value in reader.names.values() if isinstance(value, PostgresStorage)]:
            storage.close()
        reader.names.clear()
        _shared.cache_clear()
        gc.collect()


def a_report(reader: Reader) -> None:
    """What the queries of a page are about."""
    storage = PostgresStorage(reader.database)
    ResultStore(result_storage=storage, serializer=JSONSerializer()).write({"model": "small"}, key="reports/may")
    storage.close()


def a_scheduler(reader: Reader) -> None:
    """Stands for pg_cron, which is in few servers: runs at once what is to be run at times."""
    with psycopg.connect(psycopg_url(reader.database), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA cron")
        connection.execute(
            "CREATE FUNCTION cron.schedule(name text, schedule text, command text) RETURNS bigint "
            "LANGUAGE plpgsql AS $$ BEGIN EXECUTE command; RETURN 1; END $$"
        )


BEFORE = {"sql.md": a_report, "operations.md": a_scheduler}
"""What a page takes for granted."""


@pytest.mark.parametrize("page", sorted(PAGES.keys() - ELSEWHERE))
def test_every_block_runs(page: str, reader: Reader, request: pytest.FixtureRequest) -> None:
    if "/restored\n" in PAGES[page]:
        reader.databases["restored"] = request.getfixturevalue("empty_url")
    BEFORE.get(page, lambda _: None)(reader)
    reader.follow(page, PAGES[page])


@pytest.mark.slow
def test_pages_run_one_after_another_in_one_directory_and_again(
    tmp_path: Path, fresh_url: URL, empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Serializer, "_types", dict(Serializer._types))
    somebody = Reader(tmp_path, {"team": fresh_url, "restored": empty_url}, compares=False)
    begun: set[str] = set()
    once = "operations.md"  # what it restores elsewhere is there already the second time
    for page in [*sorted(PAGES.keys() - ELSEWHERE), *sorted(PAGES.keys() - ELSEWHERE - {once})]:
        if page not in begun:
            BEFORE.get(page, lambda _: None)(somebody)
        begun.add(page)
        somebody.names = {"__name__": "document"}
        somebody.follow(page, PAGES[page])


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_block_has_a_runner(page: str) -> None:
    assert {block.language for block in parse(PAGES[page])} <= RUNNERS.keys()
    if page in ELSEWHERE:
        assert f'"{page}"' in (Path(__file__).parent / ELSEWHERE[page]).read_text()


def test_no_page_is_forgotten() -> None:
    linked = re.findall(r"\]\(docs/([\w.]+)\)", (DOCS.parent / "README.md").read_text())
    assert sorted(linked) == sorted(PAGES)
    assert ELSEWHERE.keys() | BEFORE.keys() <= PAGES.keys()


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([\w.]*)#?([\w-]*)\)", PAGES[page]):
        document = PAGES[target or page]
        titles = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in _TITLE.findall(document)}
        assert not anchor or anchor in titles


_TITLE = re.compile(r"^#+ (.+)$", re.MULTILINE)


def operations(kind: type) -> set[str]:
    """What a class does with the database: methods with an async twin."""
    names = {name for name in dir(kind) if not name.startswith("_")}
    return {name for name in names if f"a{name}" in names}


NAMES: dict[str, set[str]] = {
    "pgresults": set(pgresults.__all__),
    "pgresults.cache_policies": {
        name for name, policy in vars(cache_policies).items() if isinstance(policy, cache_policies.CachePolicy)
    }
    | {"configure"},
    "pgresults.context": {"FlowRunContext", "TaskRunContext"},
    "pgresults.errors": {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)
    },
    "pgresults.locking": set(locking.__all__),
    "pgresults.serializers": {"Serializer", "PickleSerializer", "JSONSerializer", "CompressedSerializer"},
    "pgresults.transactions": set(transactions.__all__)
    | set(transactions.CommitMode)
    | set(transactions.IsolationLevel),
    "a lock manager": operations(locking.PostgresLockManager),
    "a storage": operations(PostgresStorage) | {"lock_manager", "url", "stop"},
    "a store": operations(ResultStore)
    | set(ResultStore.model_fields)
    | {"create_result_record", "generate_default_holder", "result_storage_block_id", "supports_isolation_level"},
    "a task": set(TaskOptions.__annotations__)
    | set(FlowOptions.__annotations__)
    | operations(Task)
    | {"map", "with_options", "explain", "cache_info", "on_commit", "on_rollback", "unmapped"},
    "a transaction": operations(transactions.Transaction)
    | {name for name in dir(transactions.Transaction) if name.startswith("is_")}
    | {"add_child", "children", "get", "get_parent", "holder", "set", "stage", "state"},
    "the metadata": set(ResultRecordMetadata.model_fields),
}


@pytest.mark.parametrize("place", NAMES)
def test_every_public_name_stands_in_a_page(place: str) -> None:
    words = set(re.findall(r"\w+", "\n".join(PAGES[page] for page in PAGES if page != "design.md")))
    twins = {name for name in NAMES[place] if name[0] == "a" and name[1:] in NAMES[place]}
    assert sorted(NAMES[place] - twins - words) == []


def test_the_table_of_settings_is_that_of_the_code() -> None:
    listed = re.findall(r"^\| `(PGRESULTS_\w+)` \| (.*?) \| (.*) \|$", PAGES["settings.md"], re.MULTILINE)
    assert listed == [
        (settings.variable(name), _default(field), field.description) for name, field in settings.names().items()
    ]


def _default(field: Any) -> str:
    if field.default in (None, ()):
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


class TestTheReader:
    """What the tests above rely on."""

    def test_a_wrong_block_is_noticed(self, reader: Reader) -> None:
        for language, text in {
            "python": "1 / 0",
            "sh": "false\ntrue",
            "sql": "SELECT no_such_column",
            "ini": "[Service]\nExecStart=no-such-program",
        }.items():
            with pytest.raises((ArithmeticError, AssertionError, OSError, psycopg.Error)) as caught:
                reader.follow("a page", f"# A page\n\n```{language}\n{text}\n```\n")
            assert caught.value.__notes__ == ["in the block at line 4 of a page"]

    def test_a_wrong_output_is_noticed(self, reader: Reader) -> None:
        for program in ("```python\nprint(1)\n```", "```sh\necho 1\n```", "```sql\nSELECT 1 AS n\n```"):
            with pytest.raises(AssertionError, match="printed"):
                reader.follow("a page", f"{program}\n\n```text\n2\n```\n")

    def test_dots_stand_for_what_differs(self) -> None:
        require_output("a  … c\n…\nend\n", "a b b c\n1\n2\nend\n")
        for wrong in ("a b c\nend\nmore\n", "a b\nend\n", "a b c\n"):
            with pytest.raises(AssertionError):
                require_output("a … c\n…\nend\n", wrong)

    @pytest.mark.parametrize(
        "document",
        [
            "```sh\ntrue\n",
            " ```sh\ntrue\n ```\n",
            "~~~\ntrue\n~~~\n",
            "```text\nof nothing\n```\n",
            "```sh -x\ntrue\n```\n",
        ],
    )
    def test_a_fence_that_is_no_block_is_refused(self, document: str) -> None:
        with pytest.raises(ValueError, match=r"fence|output"):
            parse(document)

    def test_a_block_finds_what_the_ones_before_left(self, reader: Reader) -> None:
        reader.follow(
            "a page",
            "```toml\n[tool.pgresults]\npool_size = 3\n```\n"
            "```sh\nexport PGRESULTS_POOL_OVERFLOW=7\n```\n"
            "```python\nfrom pgresults.settings import current_settings\nfound = current_settings()\n```\n"
            "```python\nprint(found.pool_size, found.pool_overflow)\n```\n"
            "```text\n3 7\n```\n",
        )
