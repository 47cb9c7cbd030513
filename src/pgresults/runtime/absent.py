"""What code written for Prefect may ask for and is not here, with what to use instead."""

from types import MappingProxyType
from typing import Final

PAGE: Final = "docs/quickstart.md, 'What is not here'"

_RETRY = "a retry library such as stamina below the decorator: a failure is never stored, so a later call runs again"
_HOOKS = "try/except around the call, @my_task.on_commit and @my_task.on_rollback"
_OTHERS = "a scheduler or job queue, which calls the function"
_STATES = "the call returns the result or raises; is_cached() tells beforehand"
_LOG = "logging.getLogger(__name__)"
_NAME = "name=...; every run has a name of its own, in the context and in the provenance"
_TAGS = "tags= and provenance= of ResultStore.write; task and flow are recorded without asking"
_COERCE = "pydantic.validate_call below the decorator: parameters are taken as they are"
_THREADS = "my_task.map(...) with threads, processes= or executor=; in an executor of your own, carried(my_task)"

INSTEAD: Final = MappingProxyType(
    {
        **dict.fromkeys(("retries", "retry_delay_seconds", "retry_jitter_factor", "retry_condition_fn"), _RETRY),
        "timeout_seconds": "asyncio.timeout in the function, or the time-outs of what it calls",
        **dict.fromkeys(("log_prints", "get_run_logger"), _LOG),
        **dict.fromkeys(("task_run_name", "flow_run_name"), _NAME),
        **dict.fromkeys(("description", "version", "tags"), _TAGS),
        **dict.fromkeys(
            ("on_completion", "on_failure", "on_running", "on_cancellation", "on_crashed", "on_commit", "on_rollback"),
            _HOOKS,
        ),
        "validate_parameters": _COERCE,
        **dict.fromkeys(("submit", "task_runner"), _THREADS),
        **dict.fromkeys(
            ("delay", "apply_async", "serve", "deploy", "to_deployment", "from_source", "visualize"), _OTHERS
        ),
        "return_state": _STATES,
        "wait_for": "the order of the calls",
    }
)
"""By the name of an option, an attribute of tasks and flows, or an argument of their calls."""


def advice(name: str) -> str:
    """What to use instead of something, and where more of it stands."""
    instead = INSTEAD.get(name)
    return f"see {PAGE}" if instead is None else f"instead: {instead} (see {PAGE})"
