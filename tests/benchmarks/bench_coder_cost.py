"""Time of symbols and entropy coding as a share of the model's own.

    python -m tests.benchmarks.bench_coder_cost [--checkpoint base] [--repeats 10]

The model's own time is the VAE's when encoding, and the VAE's and vocoder's when decoding. Without
a checkpoint: the default architectures with random weights, the VAE's prior scales varied.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from audiovae.checkpoint import Model, load_model
from audiovae.codec import decode_chunks, encode_chunks
from audiovae.config import ModelConfig
from audiovae.models.vocoder import Vocoder
from tests.codec.tiny import conditions, lively_log_mel, tiny_model

FRAMES = 1024


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--vocoder", default=None)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    if arguments.checkpoint:
        model = load_model(arguments.checkpoint, vocoder=arguments.vocoder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            model = tiny_model(Path(folder), config=ModelConfig())
    vocoder = model.vocoder or Vocoder(model.config.vocoder, model.config.spectrogram).eval()
    print("one chunk of 11.9 s, one thread; milliseconds of processor time")
    for log_lambda in (4.0, 7.0, 10.0):
        report(model, vocoder, log_lambda, arguments.repeats)


@torch.no_grad()
def report(model: Model, vocoder: Vocoder, log_lambda: float, repeats: int) -> None:
    """Print one line: the model alone, and what the coder adds, for both directions."""
    log_mel, length = lively_log_mel(FRAMES, seed=0), torch.tensor([FRAMES])
    under = conditions(1, log_lambda)
    chunk = encode_chunks(model, log_mel, length, under)[0]
    latents = model.vae.encode(log_mel, length, under).latents
    times = interleaved(
        [
            lambda: model.vae.encode(log_mel, length, under),
            lambda: encode_chunks(model, log_mel, length, under),
            lambda: model.vae.decode(latents, FRAMES),
            lambda: decode_chunks(model, [chunk], FRAMES, under),
            lambda: vocoder(log_mel),
        ],
        repeats,
    )
    encode, with_encoder, decode, with_decoder, vocode = (1000 * t for t in times)
    encoder, decoder = with_encoder - encode, with_decoder - decode
    print(
        f"log_lambda={log_lambda:4.1f} payload_bytes={len(chunk.payload):6d} "
        f"vae_encode={encode:.1f} coder={encoder:.1f} ({encoder / encode:.1%}) "
        f"vae_decode={decode:.1f} vocoder={vocode:.1f} coder={decoder:.1f} "
        f"({decoder / (decode + vocode):.1%})"
    )


def interleaved(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, measured in turns so that a busy machine troubles all alike."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, taken in zip(functions, seconds, strict=True):
            started = time.process_time()
            function()
            taken.append(time.process_time() - started)
    return [median(taken[1:]) for taken in seconds]


def bench_coder_cost() -> None:
    main(["--checkpoint", "base", "--vocoder", "vocoder"])


if __name__ == "__main__":
    main()
