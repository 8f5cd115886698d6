"""idle-accelerator: one self-hosted pool out of the machines that sit idle.

``from idle_accelerator import Client`` is all that most programs need. Names are
resolved on first use, so that importing the package costs an agent nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from idle_accelerator.sdk.client import AsyncClient, Client, CommandResult, JobHandle, JobOptions

__all__ = ["AsyncClient", "Client", "CommandResult", "JobHandle", "JobOptions", "__version__"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from idle_accelerator.sdk import client  # noqa: PLC0415  # lazy on purpose: see the docstring

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
