"""Transactions: where they stand, how they are seen through, and what they mean."""

from poolkit.transaction.states import ALLOWED, State, Step, begin_options
from poolkit.transaction.transaction import Lender, Transaction, current_transaction

__all__ = [
    "ALLOWED",
    "Lender",
    "State",
    "Step",
    "Transaction",
    "begin_options",
    "current_transaction",
]
