"""Training of a VAE whose timbre code holds the instrument, and nothing else does.

What is played is taken from one instrument, how it sounds from another phrase of a second one,
and the truth, the first phrase on the second instrument, is the target. So the latents gain
nothing by holding the instrument, for which the rate would make them pay, and the code nothing
by holding the phrase. Every pair is also taken the other way round, and the latents of the two
have to agree. Sums of latents are decoded too, against the sum of the sounds, and scaled
ones against the scaled sound: arithmetic that is wanted has to be taught (the linear
autoencoders of Lin-CAE, 2025, do so by augmentation). A sum's code is the mean of its parts',
and a scaled sound keeps its code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import cast

import torch
from torch import Tensor, nn

from audiovae.checkpoint import Provenance, save_vae
from audiovae.config import ModelConfig
from audiovae.latents import Conditions
from audiovae.models.hvae import HVAE
from audiovae.models.latent_group import LatentGroup
from audiovae.models.output import VAEOutput
from audiovae.objectives.elbo import elbo_terms
from audiovae.pretrained import MODEL_NAME
from audiovae.spectrogram import log_mel_to_db
from audiovae.training.compiling import compiled
from audiovae.training.crops import to_device
from audiovae.training.data import Corpus, log_mel_statistics
from audiovae.training.figures import save_spectrogram_pairs
from audiovae.training.loop import Update, Validation
from audiovae.training.pair_batches import PairDraw
from audiovae.training.pairs import Pairs, PairSets
from audiovae.training.precision import autocast
from audiovae.training.state import Progress

_AGREEMENT_WEIGHT = 0.2
_DUETS_SHARE = 0.25  # of a batch's pairs that are also summed, two and two
_DUETS_FROM = 0.3  # of the run
_DUET_WEIGHT = 0.2
_FACTORS = (0.25, 2.0)
_ALONE_SHARE = 0.3  # of the sums in which one part is silent: a scaled sound
_MEASURED_PHRASES = 3
_SAME_SHARES = (1.0, 0.1)
_SAME_FALLS = (0.08, 0.2)  # from and until, of the run
_FIRST_LOG_NOISE = -2.0
_MIN_SPREAD = 1e-4


class TimbreTask:
    """The loop's view of a VAE with a timbre code.

    Attributes:
        is_warm_start: Whether it starts from weights that were trained before, so that swaps may be
            asked for at once (`same_share`).
    """

    def __init__(
        self,
        config: ModelConfig,
        sets: PairSets,
        run_dir: Path,
        device: torch.device,
        provenance: Provenance,
    ) -> None:
        """Build the model for `config` and standardise it by the pairs.

        Args:
            config: Model and training settings, with a `[timbre]` table.
            sets: What to learn from and to measure on.
            run_dir: Where model file and sample images go.
            device: Where to train.
            provenance: Written into the model file.
        """
        torch.manual_seed(config.training.seed)  # of the weights and of the bottleneck's noise
        self.config, self.run_dir, self.device = config, run_dir, device
        self.provenance = provenance
        self.model = HVAE(config)
        _quieten(self.model)
        clips = list(sets.train.log_mel)
        corpus = Corpus.of_clips(clips, [str(index) for index in range(len(clips))])
        mean, deviation = log_mel_statistics(corpus, config.spectrogram)
        self.model.mel_mean.copy_(mean)
        self.model.mel_deviation.copy_(deviation)
        self.model.to(device)
        self.networks: Mapping[str, nn.Module] = {"vae": self.model}
        self.averaged = ("vae",)
        self.is_warm_start = False
        self._draw = PairDraw(sets.train.to(device), config.spectrogram)
        self._measured = {"known": sets.known.to(device), "unknown": sets.unknown.to(device)}
        self._forward = compiled(self.model.__call__, config.training, device)
        self._timbre_of = compiled(self.model.timbre_of, config.training, device)
        self._decode = compiled(self.model.decode, config.training, device)

    def updates(self, generator: torch.Generator, progress: Progress) -> Iterator[Update]:
        """One step: the swap both ways, its agreement, the code's cost, and sums of latents."""
        training = self.config.training
        objective = self.config.objective.at(progress.fraction)
        pairs = max(1, training.batch_size // 2)
        duets = round(_DUETS_SHARE * pairs) if progress.fraction >= _DUETS_FROM else 0
        share = same_share(1.0 if self.is_warm_start else progress.fraction)
        batch = self._draw(pairs, training.crop_frames, generator, duets=duets, same_share=share)
        with autocast(training, self.device):
            posterior = self._timbre_of(batch.reference, _full_lengths(batch.reference))
            conditions = Conditions(timbre=posterior.draw())
            output: VAEOutput = self._forward(batch.source, _full_lengths(batch.source), conditions)
            summed = self._summed(output, batch.target, duets, generator)
            apart = disagreement(output, pairs)
        terms = elbo_terms(self.model, batch.target, output, objective)
        code_nats = posterior.nats().mean()
        # Per mel band, which is the size of gradients that the loop's limits are meant for.
        num_mels = self.config.spectrogram.num_mels
        loss = (terms.loss.mean() + objective.beta * code_nats / training.crop_frames) / num_mels
        loss = loss + _DUET_WEIGHT * summed + _AGREEMENT_WEIGHT * apart
        metrics = {
            "loss": loss,
            "distortion": terms.distortion.mean(),
            "log_mel_l1_db": terms.log_mel_l1_db.mean(),
            "bits_per_frame": terms.rate_bits_per_frame.mean(),
            "code_nats": code_nats,
            "sum_distortion": summed,
            "disagreement": apart,
        }
        yield Update("vae", loss, {name: value.detach() for name, value in metrics.items()})

    def _summed(
        self, output: VAEOutput, target: Tensor, duets: int, generator: torch.Generator
    ) -> Tensor:
        """Distortion of the decoded sums of neighbouring rows' latents."""
        if not duets:
            return target.new_zeros(())
        low, high = _FACTORS
        draw = torch.rand(2, duets, 1, 1, generator=generator)
        first = low * (high / low) ** draw[0]
        alone = torch.rand(duets, 1, 1, generator=generator) < _ALONE_SHARE
        second = torch.where(alone, 0.0, low * (high / low) ** draw[1])
        first, second = to_device(first, self.device), to_device(second, self.device)
        even, odd = slice(0, 2 * duets, 2), slice(1, 2 * duets, 2)
        latents = output.latents
        assert latents.timbre is not None
        both = replace(
            latents,
            groups=tuple(first * group[even] + second * group[odd] for group in latents.groups),
            num_frames=latents.num_frames[even],
            conditions=Conditions(timbre=(latents.timbre[even] + latents.timbre[odd]) / 2),
        )
        floor = self.config.spectrogram.log_floor
        parts = (target[even] + first.log(), target[odd] + second.clamp(min=1e-6).log())
        truth = (0.5 * torch.logaddexp(2 * parts[0], 2 * parts[1])).clamp(min=floor)
        error = self._decode(both, target.shape[2]) - truth
        return (error / self.model.mel_deviation[:, None]).abs().mean()

    @torch.inference_mode()
    def validate(self, averaged: Mapping[str, nn.Module], step: int) -> Validation:
        """Distance of every swap to its truth, as a share of the distance of the input to it."""
        model = cast(HVAE, averaged["vae"])
        metrics: dict[str, float] = {}
        for name, pairs in self._measured.items():
            phrases = range(min(_MEASURED_PHRASES, len(pairs.log_mel) // pairs.players))
            for phrase in phrases:
                own, swapped, copied = self._measure(model, pairs, phrase)
                for figure, value in (("swap", swapped / copied), ("own", own / copied)):
                    key = f"{figure}_{name}"
                    metrics[key] = metrics.get(key, 0.0) + value / len(phrases)
        self._draw_sample(model, step)
        return Validation(metrics)

    def _measure(self, model: HVAE, pairs: Pairs, phrase: int) -> tuple[float, float, float]:
        """Mean distances to the truth over all ordered pairs of players of one phrase.

        Returns:
            Of the phrase decoded with its own instrument's code, of the phrase decoded with
            another's, and of the phrase itself, in decibels. Codes come from the next phrase.
        """
        players, count = pairs.players, len(pairs.log_mel) // pairs.players
        clips = pairs.log_mel.float().transpose(1, 2)
        played = clips[phrase * players : (phrase + 1) * players]
        following = (phrase + 1) % count * players
        lengths = _full_lengths(played)
        with autocast(self.config.training, self.device):
            codes = model.timbre_of(clips[following : following + players], lengths).mean
            latents = model.encode(played, lengths, Conditions()).latents
        own: list[float] = []
        swapped: list[float] = []
        copied: list[float] = []
        for shift in range(players):
            under = Conditions(timbre=codes.roll(-shift, 0))
            with autocast(self.config.training, self.device):
                decoded = model.decode(replace(latents, conditions=under), clips.shape[2])
            truth = played.roll(-shift, 0)
            (swapped if shift else own).append(_distance_db(decoded, truth))
            if shift:
                copied.append(_distance_db(played, truth))
        return fmean(own), fmean(swapped), fmean(copied)

    def _draw_sample(self, model: HVAE, step: int) -> None:
        """The first known player's phrase as the last one plays it: truth above, decoded below."""
        pairs = self._measured["known"]
        last = pairs.players - 1
        clips = pairs.log_mel[: 2 * pairs.players].float().transpose(1, 2)
        lengths = _full_lengths(clips[:1])
        with autocast(self.config.training, self.device):
            code = model.timbre_of(clips[pairs.players + last][None], lengths).mean
            decoded = model.encode(clips[:1], lengths, Conditions(timbre=code)).log_mel
        image = self.run_dir / "samples" / f"step_{step:07d}.png"
        save_spectrogram_pairs(image, clips[last], decoded[0], self.config.spectrogram)

    def export(self, averaged: Mapping[str, nn.Module], progress: Progress) -> None:
        """Write `model.safetensors`."""
        model = cast(HVAE, averaged["vae"])
        provenance = self.provenance.after(progress.step, progress.seconds, progress.metrics)
        save_vae(self.run_dir / MODEL_NAME, model, provenance, ())


def disagreement(output: VAEOutput, pairs: int) -> Tensor:
    """How far the latents of one phrase on two instruments differ, of what they vary by in time.

    0 for equal ones, 1 for such as have nothing to do with each other, whatever their scale. What
    varies from clip to clip, as the level does, must not make the rest look alike.

    Args:
        output: Of a batch whose row `pairs + i` plays the phrase of row `i`.
        pairs: Half the rows.
    """
    shares = []
    for group in output.latents.groups:
        error = (group[:pairs] - group[pairs:]).square().mean(dim=(0, 2))  # [channel]
        spread = group.var(dim=2, correction=0).mean(dim=0).clamp(min=_MIN_SPREAD)
        shares.append((error / (2 * spread)).mean())
    return torch.stack(shares).mean()


def same_share(fraction: float) -> float:
    """Rows whose source is the target itself, at a point of the run.

    A decoder that is asked for another instrument at once learns loudness and mean spectrum, and
    that it can do without the latents; one that first reconstructs learns to read pitch in them.
    """
    (first, last), (start, stop) = _SAME_SHARES, _SAME_FALLS
    return first + (last - first) * min(1.0, max(0.0, fraction - start) / (stop - start))


@torch.no_grad()
def _quieten(model: HVAE) -> None:
    """Let the latents begin with little noise, for the same reason."""
    for module in model.groups:
        bias = cast(LatentGroup, module).posterior.bias
        assert bias is not None
        bias.chunk(2)[1].fill_(_FIRST_LOG_NOISE)


def _full_lengths(log_mel: Tensor) -> Tensor:
    """`[batch]`: all frames of a batch without padding."""
    batch, _, frames = log_mel.shape
    return torch.full((batch,), frames, device=log_mel.device)


def _distance_db(estimate: Tensor, truth: Tensor) -> float:
    return float(log_mel_to_db((estimate - truth).abs().mean()))
