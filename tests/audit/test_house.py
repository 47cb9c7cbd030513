"""What surrounds the history is compared with what the revision ships, on any server and under any name."""

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL

from pgresults.audit.house import compare
from pgresults.database import migrations
from tests.database.test_migrations import ODD
from tests.support.database import psycopg_url
from tests.support.house import COMMAND, FILE, looked_at, text_of

ADDED = """
    CREATE INDEX my_index ON pgresults.history (reason);
    CREATE VIEW pgresults.mine AS SELECT key FROM pgresults.result;
    CREATE FUNCTION pgresults.my_own() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TABLE pgresults.my_table (key text);
    GRANT SELECT ON pgresults.live_results TO PUBLIC;
    GRANT SELECT ON pgresults.history TO pg_monitor;
    ALTER TABLE pgresults.result ENABLE ROW LEVEL SECURITY;
    CREATE POLICY everybody ON pgresults.result USING (true);
    CREATE POLICY confined ON pgresults.result AS RESTRICTIVE TO pg_monitor USING (false)
"""


def test_the_file_is_of_the_newest_revision(shared_url: URL) -> None:
    assert text_of(looked_at(shared_url)) == FILE.read_text("utf-8"), f"the schema was changed: run `{COMMAND}`"


@pytest.mark.parametrize("schema", [ODD, "result", "it's"])
def test_a_schema_of_any_name_is_as_it_should_be(empty_url: URL, schema: str) -> None:
    migrations.upgrade(empty_url, schema)
    assert compare(looked_at(empty_url, schema), schema) == []


def test_a_renamed_schema_is_after_an_upgrade(fresh_url: URL) -> None:
    with psycopg.connect(psycopg_url(fresh_url)) as admin:
        admin.execute(sql.SQL("ALTER SCHEMA pgresults RENAME TO {}").format(sql.Identifier("other")))
    assert {finding.kind for finding in compare(looked_at(fresh_url, "other"), "other")} == {"function"}
    migrations.upgrade(fresh_url, "other")
    assert compare(looked_at(fresh_url, "other"), "other") == []


def test_what_a_team_adds_is_its_own(fresh_url: URL) -> None:
    with psycopg.connect(psycopg_url(fresh_url)) as admin:
        admin.execute(ADDED)
    assert compare(looked_at(fresh_url), "pgresults") == []
