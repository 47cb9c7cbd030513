"""What the functions of the schema may do, who may run them, and that nobody runs code as their owner."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import URL

from pgresults.database import migrations
from pgresults.errors import SchemaVersionError
from pgresults.serializers import JSONSerializer
from pgresults.settings import Settings
from pgresults.sql.grants import Kind, granting
from pgresults.storage import PostgresStorage
from pgresults.store import ResultStore
from tests.support.database import psycopg_url


@pytest.fixture
def users(fresh_url: URL, admin: psycopg.Connection[Any]) -> Iterator[dict[str, URL]]:
    """A user of every kind, and a guest, who may do no more than look into the schema."""
    names = {kind: f"pgresults_{kind}_{uuid4().hex[:8]}" for kind in (*Kind, "guest")}
    for kind, name in names.items():
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(name)))
        if kind == "guest":
            admin.execute(sql.SQL("GRANT USAGE ON SCHEMA pgresults TO {}").format(sql.Identifier(name)))
        else:
            admin.execute(granting("pgresults", name, Kind(kind)))
    yield {kind: fresh_url.set(username=name, password="x") for kind, name in names.items()}
    for name in names.values():
        admin.execute(sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


CAST_OF_ONES_OWN = """
CREATE TABLE mine (whom text);
GRANT INSERT ON mine TO PUBLIC;
CREATE TYPE disguised AS (what text);
CREATE FUNCTION as_uuid(given disguised) RETURNS uuid LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO public.mine VALUES (current_user);
    RETURN gen_random_uuid();
END
$$;
CREATE CAST (disguised AS uuid) WITH FUNCTION as_uuid(disguised) AS IMPLICIT;
"""

ATTACHED = """
CREATE TEMPORARY TABLE bait (storage_id {type}, key text, payload_id uuid, serializer jsonb, size bigint);
CREATE TRIGGER bait AFTER INSERT ON bait FOR EACH ROW EXECUTE FUNCTION pgresults.project_document();
"""


BITTEN = "INSERT INTO bait (storage_id) VALUES (ROW('x'))"


@pytest.mark.parametrize("kind", [*Kind, "guest"])
def test_nobody_attaches_a_function_that_runs_as_its_owner(users: Any, admin: Any, kind: str) -> None:
    user = sql.Identifier(users[kind].username)
    admin.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(user))
    with psycopg.connect(psycopg_url(users[kind]), autocommit=True) as connection:
        connection.execute(CAST_OF_ONES_OWN)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(ATTACHED.format(type="public.disguised") + BITTEN)
        assert connection.execute("SELECT FROM mine").fetchall() == []


def test_what_is_shown_of_documents_is_not_rewritten_from_elsewhere(users: Any, admin: Any, fresh_url: URL) -> None:
    storage = PostgresStorage(fresh_url)
    admin.execute("SELECT pgresults.project_documents()")
    ResultStore(result_storage=storage, serializer=JSONSerializer()).write({"a": 1}, key="k")
    bitten = f"INSERT INTO bait (storage_id, key) VALUES ('{storage.id}', 'k')"
    with (
        psycopg.connect(psycopg_url(users["guest"]), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(ATTACHED.format(type="uuid") + bitten)
    assert admin.execute("SELECT count(*) FROM pgresults.json_results").fetchone() == (1,)
    storage.close()


OPEN = """
SELECT p.proname FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE p.pronamespace = 'pgresults'::regnamespace AND a.grantee = 0
"""
OWN_TRIGGERS = """
SELECT p.proname, p.prorettype = 'trigger'::regtype, p.proconfig FROM pg_proc p
WHERE p.pronamespace = 'pgresults'::regnamespace AND p.prosecdef
"""


def test_even_an_owner_attaches_them_to_no_other_table(admin: Any) -> None:
    triggers = [name for name, is_trigger, _ in admin.execute(OWN_TRIGGERS).fetchall() if is_trigger]
    assert "project_document" in triggers
    admin.execute(CAST_OF_ONES_OWN)
    for name in triggers:
        attached = ATTACHED.format(type="disguised").replace("project_document", name)
        with pytest.raises(psycopg.errors.InvalidSchemaName, match="would work on another one"):
            admin.execute(attached + BITTEN)
        beside = attached.replace("TEMPORARY TABLE ", "TABLE pgresults.").replace("ON bait", "ON pgresults.bait")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="of another table"):
            admin.execute(beside + BITTEN.replace("bait", "pgresults.bait"))
    assert admin.execute("SELECT FROM mine").fetchall() == []


PATHLESS = ("record_entry",)
"""Those that name whatever they use with its schema."""

OWN_PATH = """
CREATE SCHEMA own;
CREATE TABLE own.who (whom text);
GRANT ALL ON SCHEMA own TO PUBLIC;
GRANT ALL ON own.who TO PUBLIC;
CREATE FUNCTION own.note() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO own.who VALUES (current_user);
    RETURN true;
END
$$;
CREATE FUNCTION own.statement_timestamp() RETURNS timestamptz LANGUAGE sql
    AS 'SELECT CASE WHEN own.note() THEN pg_catalog.statement_timestamp() END';
CREATE FUNCTION own.pg_current_xact_id() RETURNS xid8 LANGUAGE sql
    AS 'SELECT CASE WHEN own.note() THEN pg_catalog.pg_current_xact_id() END';
CREATE FUNCTION own.current_setting(name text) RETURNS text LANGUAGE sql
    AS 'SELECT CASE WHEN own.note() THEN pg_catalog.current_setting(name) END';
CREATE FUNCTION own.has_table_privilege(whom name, tab regclass, what text) RETURNS boolean LANGUAGE sql
    AS 'SELECT own.note() AND pg_catalog.has_table_privilege(whom, tab, what)';
CREATE DOMAIN own.text AS pg_catalog.text CHECK (own.note());
CREATE DOMAIN own.name AS pg_catalog.name CHECK (own.note());
CREATE DOMAIN own.regclass AS pg_catalog.regclass CHECK (own.note());
"""
OPERATORS = (
    ("=", "text", "text"), ("=", "text", "name"), ("=", "name", "name"),
    ("=", "bigint", "bigint"), ("=", "bigint", "integer"), ("=", "integer", "integer"), ("=", "uuid", "uuid"),
    ("=", "bytea", "bytea"), ("=", "timestamptz", "timestamptz"), ("<>", "uuid", "uuid"), ("<>", "oid", "oid"),
    ("<>", "regclass", "regclass"),
)  # fmt: skip


@pytest.mark.parametrize("signed", [False, True])
def test_what_is_on_a_writers_path_is_not_run_as_the_owner(
    users: Any, admin: Any, fresh_url: URL, signed: bool
) -> None:
    admin.execute(OWN_PATH)
    for operator, left, right in OPERATORS:
        name = f"own.is_{uuid4().hex[:8]}"
        admin.execute(
            f"CREATE FUNCTION {name}({left}, {right}) RETURNS boolean LANGUAGE sql"
            f" AS 'SELECT own.note() AND $1 OPERATOR(pg_catalog.{operator}) $2';"
            f"CREATE OPERATOR own.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {name})"
        )
    admin.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA own TO PUBLIC")
    writer = users["writer"].update_query_dict({"options": "-csearch_path=own,pg_catalog"})
    settings = Settings(signing_key=SecretStr("a key of the team's") if signed else None)
    storage = PostgresStorage(writer, settings=settings)
    store = ResultStore(result_storage=storage)
    for number in (1, 2):
        store.write(number, key="k")
    store.touch("k", None)
    store.delete("k")
    storage.close()
    assert admin.execute("SELECT DISTINCT whom FROM own.who").fetchall() == [(writer.username,)]
    owned = PostgresStorage(fresh_url)
    assert ResultStore(result_storage=owned).verify().intact
    owned.close()


def test_functions_with_their_owners_rights_find_their_tables_by_a_path_of_their_own(admin: Any) -> None:
    for name, _, options in admin.execute(OWN_TRIGGERS).fetchall():
        assert options == (None if name in PATHLESS else ["search_path=pgresults, pg_temp"]), name


MAY_RUN = {
    "bare_content(text,text,text,text)": {"sweeper", "owner"},
    "entry_digest(bytea,uuid,text,bigint,bigint,timestamp with time zone,timestamp with time zone,text,bytea)": {
        "sweeper",
        "owner",
    },
    "forget_released(integer,uuid,regclass)": {"writer", "sweeper", "owner"},
    "guard_lock()": set(),
    "held(uuid,text,regclass)": {"sweeper", "owner"},
    "keep_held()": set(),
    "keep_entry()": set(),
    "maintenance(text,regclass)": {"owner"},
    "note_hold(text,text,jsonb,text,regclass)": set(),
    "place_hold(uuid,text,text,timestamp with time zone,text,regclass)": {"writer", "auditor", "owner"},
    "project_document()": set(),
    "project_documents(boolean,regclass)": set(),
    "record_entry()": set(),
    "record_other(result,result,regclass)": set(),
    "refuse_change()": set(),
    "refuse_held(uuid,text,regclass)": set(),
    "release_hold(uuid,text,text,text,regclass)": {"auditor", "owner"},
    "end_rule(uuid,uuid,text,text,regclass)": {"sweeper", "owner"},
    "set_rule(uuid,text,text,text,text,regclass)": {"sweeper", "owner"},
    "sweep(integer,uuid,text,text,regclass)": {"sweeper", "owner"},
}
"""Every function of the schema, and the kinds of roles that may run it."""

AS_OWNER = {
    "end_rule(uuid,uuid,text,text,regclass)",
    "forget_released(integer,uuid,regclass)",
    "held(uuid,text,regclass)",
    "keep_held()",
    "place_hold(uuid,text,text,timestamp with time zone,text,regclass)",
    "project_document()",
    "record_entry()",
    "refuse_held(uuid,text,regclass)",
    "release_hold(uuid,text,text,text,regclass)",
    "set_rule(uuid,text,text,text,text,regclass)",
}
"""Those that run with the rights of the tables' owner."""

RUNS = """
SELECT p.oid::regprocedure::text, p.prosecdef FROM pg_proc p
WHERE p.pronamespace = 'pgresults'::regnamespace AND has_function_privilege(%s, p.oid, 'EXECUTE')
"""


def test_who_may_run_what(users: Any, admin: Any) -> None:
    admin.execute("SET search_path = pgresults")
    found: dict[str, set[str]] = {}
    as_owner = set()
    for name, secured in admin.execute(RUNS, [admin.info.user]).fetchall():
        found[name] = set()
        if secured:
            as_owner.add(name)
    for kind, url in users.items():
        for name, _ in admin.execute(RUNS, [url.username]).fetchall():
            found[name].add(str(kind))
    assert found == MAY_RUN
    assert as_owner == AS_OWNER


def test_functions_of_revisions_to_come_are_born_closed(empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a revision makes, the migration takes it from the public before it commits."""
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "REVISION", "0006")
        migrations.upgrade(empty_url)
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        connection.execute("CREATE FUNCTION pgresults.later() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        migrations.upgrade(empty_url)
        assert connection.execute(OPEN).fetchall() == []


def test_the_printed_statements_close_them_as_well(empty_url: URL) -> None:
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        connection.execute(migrations.ddl())
        assert connection.execute(OPEN).fetchall() == []


def test_who_swept_before_the_functions_were_closed_still_does(empty_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"pgresults_former_{uuid4().hex[:8]}"
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "REVISION", "0006")
        migrations.upgrade(empty_url)
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as connection:
        role = sql.Identifier(name)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(role))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA pgresults TO {}").format(role))
        connection.execute(
            sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgresults TO {}").format(role)
        )
        migrations.upgrade(empty_url)
        owned, storage = PostgresStorage(empty_url), PostgresStorage(empty_url.set(username=name, password="x"))
        ResultStore(result_storage=owned).write(1, key="k", expiration=datetime.now(UTC) - timedelta(hours=1))
        assert ResultStore(result_storage=storage).sweep() == 1
        owned.close()
        storage.close()
        connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


FORMERLY = """
GRANT SELECT ON ALL TABLES IN SCHEMA pgresults TO {writer}, {reader};
GRANT INSERT ON pgresults.storage, pgresults.result, pgresults.payload, pgresults.history TO {writer};
GRANT UPDATE ON pgresults.result TO {writer};
GRANT INSERT, UPDATE, DELETE ON pgresults.lock, pgresults.waiting TO {writer};
GRANT USAGE, SELECT ON SEQUENCE pgresults.fence TO {writer};
GRANT SELECT, UPDATE ON SEQUENCE pgresults.forgotten TO {writer};
GRANT ALL ON ALL TABLES IN SCHEMA pgresults TO {owner};
"""
NO_MORE = {
    "writer": (
        "INSERT INTO pgresults.history SELECT * FROM pgresults.history",
        "INSERT INTO pgresults.payload SELECT * FROM pgresults.payload",
        "DELETE FROM pgresults.lock",
        "SELECT setval('pgresults.forgotten', 7)",
        "UPDATE pgresults.lock SET key = 'another'",
        "UPDATE pgresults.lock SET db_user = 'another'",
        "INSERT INTO pgresults.storage VALUES (gen_random_uuid(), 'another', now(), gen_random_uuid())",
    ),
    "reader": ("SELECT token FROM pgresults.lock",),
    "owner": (),
}


def test_roles_from_before_keep_what_their_kind_needs_and_no_more(
    empty_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {kind: f"pgresults_former_{kind}_{uuid4().hex[:8]}" for kind in NO_MORE}
    roles = {kind: sql.Identifier(name) for kind, name in names.items()}
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "REVISION", "0006")
        migrations.upgrade(empty_url)
    with psycopg.connect(psycopg_url(empty_url), autocommit=True) as admin:
        for role in roles.values():
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(role))
            admin.execute(sql.SQL("GRANT USAGE ON SCHEMA pgresults TO {}").format(role))
        admin.execute(sql.SQL(FORMERLY).format(**roles))
        migrations.upgrade(empty_url)
        storages = {kind: PostgresStorage(empty_url.set(username=name, password="x")) for kind, name in names.items()}
        stores = {kind: ResultStore(result_storage=storage) for kind, storage in storages.items()}
        for size in (10, 3_000_000):
            stores["writer"].write(bytes(size), key="k")
            assert len(stores["reader"].read("k").result) == size
        locks = storages["writer"].lock_manager()
        assert locks.acquire_lock("k", "me")
        locks.release_lock("k", "me")
        assert locks.forget_released() == 1
        assert stores["owner"].redact("k", "law") == 2
        assert stores["reader"].verify().intact
        for kind, statements in NO_MORE.items():
            with psycopg.connect(psycopg_url(storages[kind].database.url()), autocommit=True) as connection:
                for statement in statements:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(statement)
        for storage in storages.values():
            storage.close()
        for role in roles.values():
            admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


@pytest.mark.parametrize("public", ["FUNCTION pgresults.set_rule", "ALL FUNCTIONS IN SCHEMA pgresults"])
def test_functions_that_everybody_may_call_are_found_and_closed(
    fresh_url: URL, admin: psycopg.Connection[Any], public: str
) -> None:
    """As a restore without privileges leaves them."""
    admin.execute(f"GRANT EXECUTE ON {public} TO PUBLIC")
    with pytest.raises(SchemaVersionError, match=r"everybody may call .*set_rule: run `pgresults db upgrade`"):
        migrations.require_sound(fresh_url)
    migrations.upgrade(fresh_url)
    migrations.require_sound(fresh_url)


def test_functions_of_others_in_the_schema_are_theirs(fresh_url: URL, admin: psycopg.Connection[Any]) -> None:
    admin.execute("CREATE FUNCTION pgresults.theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    migrations.require_sound(fresh_url)
