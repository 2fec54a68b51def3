"""Sound checks of the shipped model: the table of hostile signals in docs/quality.md.

python -m tests.benchmarks.bench_probes [--quality 6]
"""

from __future__ import annotations

import argparse

import torch

from audiovae.checkpoint import load_model
from tests.probes import coded, copied, probes


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quality", type=int, default=6)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    model, griffin_lim = load_model("base"), load_model("base", vocoder=None)
    print(f"| | | itself | copy synthesis | Griffin-Lim | quality {arguments.quality} |")
    print("|---|---|--:|--:|--:|--:|")
    for probe in probes():
        sounds = (
            probe.signal,
            copied(probe.signal, model),
            copied(probe.signal, griffin_lim),
            coded(probe.signal, model, arguments.quality),
        )
        cells = " | ".join(f"{probe.measure(sound):.1f}" for sound in sounds)
        print(f"| {probe.name} | {probe.figure} | {cells} |")


def bench_probes() -> None:
    main([])


if __name__ == "__main__":
    main()
