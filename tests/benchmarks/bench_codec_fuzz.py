"""Mutate compressed files of a tiny model and count how they are met.

    python -m tests.benchmarks.bench_codec_fuzz [--mutations 10000] [--seed 1]

Exits 1 if one is silently wrong, crashes, takes too long or too much memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from tests.codec.files import MUTATIONS, decode_file, encode_file, header_for, outcome
from tests.codec.tiny import tiny_model

MAX_SECONDS = 5.0
MAX_GROWTH_MIB = 256


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder))
    headers = [
        header_for(model, 2_000),
        header_for(model, 200_000),
        header_for(model, 520_000, num_channels=2),
        header_for(model, 600_000, num_channels=3, channel_sources=(0, 0, 2), sample_rate=48_000),
    ]
    files = [encode_file(model, header) for header in headers]
    truths = [decode_file(model, data) for data in files]
    generator = np.random.default_rng(arguments.seed)
    before_mib = peak_mib()
    counts: Counter[tuple[str, str]] = Counter()
    slowest = 0.0
    for number in range(arguments.mutations):
        which = number % len(files)
        kind = list(MUTATIONS)[number // len(files) % len(MUTATIONS)]
        mutated = MUTATIONS[kind](files[which], generator)
        started = time.perf_counter()
        found = outcome(model, mutated, truths[which])
        slowest = max(slowest, time.perf_counter() - started)
        if found == "same" and mutated != files[which]:
            found = "change not noticed"
        counts[kind, found] += 1
    for (kind, found), count in sorted(counts.items()):
        print(f"{kind:15} {found:10} {count:6}")
    growth_mib = peak_mib() - before_mib
    print(f"slowest {slowest:.3f} s, memory grew by {growth_mib:.0f} MiB")
    is_good = {found for _, found in counts} <= {"same", "refused"}
    return 0 if is_good and slowest < MAX_SECONDS and growth_mib < MAX_GROWTH_MIB else 1


def peak_mib() -> float:
    """Largest memory this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def bench_ten_thousand_mutations() -> None:
    assert main([]) == 0


if __name__ == "__main__":
    sys.exit(main())
