"""Transactions: results that are stored together or not at all, under locks if asked."""

from pgresults.transactions.blocks import atransaction, transaction
from pgresults.transactions.states import CommitMode, IsolationLevel, TransactionState
from pgresults.transactions.transaction import Transaction, get_transaction

AsyncTransaction = BaseTransaction = Transaction
"""The names of Prefect's kinds of transactions: here one is for both ``with`` and ``async with``."""

__all__ = [
    "AsyncTransaction",
    "BaseTransaction",
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]
