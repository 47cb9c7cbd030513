"""Transactions: results that are stored together or not at all, under locks if asked."""

from pgresults.transactions.blocks import atransaction, transaction
from pgresults.transactions.states import CommitMode, IsolationLevel, TransactionState
from pgresults.transactions.transaction import Transaction, get_transaction

__all__ = [
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "atransaction",
    "get_transaction",
    "transaction",
]
