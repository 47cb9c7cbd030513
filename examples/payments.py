"""An exactly-once payment job: the payment, the balances and the receipt are committed by one database transaction.

    python examples/payments.py

Kill it at any point and run it again, or run it many times at once: every invoice is paid exactly once. It works on two
tables of its own, example_account and example_payment, on the embedded server or in the database that
PGRESULTS_DATABASE_URL names.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Engine,
    Identity,
    MetaData,
    Table,
    Text,
    create_engine,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from pgresults import ResultStore, get_default_result_storage, transaction
from pgresults.transactions import IsolationLevel

INVOICES = {"2030-001": ("paper mill", 120_00), "2030-002": ("printer", 75_50), "2030-003": ("paper mill", 18_25)}
OURS = "ours"

metadata = MetaData()
account = Table(
    "example_account",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("cents", BigInteger, CheckConstraint("cents >= 0"), nullable=False),
)
payment = Table(
    "example_payment",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("invoice", Text, nullable=False),  # not even unique: the result's key sees to that
    Column("cents", BigInteger, nullable=False),
    Column("paid_at", DateTime(timezone=True), server_default=func.now(), nullable=False),
)


def pay(engine: Engine, store: ResultStore, invoice: str, owner: str, cents: int) -> str:
    """Pay an invoice, unless it is paid.

    The key is locked from begin to end, so of several payers one pays and the others wait to see that; the lock of one
    that was killed is free at once. Rows and receipt become visible together, when `engine.begin` commits, or never.
    """
    key = f"examples/payments/{invoice}"
    with (
        engine.begin() as connection,
        transaction(key, store, isolation_level=IsolationLevel.SERIALIZABLE, connection=connection) as txn,
    ):
        if txn.is_committed():
            return f"{invoice}: was paid already, payment {txn.read().result['payment']}"
        number = connection.execute(
            payment.insert().values(invoice=invoice, cents=cents).returning(payment.c.id)
        ).scalar_one()
        for name, change in ((OURS, -cents), (owner, cents)):
            connection.execute(update(account).where(account.c.owner == name).values(cents=account.c.cents + change))
        txn.stage({"payment": number, "invoice": invoice, "cents": cents, "to": owner})
    return f"{invoice}: paid {cents / 100:.2f} to the {owner}, payment {number}"


def open_accounts(engine: Engine) -> None:
    """Make the tables and the accounts that are not there yet."""
    opened: list[dict[str, Any]] = [{"owner": OURS, "cents": 1000_00}]
    opened += [{"owner": owner, "cents": 0} for owner in sorted({owner for owner, _ in INVOICES.values()})]
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(2030)))  # programs that start at once make them in turn
        metadata.create_all(connection)
        connection.execute(insert(account).on_conflict_do_nothing(), opened)


def main() -> None:
    """Pay all invoices and show the books."""
    storage = get_default_result_storage()
    store = ResultStore(result_storage=storage, lock_manager=storage.lock_manager(), serializer="json")
    engine = create_engine(storage.database.url())
    open_accounts(engine)
    for invoice, (owner, cents) in INVOICES.items():
        print(pay(engine, store, invoice, owner, cents))
    with engine.connect() as connection:
        for owner, cents in connection.execute(select(account.c.owner, account.c.cents).order_by(account.c.owner)):
            print(f"{owner:>12} {cents / 100:9.2f}")


if __name__ == "__main__":
    main()
