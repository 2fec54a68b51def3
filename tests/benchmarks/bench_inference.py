"""Speed of encoding and decoding, beside EnCodec in the same run.

    python -m tests.benchmarks.bench_inference [--count 16] [--device cpu] [--repeats 5]

Clips of 5 s, on a CPU by one thread. Encoding is audio to symbols: log-mel, VAE and entropy coder,
with the decoding of the codes that tells how near they came. Decoding is symbols to audio: entropy
decoder, VAE, vocoder and its default polish. `base size` has random weights; so has EnCodec 24 kHz
(`pip install encodec`), at 6 kbps and without its entropy coder. The best of interleaved repeats:
time of the processor, or of the clock on a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from audiovae.audio import Clip, Waveform, read_audio, resample
from audiovae.checkpoint import Model, load_model
from audiovae.config import ModelConfig
from audiovae.models.bottlenecks.quantized import FrequencyTable
from audiovae.models.hvae import HVAE
from audiovae.models.vocoder import Vocoder
from audiovae.reconstruct import Reconstructor
from audiovae.stretches import Coded, Signal, Stopwatch, Stretch

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SECONDS = 5
MIN_ENCODE, MIN_DECODE = 30.0, 20.0
"""Times real time that every model of ours is to reach on one core."""
ENCODEC = "EnCodec 24k"
_LOG_LAMBDA = 7.0  # about 4 kbps with the shipped model
_ENCODEC_RATE, _ENCODEC_KBPS = 24_000, 6.0


@dataclass(frozen=True)
class Contender:
    """A codec ready to run in both directions."""

    name: str
    encode: Callable[[], object]
    decode: Callable[[], object]


def main(argv: list[str] | None = None) -> dict[str, tuple[float, float]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    shipped = load_model("base", arguments.device)
    clips = example_clips(arguments.count, shipped.config.spectrogram.sample_rate)
    contenders = [
        ours("shipped", shipped, clips),
        ours("base size", with_random_weights(shipped), clips),
    ]
    if importlib.util.find_spec("encodec") is not None:
        contenders.append(encodec(clips, arguments.device))
    seconds = arguments.count * SECONDS
    speeds = measure(contenders, seconds, arguments.device, arguments.repeats)
    print(f"\n{arguments.count} clips of {SECONDS} s, {arguments.device}, times real time")
    print(f"{'':12} {'encode':>8} {'decode':>8}   of EnCodec's")
    for name, (encode, decode) in speeds.items():
        beside = speeds.get(ENCODEC, (float("nan"),) * 2)
        ratios = f"{encode / beside[0]:8.1f} {decode / beside[1]:5.1f}"
        print(f"{name:12} {encode:8.1f} {decode:8.1f} {ratios}")
    return speeds


def example_clips(count: int, sample_rate: int) -> list[Clip]:
    """The first channel of the examples, each repeated and cut to one length."""
    paths = sorted(path for path in EXAMPLES.iterdir() if path.suffix != ".md")
    clips = []
    for index in range(count):
        waveform = read_audio(paths[index % len(paths)], sample_rate=sample_rate).waveform[:1]
        samples = np.resize(waveform, (1, SECONDS * sample_rate))
        clips.append(Clip(np.ascontiguousarray(samples * 0.9**index, np.float32), sample_rate))
    return clips


def with_random_weights(shipped: Model) -> Model:
    """The default architecture, with priors that give the entropy coder something to do."""
    torch.manual_seed(0)
    config = ModelConfig()
    vae, vocoder = HVAE(config), Vocoder(config.vocoder, config.spectrogram)
    vae.mel_mean.copy_(shipped.vae.mel_mean)
    vae.mel_deviation.copy_(shipped.vae.mel_deviation)
    for group in vae.groups:
        torch.nn.init.normal_(group.get_submodule("prior").get_parameter("weight"), std=0.01)
    return replace(
        shipped,
        config=config,
        vae=vae.eval().requires_grad_(False).to(shipped.device),
        vocoder=vocoder.eval().requires_grad_(False).to(shipped.device),
        frequency_table=FrequencyTable.build(config.bottleneck),
    )


def ours(name: str, model: Model, clips: Sequence[Clip]) -> Contender:
    """What a batch of files goes through, without reading and writing them."""
    reconstructor = Reconstructor(model)
    config = model.config.spectrogram
    signals = [
        Signal(Stretch.whole(clip.num_samples, config), clip.waveform, config, 0, _LOG_LAMBDA)
        for clip in clips
    ]
    files = [
        Coded(one.stretch, (0,), {(c.channel, c.index): c for c in one.chunks}, _LOG_LAMBDA)
        for one in reconstructor.code(signals, Stopwatch())
    ]

    def decode() -> list[Waveform]:
        return reconstructor.sound(reconstructor.decode(files, Stopwatch()), Stopwatch())

    return Contender(name, lambda: reconstructor.code(signals, Stopwatch()), decode)


def encodec(clips: Sequence[Clip], device: str) -> Contender:
    """The published architecture, as its own package builds it, in one batch."""
    from encodec.model import EncodecModel

    model = EncodecModel.encodec_model_24khz(pretrained=False).eval().to(device)
    model.set_target_bandwidth(_ENCODEC_KBPS)
    waveforms = [resample(clip.waveform, clip.sample_rate, _ENCODEC_RATE) for clip in clips]
    batch = torch.from_numpy(np.stack(waveforms)).to(device)  # [batch, channel, sample]

    @torch.inference_mode()
    def encode() -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        frames: list[tuple[torch.Tensor, torch.Tensor | None]] = model.encode(batch)
        return frames

    frames = encode()
    return Contender(ENCODEC, encode, torch.inference_mode()(lambda: model.decode(frames).cpu()))


def measure(
    contenders: Sequence[Contender], seconds: float, device: str, repeats: int
) -> dict[str, tuple[float, float]]:
    """Times real time of encoding and decoding, by name."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    best = {contender.name: [float("inf")] * 2 for contender in contenders}
    for _ in range(repeats + 1):  # the first warms up, and is not the best
        for contender in contenders:
            for index, work in enumerate((contender.encode, contender.decode)):
                started = clock()
                work()
                best[contender.name][index] = min(best[contender.name][index], clock() - started)
    return {name: (seconds / encode, seconds / decode) for name, (encode, decode) in best.items()}


def bench_inference() -> None:
    speeds = main([])
    for name in ("shipped", "base size"):
        encode, decode = speeds[name]
        assert encode >= MIN_ENCODE
        assert decode >= MIN_DECODE


if __name__ == "__main__":
    main()
