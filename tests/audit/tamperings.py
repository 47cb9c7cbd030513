"""What a superuser may do to a history, and by what it is found; the table in ``docs/audit.md`` has a row for each."""

from typing import NamedTuple

OFF = "ALTER TABLE pgresults.history DISABLE TRIGGER USER; ALTER TABLE pgresults.result DISABLE TRIGGER USER;"
ON = (
    "ALTER TABLE pgresults.result ENABLE TRIGGER keep_held; ALTER TABLE pgresults.result ENABLE TRIGGER keep_all_held;"
    "ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER append_only;"
    "ALTER TABLE pgresults.history ENABLE ALWAYS TRIGGER kept;"
    "ALTER TABLE pgresults.result ENABLE TRIGGER record_entry;"
)
_MAINTAINED = "storage_id = '00000000-0000-0000-0000-000000000000'"


class Tampering(NamedTuple):
    """What is done, as the page has it; ``found`` is the kind of the finding, ``by`` what finds it."""

    what: str
    by: str
    found: str
    sql: str


def _behind(sql: str) -> str:
    """Rows are changed with all triggers off, which are then on again as they were."""
    return f"{OFF} {sql}; {ON}".replace(" WHERE key", " WHERE storage_id = ID AND key")


def _rolled_back(key: str) -> str:
    return _behind(
        f"DELETE FROM pgresults.history WHERE key = '{key}' AND seq = 2; UPDATE pgresults.result r SET"
        " (seq, action, at, previous, digest, expires_at, reason) = (SELECT h.seq, h.action, h.at,"
        " h.previous, h.digest, h.expires_at, h.reason FROM pgresults.history h"
        f" WHERE h.storage_id = ID AND h.key = '{key}') WHERE key = '{key}'"
    )


ROWS = [
    Tampering("an entry's reason, tags or time is altered", "verify", "entry",
              _behind("UPDATE pgresults.history SET reason = 'other' WHERE key = 'k2' AND seq = 2")),
    Tampering("what an entry says that it was computed from is altered", "verify", "entry",
              _behind("UPDATE pgresults.history SET derived_from = '{1:other}' WHERE key = 'k2' AND seq = 2")),
    Tampering("an entry is taken out of a chain", "verify", "chain",
              _behind("DELETE FROM pgresults.history WHERE key = 'k2' AND seq = 2")),
    Tampering("two entries change places", "verify", "entry",
              _behind("UPDATE pgresults.history SET seq = -seq WHERE key = 'k2' AND seq < 3;"
                      "UPDATE pgresults.history SET seq = 3 + seq WHERE key = 'k2' AND seq < 0")),
    Tampering("a digest is replaced", "verify", "entry",
              _behind("UPDATE pgresults.history SET digest = sha256('x') WHERE key = 'k2' AND seq = 1")),
    Tampering("what is current is altered in a key's row", "verify", "head",
              _behind("UPDATE pgresults.result SET expires_at = now() + interval '1 year' WHERE key = 'k2'")),
    Tampering("a key's row is removed", "verify", "head", _behind("DELETE FROM pgresults.result WHERE key = 'k2'")),
    Tampering("a hold is taken away", "verify", "head",
              "SELECT pgresults.place_hold( ID, '{\"key\": \"k2\"}', 'why');"
              f"{OFF} DELETE FROM pgresults.result WHERE storage_id <> ID AND key LIKE 'hold/%'; {ON}"),
    Tampering("a payload's bytes are altered", "verify", "payload",
              _behind("UPDATE pgresults.payload SET data = 'x' WHERE key = 'k2'")),
    Tampering("a payload is removed", "verify", "payload", _behind("DELETE FROM pgresults.payload WHERE key = 'k2'")),
    Tampering("a payload is replaced by another key's, with its digest", "verify", "payload",
              _behind("UPDATE pgresults.payload p SET (data, salt, sha256) = (SELECT o.data, o.salt, o.sha256"
                      " FROM pgresults.payload o WHERE key = 'k1' LIMIT 1) WHERE key = 'k2'")),
    Tampering("a storage is given another name", "verify", "storage",
              "UPDATE pgresults.storage SET name = ID::text WHERE id = ID"),
    Tampering("a storage is emptied", "verify", "storage",
              f"{OFF} DELETE FROM pgresults.history WHERE storage_id = ID; DELETE FROM pgresults.result"
              f" WHERE storage_id = ID; DELETE FROM pgresults.payload WHERE storage_id = ID; {ON}"
              "UPDATE pgresults.storage SET created_at = created_at - interval '1 hour' WHERE id = ID"),
]  # fmt: skip

AROUND = [
    Tampering("a trigger that keeps the history is off or gone", "verify", "trigger",
              "ALTER TABLE pgresults.history DISABLE TRIGGER append_only"),
    Tampering("a trigger that keeps what is on hold is off or gone", "verify", "trigger",
              "DROP TRIGGER keep_held ON pgresults.payload"),
    Tampering("`held()` finds no hold", "verify", "function",
              "CREATE OR REPLACE FUNCTION pgresults.held(of_storage uuid, of_key text, home regclass DEFAULT"
              " 'pgresults.result'::regclass) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER"
              " SET search_path = pgresults, pg_temp AS 'BEGIN RETURN NULL; END'"),
    Tampering("`refuse_change()` does nothing", "verify", "function",
              "CREATE OR REPLACE FUNCTION pgresults.refuse_change() RETURNS trigger LANGUAGE plpgsql"
              " SET search_path = pgresults, pg_temp AS 'BEGIN RETURN NULL; END'"),
    Tampering("`sweep()` deletes in silence", "verify", "function",
              "DO $$ BEGIN EXECUTE (SELECT replace(pg_get_functiondef(p.oid), 'BEGIN', 'BEGIN DELETE FROM payload;')"
              " FROM pg_proc p WHERE p.proname = 'sweep'); END $$"),
    Tampering("a function of ours runs with other rights or another path", "verify", "function",
              "ALTER FUNCTION pgresults.record_entry() SECURITY INVOKER"),
    Tampering("a further function is called in place of ours", "verify", "function",
              "CREATE FUNCTION pgresults.sweep(batch bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'"),
    Tampering("a function or operator is called in place of the server's", "verify", "function",
              "CREATE FUNCTION pgresults.sha256(text) RETURNS bytea LANGUAGE sql AS $$ SELECT ''::bytea $$"),
    Tampering("a further trigger changes what is written", "verify", "trigger",
              "CREATE FUNCTION public.lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
              "CREATE TRIGGER lose BEFORE INSERT ON pgresults.history FOR EACH ROW EXECUTE FUNCTION public.lose()"),
    Tampering("a trigger fires in other cases than it should", "verify", "trigger",
              "DROP TRIGGER guarded ON pgresults.lock;"
              "CREATE TRIGGER guarded BEFORE UPDATE ON pgresults.lock FOR EACH ROW WHEN (false)"
              " EXECUTE FUNCTION pgresults.guard_lock()"),
    Tampering("a rule takes entries away", "verify", "rule",
              "CREATE RULE lose AS ON INSERT TO pgresults.history DO INSTEAD NOTHING"),
    Tampering("row security hides entries from others", "verify", "policy",
              "ALTER TABLE pgresults.history ENABLE ROW LEVEL SECURITY;"
              "CREATE POLICY hidden ON pgresults.history USING (key <> 'k2')"),
    Tampering("row security hides heads from everybody", "verify", "policy",
              "ALTER TABLE pgresults.result ENABLE ROW LEVEL SECURITY;"
              "CREATE POLICY hidden ON pgresults.result USING (key <> 'k2')"),
    Tampering("a view lies", "verify", "view",
              "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW pgresults.result_history AS ' || (SELECT"
              " replace(pg_get_viewdef('pgresults.result_history'::regclass), ';', ' WHERE h.key <> ''k2''')); END $$"),
    Tampering("a view gives up its barrier", "verify", "view",
              "ALTER VIEW pgresults.current_payloads RESET (security_barrier)"),
    Tampering("a primary key is dropped", "verify", "key",
              "ALTER TABLE pgresults.history DROP CONSTRAINT history_pkey"),
    Tampering("an index is dropped that lets nothing be stored twice", "verify", "index",
              "DROP INDEX pgresults.history_signed_once_idx"),
    Tampering("a column may be left out, or gets another default", "verify", "column",
              "ALTER TABLE pgresults.history ALTER COLUMN db_user DROP NOT NULL"),
    Tampering("fences come around again", "verify", "sequence", "ALTER SEQUENCE pgresults.fence CYCLE"),
    Tampering("a table's rows do not survive a crash", "verify", "table",
              "ALTER TABLE pgresults.history SET UNLOGGED"),
    Tampering("another table's rows show among the entries", "verify", "table",
              "CREATE TABLE public.more () INHERITS (pgresults.history)"),
    Tampering("sessions begin without triggers", "verify", "setting",
              "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica',"
              " current_database()); END $$"),
    Tampering("something belongs to somebody else", "verify", "owner",
              "ALTER FUNCTION pgresults.refuse_change() OWNER TO pg_monitor"),
    Tampering("a role may do what no kind of role may", "verify", "grant",
              "GRANT TRUNCATE ON pgresults.history TO pg_monitor"),
    Tampering("everybody may do something", "verify", "grant",
              "GRANT EXECUTE ON FUNCTION pgresults.maintenance(text, regclass) TO PUBLIC"),
]  # fmt: skip

SEALED = [
    Tampering("a key is removed with all traces", "seal", "seal",
              _behind("DELETE FROM pgresults.history WHERE key = 'k2'; DELETE FROM pgresults.result WHERE key = 'k2';"
                      "DELETE FROM pgresults.payload WHERE key = 'k2'")),
    Tampering("the end of a chain is cut off, and what was before is current again", "seal", "seal",
              _rolled_back("k3")),
    Tampering("the entry that says the history was open is removed", "seal", "seal",
              _behind(f"DELETE FROM pgresults.history WHERE {_MAINTAINED}; DELETE FROM pgresults.result"
                      f" WHERE {_MAINTAINED}")),
]  # fmt: skip

UNFOUND = [
    Tampering("the tail since the last seal is rolled back", "nothing", "", _rolled_back("k1")),
    Tampering("what no seal covers yet is removed with all traces", "nothing", "",
              _behind("DELETE FROM pgresults.history WHERE key = 'new'; DELETE FROM pgresults.result WHERE key = 'new';"
                      "DELETE FROM pgresults.payload WHERE key = 'new'")),
    Tampering("a document in the projection is altered", "nothing", "",
              "INSERT INTO pgresults.document (storage_id, key, document)"
              " SELECT id, 'k2', '{}' FROM pgresults.storage WHERE id = ID"),
    Tampering("a lock is released, or given to somebody else", "nothing", "", "TRUNCATE pgresults.lock"),
]  # fmt: skip

TAMPERINGS = [*ROWS, *AROUND, *SEALED, *UNFOUND]
