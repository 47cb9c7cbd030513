"""The functions on the coordinator of a schema that is spread over several servers; see `distribution`.

Locks are there alone: what proves one calls the function that changes the key in the same transaction.
"""

from pgresults.sql.bulk import ARRAYS, SHARED
from pgresults.sql.schema import result
from pgresults.sql.shard_functions import CHANGED, GIVEN, SAID, WRITTEN, column_type, declared, type_of

PROOF = {"guard": "text", "of_holder": "text", "of_fence": "bigint", "token": "uuid"}
"""What a change proves about the lock of its key."""


def _passed(types: dict[str, str]) -> str:
    return ", ".join(f"_{name}" for name in types)


_PROVES = f"""
CREATE OR REPLACE FUNCTION {{schema}}.proves(_storage_id uuid, _key text, {declared(PROOF)}) RETURNS boolean
LANGUAGE plpgsql SET search_path = {{schema}}, pg_temp AS $$
DECLARE
    _seen record;
BEGIN
    -- The row stays as it is until the transaction ends: who takes the lock over waits.
    SELECT l.holder, l.fence, l.token,
           NOT l.released AND (l.expires_at IS NULL OR l.expires_at > clock_timestamp()) AS held
    INTO _seen FROM {{schema}}.lock l WHERE l.storage_id = _storage_id AND l.key = _key FOR SHARE;
    IF _guard = 'fence' THEN
        RETURN coalesce(_seen.fence = _of_fence AND _seen.token = _token AND _seen.held, false);
    END IF;
    RETURN NOT coalesce(_seen.held AND _seen.holder <> _of_holder, false);
END
$$
"""  # noqa: S608 (the names are ours)

_WRITE_PROVEN = f"""
CREATE OR REPLACE FUNCTION {{schema}}.write_proven({declared(GIVEN)}, {declared(PROOF)})
{WRITTEN}
LANGUAGE plpgsql SET search_path = {{schema}}, pg_temp AS $$
BEGIN
    IF {{schema}}.proves(_storage_id, _key, {_passed(PROOF)}) THEN
        RETURN QUERY SELECT w.version, w.created_at, w.expires_at FROM {{schema}}.write_version({_passed(GIVEN)}) w;
    END IF;
END
$$
"""  # noqa: S608 (the names are ours)

_CHANGE_PROVEN = f"""
CREATE OR REPLACE FUNCTION {{schema}}.change_proven({declared(SAID)}, {declared(PROOF)})
{CHANGED}
LANGUAGE plpgsql SET search_path = {{schema}}, pg_temp AS $$
BEGIN
    IF {{schema}}.proves(_storage_id, _key, {_passed(PROOF)}) THEN
        RETURN QUERY SELECT c.version, c.at, c.seq FROM {{schema}}.change_head({_passed(SAID)}) c;
    END IF;
END
$$
"""  # noqa: S608 (the names are ours)

MANY = {f"{name}_array": f"{type_of(kind)}[]" for name, kind in ARRAYS.items()} | {
    name: column_type(result.c[name]) for name in ("storage_id", "provenance", "holder", *SHARED)
}


def _one_of_many() -> str:
    """What `write_version` is called with for one of many rows, each of which says some of it itself."""
    shared = {name: f"_{name}" for name in ("storage_id", *SHARED)}
    said = {name: f"_one.{name}" for name in ARRAYS} | shared
    said |= {name: f"_its_{name}" for name in ("provenance", "holder", "tags")} | {"derived_from": "_its_parents"}
    return ", ".join(said.get(name, "NULL") for name in GIVEN)


_WRITE_MANY = f"""
CREATE OR REPLACE FUNCTION {{schema}}.write_many({declared(MANY)}, _guarded boolean)
RETURNS TABLE (key text, version bigint, created_at timestamptz, expires_at timestamptz)
LANGUAGE plpgsql SET search_path = {{schema}}, pg_temp AS $$
DECLARE
    _one record;
    _its_provenance jsonb;
    _its_holder text;
    _its_tags text[];
    _its_parents text[];
BEGIN
    FOR _one IN
        SELECT * FROM unnest({", ".join(f"_{name}_array" for name in ARRAYS)}) AS given ({", ".join(ARRAYS)})
    LOOP
        _its_holder := coalesce(_one.holder, _holder);
        CONTINUE WHEN _guarded
            AND NOT {{schema}}.proves(_storage_id, _one.key, 'not held', _its_holder, NULL, NULL);
        -- Here, because a cast would be sent along and is none on the other server.
        _its_provenance := coalesce(_one.provenance::jsonb, _provenance);
        _its_tags := _one.tags::text[];
        _its_parents := _one.derived_from::text[];
        RETURN QUERY
        SELECT _one.key, w.version, w.created_at, w.expires_at FROM {{schema}}.write_version({_one_of_many()}) w;
    END LOOP;
END
$$
"""  # noqa: S608 (the names are ours)

_LOCKED_KEYS = """
CREATE OR REPLACE FUNCTION {schema}.locked_keys(_storage_id uuid, _holder text) RETURNS text[]
LANGUAGE sql SET search_path = {schema}, pg_temp AS $$
    SELECT coalesce(array_agg(l.key), '{{}}') FROM {schema}.lock l
    WHERE l.storage_id = _storage_id AND NOT l.released
      AND (l.expires_at IS NULL OR l.expires_at > clock_timestamp()) AND l.holder IS DISTINCT FROM _holder
      AND CASE WHEN l.beacon IS NULL THEN true
               WHEN pg_try_advisory_lock_shared(l.beacon) THEN NOT pg_advisory_unlock_shared(l.beacon)
               WHEN l.backend IS NULL THEN true
               ELSE EXISTS (
                   SELECT FROM pg_locks b
                   WHERE b.locktype = 'advisory' AND b.objsubid = 1 AND b.granted AND b.pid = l.backend
                     AND (b.classid::bigint << 32 | b.objid::bigint) = l.beacon
               ) END
$$
"""

_END_ALL = """
CREATE OR REPLACE FUNCTION {schema}.end_all(
    _storage_id uuid, _keys text[], _actor text, _holder text, _fence bigint, _reason text, _content bytea,
    _guarded boolean
) RETURNS TABLE (ended bigint, obstacle text)
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
#variable_conflict use_variable
DECLARE
    _one text;
BEGIN
    ended := 0;
    IF _guarded THEN
        SELECT min(seen.key) INTO obstacle FROM (
            SELECT l.key, NOT l.released AND (l.expires_at IS NULL OR l.expires_at > clock_timestamp())
                   AND l.holder IS DISTINCT FROM _holder AS held
            FROM {schema}.lock l WHERE l.storage_id = _storage_id AND l.key = ANY (_keys) FOR SHARE
        ) seen WHERE seen.held;
    END IF;
    IF obstacle IS NULL THEN
        FOREACH _one IN ARRAY _keys LOOP
            PERFORM c.seq FROM {schema}.change_head(_one, _storage_id, 'delete', _actor, _holder, _fence, _reason,
                                                    _content, NULL) c;
            ended := ended + FOUND::integer;
        END LOOP;
    END IF;
    RETURN NEXT;
END
$$
"""

_SWEEP = """
CREATE OR REPLACE FUNCTION {schema}.sweep(
    batch_size integer DEFAULT 1000, only_storage uuid DEFAULT NULL, who text DEFAULT session_user,
    as_holder text DEFAULT NULL, home regclass DEFAULT {result}::regclass
) RETURNS bigint
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
DECLARE
    due record;
    swept bigint := 0;
    content bytea := bare_content('expire', who, as_holder, NULL);
    locked text[];
BEGIN
    IF has_function_privilege('forget_released(integer, uuid, regclass)', 'EXECUTE') THEN
        PERFORM forget_released(batch_size, only_storage);
    END IF;
    SELECT coalesce(array_agg(s.id::text || held.key), '{{}}') INTO locked
    FROM storage s CROSS JOIN LATERAL unnest(locked_keys(s.id, as_holder)) AS held(key);
    FOR due IN
        SELECT r.storage_id, r.key FROM result r
        WHERE r.expires_at <= statement_timestamp() AND r.payload_id IS NOT NULL
          AND (only_storage IS NULL OR r.storage_id = only_storage) AND (r.storage_id::text || r.key) <> ALL (locked)
        ORDER BY r.expires_at LIMIT batch_size
    LOOP
        PERFORM c.seq FROM change_head(due.key, due.storage_id, 'expire', who, as_holder, NULL, NULL, content, NULL) c;
        swept := swept + FOUND::integer;
    END LOOP;
    RETURN swept;
END
$$
"""

_REGISTER = """
CREATE OR REPLACE FUNCTION {schema}.register_storage(_id uuid, _name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {schema}, pg_temp AS $$
BEGIN
    IF NOT has_any_column_privilege(session_user, {storage}, 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for table storage' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- The identity is for the server to say, which sends it to the others.
    INSERT INTO storage (id, name, created_at) VALUES (_id, _name, statement_timestamp()) ON CONFLICT DO NOTHING;
END
$$
"""

_NO_DOCUMENTS = """
CREATE OR REPLACE FUNCTION {schema}.project_documents(
    wanted boolean DEFAULT true, home regclass DEFAULT {result}::regclass
)
RETURNS void
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    IF wanted THEN
        RAISE EXCEPTION 'results that are spread over several servers are not projected as documents'
            USING ERRCODE = 'feature_not_supported', HINT = 'Read the payloads, or describe results by tags.';
    END IF;
END
$$
"""

_NO_MAINTENANCE = """
CREATE OR REPLACE FUNCTION {schema}.maintenance(reason text, home regclass DEFAULT {result}::regclass)
RETURNS void
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'a history that is spread over several servers cannot be opened'
        USING ERRCODE = 'feature_not_supported', HINT = 'What must be gone is redacted; payloads are retained.';
END
$$
"""

_CERTAIN = """
CREATE OR REPLACE FUNCTION {schema}.certain() RETURNS TABLE (bound bigint, until timestamptz)
LANGUAGE plpgsql SET search_path = {schema}, pg_temp AS $$
DECLARE
    _server record;
    _patience timestamptz := clock_timestamp() + interval '10 seconds';
BEGIN
    -- Numbers of transactions are each server's own. But entries are no older than their transactions: what is older
    -- than all that are open is certain. Of a prepared one is not known when it began.
    bound := 9223372036854775807; -- says nothing
    <<once_more>>
    LOOP
        until := clock_timestamp();
        FOR _server IN
            SELECT success, result FROM run_command_on_all_nodes($command$
                SELECT CASE
                    WHEN EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database()) THEN 'prepared'
                    WHEN EXISTS (
                        SELECT FROM pg_stat_activity
                        WHERE datname = current_database() AND backend_type = 'client backend'
                          AND pid <> pg_backend_pid() AND query = '<insufficient privilege>'
                    ) THEN 'hidden'
                    ELSE (
                        SELECT least(clock_timestamp(), min(xact_start))::text FROM pg_stat_activity
                        WHERE datname = current_database() AND backend_type = 'client backend'
                          AND pid <> pg_backend_pid()
                    )
                END
            $command$)
        LOOP
            IF NOT _server.success THEN
                RAISE EXCEPTION 'a server of the cluster does not say which transactions are open: %', _server.result;
            ELSIF _server.result = 'prepared' THEN
                IF clock_timestamp() > _patience THEN
                    RAISE EXCEPTION 'a transaction over several servers is prepared and does not end'
                        USING HINT = 'SELECT recover_prepared_transactions() ends what a crash has left.';
                END IF;
                PERFORM pg_sleep(0.05);
                CONTINUE once_more;
            ELSIF _server.result = 'hidden' THEN
                RAISE EXCEPTION 'permission denied: % may not see which transactions are open', session_user
                    USING ERRCODE = 'insufficient_privilege', HINT = 'GRANT pg_read_all_stats to the role that seals.';
            END IF;
            until := least(until, _server.result::timestamptz);
        END LOOP;
        EXIT;
    END LOOP;
    until := until - interval '1 microsecond';
    RETURN NEXT;
END
$$
"""

_GUARDS = """
CREATE OR REPLACE FUNCTION {schema}.missing_guards() RETURNS TABLE (trigger text, of text)
LANGUAGE sql SET search_path = {schema}, pg_temp AS $$
    SELECT 'append_only', format('history_%s', shardid) FROM run_command_on_shards({history}, $command$
        SELECT count(*) FROM pg_trigger
        WHERE tgrelid = '%s'::regclass AND tgfoid = {refuse_on_shard}::regproc AND tgenabled = 'A'
    $command$)
    WHERE NOT success OR result <> '1'
$$
"""

NAMES = (
    "proves",
    "write_proven",
    "change_proven",
    "write_many",
    "locked_keys",
    "end_all",
    "certain",
    "missing_guards",
    "register_storage",
)
"""The functions that were not there before."""

FUNCTIONS = (
    _PROVES,
    _WRITE_PROVEN,
    _CHANGE_PROVEN,
    _WRITE_MANY,
    _LOCKED_KEYS,
    _END_ALL,
    _SWEEP,
    _REGISTER,
    _NO_DOCUMENTS,
    _NO_MAINTENANCE,
    _CERTAIN,
    _GUARDS,
)
"""What creates or renews them."""
