"""How Alembic meets the database: one transaction, one lock, one schema, no qualified names in the revisions."""

from alembic import context

from pgresults.database import migrations
from pgresults.sql.schema import SCHEMA, VERSION_TABLE


def run(connection, **target):
    """Run the revisions with the schema first in the search path."""
    schema = context.config.attributes.get("schema", SCHEMA)
    lock_timeout = context.config.attributes.get("lock_timeout", 30.0)
    context.configure(connection=connection, version_table=VERSION_TABLE, version_table_schema=schema, **target)
    with context.begin_transaction():
        exists = context.config.attributes.get("exists", False)
        for statement in migrations.preamble(schema, lock_timeout, connection, exists):
            context.execute(statement)
        context.run_migrations()
        context.execute(migrations.closing(schema))


if context.is_offline_mode():
    run(None, dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, as_sql=True, literal_binds=True)
else:
    run(context.config.attributes["connection"])
