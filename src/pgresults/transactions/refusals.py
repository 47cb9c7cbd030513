"""What transactions refuse to do, and why."""

from pgresults.errors import ConfigurationError, MissingContextError, RolledBackError
from pgresults.transactions.states import TransactionState


def without_locks() -> ConfigurationError:
    """SERIALIZABLE is asked of a store that has no locks."""
    return ConfigurationError(
        "isolation level SERIALIZABLE needs a store with a lock manager, e.g. "
        "ResultStore(result_storage=storage, lock_manager=storage.lock_manager())",
        setting="lock_manager",
    )


def entered_before() -> MissingContextError:
    """A transaction is entered that was entered before."""
    return MissingContextError("a transaction can be entered once: make a new one with transaction(...)")


def not_within(state: TransactionState) -> MissingContextError:
    """Something is staged outside of the block, or after the rollback."""
    return MissingContextError(f"a transaction that is {state.value} cannot stage: enter it with `with`")


def rolled_back(key: str | None, failure: BaseException) -> RolledBackError:
    """A block goes on although the failure of what was in it has taken its transaction back."""
    which = "the transaction without a key" if key is None else f"the transaction of {key!r}"
    return RolledBackError(
        f"{which} was rolled back when a transaction or task in it failed ({failure!r}): nothing of it is stored, "
        "though the failure was caught. Let the failure leave the block, say rollback() where nothing is to be stored, "
        "or handle the failure in a @task, which takes back only what failed",
        key=key,
    )
