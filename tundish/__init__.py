"""Tundish: asynchronous, queue-driven inference. A model is a class:

    from tundish import Batch, Model, Reject

Importing this costs the standard library alone.
"""

from tundish.file import File
from tundish.model import Batch, DefinitionError, Model, Reject

__all__ = ["Batch", "DefinitionError", "File", "Model", "Reject"]
