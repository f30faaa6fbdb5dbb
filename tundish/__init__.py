"""Tundish: asynchronous, queue-driven inference. A model is a class:

    from tundish import Batch, Model, Reject

Importing this costs the standard library alone.
"""

from tundish.model import Batch, DefinitionError, Model, Reject

__all__ = ["Batch", "DefinitionError", "Model", "Reject"]
