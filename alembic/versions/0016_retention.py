"""Rules of retention, which a sweep carries out; what goes when; and all that happened, with whatever it was about."""

from alembic import op

revision = "0016"
down_revision = "0015"

_PLACE = "'00000000-0000-0000-0000-000000000000'"
_HOME = "(SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = home)"
_HERE = f"""
    -- Before anything else: what the path leads to may be another schema of the same kind, or anybody's.
    IF current_setting('search_path') IS DISTINCT FROM quote_ident({_HOME}) || ', pg_temp' THEN
        RAISE EXCEPTION 'this function of schema % would work on another one: %', {_HOME},
                        current_setting('search_path')
            USING ERRCODE = 'invalid_schema_name', HINT = 'Run `pgresults db upgrade` for this schema.';
    END IF;"""

# As with holds, a rule is what its entry's reason says, which the digest covers; its key's row is the rule itself.
_RULES = f"""
CREATE VIEW retention_rules AS
SELECT coalesce(s.name, u.said ->> 'storage') AS storage, u.said ->> 'prefix' AS prefix,
       CASE WHEN u.said ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(u.said -> 'tags')) END AS tags,
       u.said ->> 'task' AS task, (u.said ->> 'versions')::bigint AS versions,
       justify_hours((u.said ->> 'age')::interval) AS age,
       justify_hours((u.said ->> 'redact_after')::interval) AS redact_after,
       u.said ->> 'reason' AS reason, u.at AS since, u.actor, u.db_user,
       substr(u.key, 6)::uuid AS id, (u.said ->> 'storage')::uuid AS storage_id
FROM (
    SELECT r.key, r.at, r.actor, r.db_user, CASE WHEN r.action = 'rule' THEN r.reason::jsonb END AS said
    FROM result r
    WHERE r.storage_id = {_PLACE} AND r.key >= 'rule/' AND r.key < 'rule0' AND r.action = 'rule'
) u LEFT JOIN storage s ON s.id = (u.said ->> 'storage')::uuid
"""  # noqa: S608 (the names are ours)

# What every rule lets go goes, so each time is the latest of all rules. Days are 24 hours in every time zone.
_LONGER = "least({at}, timestamptz '9999-12-31') + extract(epoch FROM {span}) * interval '1 second'"
_WROTE = """(
           SELECT h.{} FROM history h
           WHERE h.storage_id = r.storage_id AND h.key = r.key AND h.action IN ('write', 'import')
           ORDER BY h.seq DESC LIMIT 1
       )"""
"""What the last version said, whose head says no more of it."""

_DUE = f"""
CREATE VIEW retention_due AS
WITH rule AS MATERIALIZED (
    SELECT u.storage_id, u.prefix, u.tags, u.task, u.id, u.versions, u.age, u.redact_after FROM retention_rules u
), covered AS NOT MATERIALIZED (
    SELECT r.storage_id, r.key, r.version AS newest, r.payload_id AS current, r.created_at AS written, u.id, u.versions,
           u.age, u.redact_after
    FROM rule u
    JOIN result r ON r.storage_id = u.storage_id
    WHERE starts_with(r.key, u.prefix)
       OR u.tags IS NOT NULL AND CASE
           WHEN r.payload_id IS NOT NULL THEN r.tags ELSE {_WROTE.format("tags")}
       END @> u.tags
       OR u.task IS NOT NULL AND u.task = CASE
           WHEN r.payload_id IS NOT NULL THEN r.provenance ELSE {_WROTE.format("provenance")}
       END #>> '{{task,name}}'
), gone AS NOT MATERIALIZED (
    SELECT c.storage_id, c.key, h.version, 'retain' AS action, 1 AS payloads, h.size AS bytes,
           array_agg(c.id ORDER BY c.id) AS rules,
           max(greatest(
               CASE WHEN c.versions IS NULL AND c.age IS NULL THEN timestamptz 'infinity' ELSE s.at END,
               CASE WHEN c.versions IS NOT NULL AND h.version > c.newest - c.versions THEN timestamptz 'infinity' END,
               {_LONGER.format(at="s.at", span="c.age")}
           )) AS due
    FROM covered c
    JOIN history h ON h.storage_id = c.storage_id AND h.key = c.key AND h.action IN ('write', 'import')
                  AND h.payload_id IS DISTINCT FROM c.current
    JOIN payload p ON p.storage_id = h.storage_id AND p.key = h.key AND p.payload_id = h.payload_id AND p.chunk = 0
    CROSS JOIN LATERAL (
        SELECT l.at FROM history l
        WHERE l.storage_id = h.storage_id AND l.key = h.key AND l.seq > h.seq
          AND l.action NOT IN ('touch', 'retain', 'break')
        ORDER BY l.seq LIMIT 1
    ) s
    GROUP BY c.storage_id, c.key, h.version, h.size
    UNION ALL
    SELECT c.storage_id, c.key, NULL AS version, 'redact' AS action, k.payloads, k.bytes,
           array_agg(c.id ORDER BY c.id) AS rules,
           max(CASE WHEN c.redact_after IS NULL THEN timestamptz 'infinity'
                    ELSE {_LONGER.format(at="c.written", span="c.redact_after")} END) AS due
    FROM covered c
    CROSS JOIN LATERAL (
        SELECT count(*) AS payloads, sum(h.size)::bigint AS bytes
        FROM history h
        JOIN payload p ON p.storage_id = h.storage_id AND p.key = h.key AND p.payload_id = h.payload_id AND p.chunk = 0
        WHERE h.storage_id = c.storage_id AND h.key = c.key AND h.action IN ('write', 'import')
        HAVING count(*) > 0
    ) k
    GROUP BY c.storage_id, c.key, k.payloads, k.bytes
)
SELECT coalesce(s.name, g.storage_id::text) AS storage, g.key, g.version, g.action, g.due, g.payloads, g.bytes,
       EXISTS (
           SELECT FROM holds d
           WHERE d.storage_id = g.storage_id AND (
               d.key = g.key OR starts_with(g.key, d.prefix) OR d.tags IS NOT NULL AND EXISTS (
                   SELECT FROM history e
                   WHERE e.storage_id = g.storage_id AND e.key = g.key AND e.tags @> d.tags
               )
           )
       ) AS held, g.rules, g.storage_id
FROM gone g LEFT JOIN storage s ON s.id = g.storage_id
WHERE g.due < 'infinity'
"""  # noqa: S608 (the names are ours)

_ACTIVITY = f"""
CREATE VIEW activity AS
SELECT a.at, coalesce(s.name, a.said ->> 'storage', a.storage_id::text) AS storage,
       CASE WHEN a.said IS NULL THEN a.key ELSE a.said ->> 'key' END AS key, a.action, a.version, a.actor, a.db_user,
       CASE WHEN a.said IS NULL THEN a.reason ELSE coalesce(a.said ->> 'ended', a.said ->> 'released',
                                                            a.said ->> 'reason') END AS reason,
       a.said - ARRAY['storage', 'reason', 'released', 'ended'] AS about, a.tags,
       a.provenance #>> '{{task,name}}' AS task,
       a.provenance #>> '{{flow,name}}' AS flow, a.size, a.holder, a.seq,
       coalesce((a.said ->> 'storage')::uuid, a.storage_id) AS storage_id
FROM (
    SELECT h.storage_id, h.key, h.action, h.at, h.version, h.actor, h.db_user, h.reason, h.tags, h.provenance, h.size,
           h.holder, h.seq,
           CASE WHEN h.storage_id = {_PLACE} AND h.action IN ('hold', 'release', 'rule', 'repeal')
                     THEN h.reason::jsonb END AS said
    FROM history h
) a LEFT JOIN storage s ON s.id = coalesce((a.said ->> 'storage')::uuid, a.storage_id)
"""  # noqa: S608 (the names are ours)

_SET_RULE = f"""
CREATE FUNCTION set_rule(of_storage uuid, covers text, keeps text, why text, who text DEFAULT session_user,
                         home regclass DEFAULT 'result'::regclass) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    id constant uuid := gen_random_uuid();
    scope constant jsonb := covers::jsonb;
    bounds constant jsonb := keeps::jsonb;
    longest constant interval := '1000 years';
BEGIN{_HERE}
    IF of_storage IS NULL OR coalesce(why, '') = '' OR (CASE
        WHEN jsonb_typeof(scope) <> 'object' OR (SELECT count(*) FROM jsonb_object_keys(scope)) <> 1 THEN true
        WHEN scope ? 'tags' THEN NOT coalesce(
            jsonb_typeof(scope -> 'tags') = 'array' AND scope -> 'tags' <> '[]'
            AND NOT jsonb_path_exists(scope, 'strict $.tags[*] ? (@.type() != "string")'), false)
        WHEN scope ? 'task' THEN jsonb_typeof(scope -> 'task') <> 'string'
        ELSE coalesce(jsonb_typeof(scope -> 'prefix'), '') <> 'string'
    END) THEN
        RAISE EXCEPTION 'a rule has a storage, a reason and one of prefix, tags and task, not %', covers
            USING ERRCODE = 'invalid_text_representation';
    ELSIF (CASE
        WHEN jsonb_typeof(bounds) <> 'object' OR bounds = '{{}}'
             OR bounds - ARRAY['versions', 'age', 'redact_after'] <> '{{}}' THEN true
        ELSE (bounds ->> 'versions')::bigint < 1 OR (bounds ->> 'age')::interval NOT BETWEEN '0' AND longest
             OR (bounds ->> 'redact_after')::interval NOT BETWEEN '0' AND longest
             OR jsonb_path_exists(bounds, 'strict $.* ? (@ == null)')
    END) THEN
        RAISE EXCEPTION 'a rule keeps a number of versions, for an age, or redacts after a time, not %', keeps
            USING ERRCODE = 'invalid_text_representation';
    END IF;
    -- As a hold: who takes away has seen the rules that are there.
    LOCK TABLE hold_gate IN EXCLUSIVE MODE;
    IF NOT EXISTS (
        SELECT FROM pg_trigger t WHERE t.tgrelid = 'payload'::regclass AND t.tgname = 'keep_held' AND t.tgenabled <> 'D'
    ) THEN
        RAISE EXCEPTION 'no rules are carried out here: the tables are spread over several servers, or altered'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    UPDATE hold_gate SET changes = changes + 1;
    PERFORM note_hold('rule/' || id, 'rule',
                      scope || bounds || jsonb_build_object('storage', of_storage, 'reason', why), who);
    RETURN id;
END
$$
"""  # noqa: S608 (the names are ours)

_END_RULE = f"""
CREATE FUNCTION end_rule(of_storage uuid, of_id uuid, why text, who text DEFAULT session_user,
                         home regclass DEFAULT 'result'::regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    standing jsonb;
BEGIN{_HERE}
    IF coalesce(why, '') = '' THEN
        RAISE EXCEPTION 'say why the rule ends' USING ERRCODE = 'invalid_text_representation';
    END IF;
    -- What this rule alone has kept goes after it has ended, not before.
    LOCK TABLE hold_gate IN EXCLUSIVE MODE;
    SELECT r.reason::jsonb INTO standing FROM result r
    WHERE r.storage_id = {_PLACE} AND r.key = 'rule/' || of_id AND r.action = 'rule' FOR UPDATE;
    IF standing ->> 'storage' IS DISTINCT FROM of_storage::text THEN
        RETURN false;
    END IF;
    PERFORM note_hold('rule/' || of_id, 'repeal', standing || jsonb_build_object('ended', why), who);
    RETURN true;
END
$$
"""  # noqa: S608 (the names are ours)

_CORRECTIONS = """
DO $do$
DECLARE
    correction record;
    found record;
    corrected text;
BEGIN
    FOR correction IN VALUES
        ('record_other', $$h.action IN ('hold', 'release')$$,
         $$h.action IN ('hold', 'release', 'rule', 'repeal')$$),
        ('held', $$PERFORM FROM hold_gate FOR SHARE;$$,
         $$PERFORM FROM hold_gate FOR SHARE;
        IF NOT EXISTS (SELECT FROM hold_gate) THEN
            RAISE EXCEPTION 'no hold could be seen: the row of hold_gate is gone'
                USING ERRCODE = 'serialization_failure';
        END IF;$$)
    LOOP
        SELECT pg_get_functiondef(p.oid) AS definition INTO STRICT found
        FROM pg_proc p
        WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname = correction.column1;
        corrected := replace(found.definition, correction.column2, correction.column3);
        IF corrected = found.definition THEN
            RAISE EXCEPTION 'the function %() is not the one that an upgrade made', correction.column1;
        END IF;
        EXECUTE corrected;
    END LOOP;
END
$do$
"""

# Also what is not the data: without it the data cannot be read, and by it another trigger would come to change data.
_KEPT = (
    "DROP TRIGGER keep_held ON payload",
    "CREATE TRIGGER keep_held BEFORE DELETE OR UPDATE ON payload FOR EACH ROW EXECUTE FUNCTION keep_held()",
)

_LET = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee, f.granted
        FROM pg_class c
        CROSS JOIN LATERAL aclexplode(c.relacl) a
        JOIN (VALUES
            ('history', 'SELECT', 'SELECT ON activity, retention_rules, retention_due'),
            ('history', 'TRUNCATE', 'ALL ON activity, retention_rules, retention_due'),
            ('payload', 'DELETE', 'EXECUTE ON FUNCTION set_rule(uuid, text, text, text, text, regclass)'),
            ('payload', 'DELETE', 'EXECUTE ON FUNCTION end_rule(uuid, uuid, text, text, regclass)')
        ) AS f(source, privilege, granted) ON c.oid = f.source::regclass AND a.privilege_type = f.privilege
        WHERE a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s TO %s', held.granted, held.grantee);
    END LOOP;
END
$$
"""
"""Who reads the history reads what goes and what happened; who sweeps, or owns, sets rules."""


def upgrade() -> None:
    # Unless it is named last, the schema of temporary tables comes before all others.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    for statement in (_RULES, _DUE, _ACTIVITY, _SET_RULE, _END_RULE, _CORRECTIONS, *_KEPT, _LET):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("rules would be entries of no meaning: restore a backup from before the upgrade instead")
