"""A row that is one of many costs less to record: its trigger's conditions are made ready once a transaction."""

from alembic import op

revision = "0014"
down_revision = "0013"

# An INSERT is made ready for every row, and all that stands in it. What an IF asks, if it reads no table, is made
# ready once in a transaction. So what is not signed asks there what it did in the insert; what is signed reads one.
# By its text, because what an entry has besides is none of its business.
_ASKED_BEFORE = r"""
DO $do$
DECLARE
    definition text;
    branch text;
    entry text;
    condition text;
    other text;
    unsigned constant text := E'    IF NEW.signature IS NULL THEN\n';
BEGIN
    SELECT pg_get_functiondef(p.oid) INTO STRICT definition FROM pg_proc p
    WHERE p.pronamespace = quote_ident(current_schema())::regnamespace AND p.proname = 'record_entry';
    branch := split_part(split_part(definition, unsigned, 2), E'    ELSE\n', 1);
    entry := split_part(branch, E'\n        WHERE (', 1);
    condition := split_part(split_part(branch, E'\n        WHERE (', 2), ') OR ', 1);
    other := split_part(branch, ') OR ', 2);
    IF branch <> format(E'%s\n        WHERE (%s) OR %s', entry, condition, other)
       OR entry !~ '^ *INSERT INTO [^\n]*\.history \(' OR other !~ '^[^\n]*\.record_other\(OLD, NEW\);\n$' THEN
        RAISE EXCEPTION 'the function record_entry() is not the one that an upgrade made';
    END IF;
    EXECUTE replace(definition, unsigned || branch, format(
        E'%s        IF (%s) THEN\n%s;\n        ELSE\n            PERFORM %s        END IF;\n',
        unsigned, condition, regexp_replace(entry, '^', '    ', 'gn'), other
    ));
END
$do$
"""


def upgrade() -> None:
    # Unless it is named last, the schema of temporary tables comes before all others.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    op.execute(_ASKED_BEFORE.replace(":", r"\:"))


def downgrade() -> None:
    raise NotImplementedError("nothing was changed that another program would notice: it goes on with this one")
