"""Trainings that take more memory than there is, told apart from those that fail otherwise."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["OutOfMemory", "giving_memory_back"]

_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
"""Of torch's allocators on GPU and CPU, and of a GPU's libraries, in small letters."""


class OutOfMemory(MemoryError):
    """A training took more memory than there is."""


@contextmanager
def giving_memory_back(accelerator: "Accelerator") -> Iterator[None]:
    """Train within; afterwards the memory is free for the next training, however this one ended.

    Raises:
        OutOfMemory: memory ran out within, on this process. Of several, the others may wait for it for ever.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in _SIGNS):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        # The error holds the frames, and these the tensors.
        traceback.clear_frames(error.__traceback__)
    finally:
        # Else the accelerator would keep every network that it has ever prepared.
        accelerator.free_memory()
    raise OutOfMemory(f"out of memory: {reason}")
