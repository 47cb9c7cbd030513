"""Functions find their tables in our schema before a session's temporary ones, which anybody may make."""

from alembic import op

revision = "0005"
down_revision = "0004"

_FUNCTIONS = (
    "sweep(integer, uuid, text, text)",
    "maintenance(text)",
    "refuse_change()",
    "project_document()",
    "project_documents(boolean)",
)


def upgrade() -> None:
    # Unless it is named last, the schema of temporary tables comes before all others.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    for function in _FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} SET search_path FROM CURRENT")


def downgrade() -> None:
    raise NotImplementedError("the history would lose what keeps it: restore a backup from before the upgrade instead")
