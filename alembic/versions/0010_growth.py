"""Indexes under which no question costs more as the history grows.

Ranges of a BRIN index that nobody has summarized count as matches: after some loads all of them did, and a look at
the last minute read the whole history. B-trees that grow at their right end cost a write about a microsecond each.
"""

from alembic import op

revision = "0010"
down_revision = "0009"

_INDEXES = {
    "history_at_idx": "history (at)",
    "history_xid_idx": "history (xid)",
    "history_actor_idx": "history (actor)",
}


def upgrade() -> None:
    for name, target in _INDEXES.items():
        op.execute(f"DROP INDEX IF EXISTS {name}")
        op.execute(f"CREATE INDEX {name} ON {target}")


def downgrade() -> None:
    for name in _INDEXES:
        op.execute(f"DROP INDEX {name}")
    for name in ("at", "xid"):
        op.execute(f"CREATE INDEX history_{name}_idx ON history USING brin ({name}) WITH (autosummarize = 'on')")
