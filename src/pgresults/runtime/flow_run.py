"""What is known of the flow run around the caller, as attributes: ``id``, ``name``, ``flow_name``, ``parameters``.

Outside of flows they are None, the parameters empty.
"""

from typing import Any

from pgresults.context import FlowRunContext

__all__ = ["flow_name", "id", "name", "parameters"]  # noqa: F822 (given by `__getattr__`)


def __getattr__(attribute: str) -> Any:
    if attribute not in __all__:
        raise AttributeError(f"of a flow run are known {', '.join(__all__)}, not {attribute!r}")
    context = FlowRunContext.get()
    if context is None:
        return {} if attribute == "parameters" else None
    value = getattr(context.flow_run, attribute)
    return dict(value) if attribute == "parameters" else str(value)
