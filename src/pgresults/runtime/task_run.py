"""What is known of the task run around the caller, as attributes: ``id``, ``name``, ``task_name``, ``parameters``.

Outside of tasks they are None, the parameters empty.
"""

from typing import Any

from pgresults.context import TaskRunContext

__all__ = ["id", "name", "parameters", "task_name"]  # noqa: F822 (given by `__getattr__`)


def __getattr__(attribute: str) -> Any:
    if attribute not in __all__:
        raise AttributeError(f"of a task run are known {', '.join(__all__)}, not {attribute!r}")
    context = TaskRunContext.get()
    if context is None:
        return {} if attribute == "parameters" else None
    value = getattr(context.task_run, attribute)
    return dict(value) if attribute == "parameters" else str(value)
