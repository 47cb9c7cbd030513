"""What importing pgresults costs: nothing is imported that a program may never need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

import pgresults
from tests.support.database import psycopg_url

# What only the command line, migrations, seals, async engines or processes need.
LATE = {
    "alembic",
    "cryptography",
    "mako",
    "opentelemetry",
    "prometheus_client",
    "pygments",
    "rich",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm",
    "typer",
}


def _imported_by(program: str) -> set[str]:
    """The modules that a fresh Python has after a program, which must print nothing."""
    listing = "\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program + listing], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_the_package_alone_imports_none_of_what_it_is_built_on() -> None:
    imported = _imported_by("import pgresults")
    assert {name for name in imported if name.startswith("pgresults")} == {"pgresults"}
    assert not imported & {"sqlalchemy", "psycopg", "pydantic", "cloudpickle"}


def test_all_public_names_together_import_nothing_that_is_needed_later() -> None:
    imported = _imported_by("from pgresults import *")
    assert "sqlalchemy" in imported
    assert not imported & LATE


def test_a_store_that_is_used_imports_no_migrations(shared_url: URL) -> None:
    storage = f"PostgresStorage({psycopg_url(shared_url)!r})"
    program = f"from pgresults import *; ResultStore(result_storage={storage}).exists('k')"
    assert not _imported_by(program) & LATE


def test_calls_of_tasks_import_no_telemetry(shared_url: URL) -> None:
    program = f"""
from pgresults import *
store = ResultStore(result_storage=PostgresStorage({psycopg_url(shared_url)!r}, "untraced"), locks=True)
store.write(1, key="k")
store.read("k")
with transaction("t", store) as txn:
    txn.stage(2)
from pgresults.cache_policies import INPUTS
task(abs, name="abs", result_storage=store.result_storage, cache_policy=INPUTS)(-1)
"""
    assert not {name.partition(".")[0] for name in _imported_by(program)} & LATE


def test_names_have_the_types_that_the_stub_says() -> None:
    stub = ast.parse(Path(pgresults.__file__).with_suffix(".pyi").read_text())
    homes = {
        node.module: tuple(sorted(name.name for name in node.names))
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
    }
    assert homes == {home: tuple(sorted(names)) for home, names in pgresults._HOMES.items()}  # type: ignore[attr-defined]
    [listed] = [ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign)]
    assert sorted(listed) == pgresults.__all__


def test_public_modules_are_there_after_the_package() -> None:
    _imported_by("import pgresults; pgresults.errors.PgResultsError; pgresults.transactions.Transaction")


def test_the_version_is_that_of_the_distribution() -> None:
    assert pgresults.__version__.count(".") >= 2


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pgresults.nothing  # type: ignore[attr-defined] # noqa: B018
