"""Transactions: results that are stored together or not at all, under locks if asked."""

from pgresults.transactions.states import CommitMode, IsolationLevel, TransactionState
from pgresults.transactions.transaction import Transaction, atransaction, get_transaction, transaction

__all__ = [
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]
