"""Artifacts: the weights of a model and the small files beside them, pushed once, named by their SHA-256.

An artifact is a list of files (`manifest.py`), and its name is the hash of that list. What its files may hold is judged
by their bytes (`screen.py`), when they are pushed (`push.py`) and before each load (`cache.py`): data, and no code.
"""

from tundish.artifact.cache import Cache, CacheError, Held
from tundish.artifact.manifest import Listed, Manifest
from tundish.artifact.push import push
from tundish.artifact.refused import Refused

__all__ = ["Cache", "CacheError", "Held", "Listed", "Manifest", "Refused", "push"]
