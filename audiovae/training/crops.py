"""Random crops of a corpus, drawn where the corpus is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from audiovae.training.data import Corpus, memory_bytes

_SPILL_SHARE = 8  # a crop may reach over a clip's end by an eighth, so that ends are learnt too
_READERS = 16  # threads that read crops from files
_MEMORY_SHARE = 0.5  # a batch in its own type that fills more leaves no room to learn from it


@dataclass(frozen=True)
class Crops:
    """A batch of crops.

    Attributes:
        data: `[batch, position, ...]` in the corpus's own type, zero beyond a clip's end.
        lengths: `[batch]`, positions that are signal.
        clips: `[batch]`, which clip each is of; on the CPU.
    """

    data: Tensor
    lengths: Tensor
    clips: Tensor


def draw_crops(
    corpus: Corpus, batch_size: int, crop: int, generator: torch.Generator, device: torch.device
) -> Crops:
    """Draw random crops, clips in proportion to their length.

    Args:
        corpus: Where from.
        batch_size: Crops to draw.
        crop: Positions of a crop.
        generator: A CPU generator; its state is all the randomness there is.
        device: Where the crops are wanted.

    Raises:
        MemoryError: If that is more than there can be; the system would find out late, and then
            end processes as it likes.
    """
    if batch_size * crop * corpus.arrays[0][0].nbytes > _MEMORY_SHARE * memory_bytes():
        raise MemoryError(f"a batch of {batch_size} crops of {crop} positions")
    draw = torch.rand(2, batch_size, generator=generator, dtype=torch.float64)
    clips = torch.searchsorted(corpus.ends, (draw[0] * corpus.ends[-1]).long(), right=True)
    lengths = corpus.lengths[clips]
    room = (lengths - crop + crop // _SPILL_SHARE).clamp(min=0) + 1
    places = (draw[1] * room).long()
    counts = (lengths - places).clamp(max=crop)
    starts = corpus.starts[clips] + places
    if corpus.arrays[0].is_cuda:
        data = gather(corpus, clips, starts, counts, crop)
    else:
        data = to_device(copy_pieces(corpus, clips, starts, counts, crop), device)
    return Crops(data, to_device(counts, device), clips)


def gather(corpus: Corpus, clips: Tensor, starts: Tensor, counts: Tensor, crop: int) -> Tensor:
    """All crops in one step on the device; of a corpus in one array."""
    (array,) = corpus.arrays
    steps = torch.arange(crop, device=array.device)
    positions = to_device(starts, array.device)[:, None] + steps  # [batch, position]
    inside = steps < to_device(counts, array.device)[:, None]
    inside = inside.reshape(*inside.shape, *(1 for _ in array.shape[1:]))
    return array[positions.clamp(max=len(array) - 1)] * inside


def copy_pieces(corpus: Corpus, clips: Tensor, starts: Tensor, counts: Tensor, crop: int) -> Tensor:
    """One crop after the other; of files many at once, because each copy may be a wait."""
    first = corpus.arrays[0]
    data = first.new_zeros((len(clips), crop, *first.shape[1:]))
    drawn = list(
        zip(corpus.array_of[clips].tolist(), starts.tolist(), counts.tolist(), strict=True)
    )

    def copy(rows: range) -> None:
        for row in rows:
            array, start, count = drawn[row]
            data[row, :count] = corpus.arrays[array][start : start + count]

    shares = (range(first, len(clips), _READERS) for first in range(_READERS))
    list(_readers().map(copy, shares) if corpus.mapped else map(copy, shares))
    return data


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device, without waiting for what the device is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@lru_cache(maxsize=1)
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_READERS, thread_name_prefix="crops")
