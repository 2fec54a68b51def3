"""What is said when a run asks for more memory than there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from audiovae.errors import ConfigError

_MARKS: Final = (
    "out of memory",  # of CUDA
    "ALLOC_FAILED",  # of its libraries
    "can't allocate memory",  # of the allocator of the CPU
    "not enough memory",
    "calculation overflowed",  # a size that no machine can count
    "multiplication overflow",
)


@contextmanager
def memory_explained() -> Iterator[None]:
    """Context in which a want of memory is one line that says what to lower.

    Raises:
        ConfigError: In its place.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch has no error of its own on the CPU
        if not isinstance(error, MemoryError) and not any(mark in str(error) for mark in _MARKS):
            raise
        raise ConfigError(
            "expected a model and a batch that fit in memory, got too little of it; lower "
            "vae.width (of a vocoder, vocoder.width) or training.batch_size"
        ) from None
