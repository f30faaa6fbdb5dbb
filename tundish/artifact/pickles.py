"""Whether bytes are a pickle, found out without running one.

Protocols 0 and 1 have no magic, and 0 is plain ASCII: a pickle in a `.txt` looks like text. So its opcodes are read,
with the depth of the stack that they would work on and nothing on it, until they stop, call something, or make no
sense.
"""

import io
import pickletools
from typing import Any

#: Bytes that are looked at. What could still be a pickle there is taken for one.
LOOK = 1 << 20
_IMPORTS = {"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}
_CALLS = {"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}


def is_pickle(head: bytes) -> bool:
    """Whether `pickle.load` would get to the end of these first LOOK bytes of a file, or would call anything on its
    way: what is broken behind a call does not take the call back."""
    file = io.BytesIO(head)
    stack, imported = _Depth(), False
    try:
        for opcode, _, _ in pickletools.genops(file):
            if not stack.follow(opcode):
                return False
            imported = imported or opcode.name in _IMPORTS
            if opcode.name == "STOP" or (imported and opcode.name in _CALLS):
                return True
    except (ValueError, OverflowError):
        return len(head) >= LOOK and file.tell() == len(head)
    return False


class _Depth:
    """How deep a pickle's stack is, and where its marks are."""

    def __init__(self) -> None:
        self._depth = 0
        self._marks: list[int] = []

    def follow(self, opcode: Any) -> bool:
        """False where the opcode finds not on the stack what it takes."""
        takes, leaves = opcode.stack_before, opcode.stack_after
        if pickletools.markobject in takes:
            if not self._marks:
                return False
            self._depth = self._marks.pop()
            takes = takes[: takes.index(pickletools.markobject)]
        elif opcode.name == "POP" and self._marks and self._marks[-1] == self._depth:
            self._marks.pop()
            return True
        under = self._marks[-1] if self._marks else 0
        if self._depth - len(takes) < under:
            return False
        self._depth -= len(takes)
        if pickletools.markobject in leaves:
            self._marks.append(self._depth)
        else:
            self._depth += len(leaves)
        return True
