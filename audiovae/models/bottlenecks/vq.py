"""The VQ bottleneck: a latent is a sum of codebook entries, one of each residual stage.

VQ-VAE (van den Oord et al., 2017, arXiv:1711.00937) with residual stages and codebooks that
follow a moving average (Razavi et al., 2019, arXiv:1906.00446; SoundStream, Zeghidour et al.,
2021, arXiv:2107.03312). The gradient passes straight through the choice of entries; entries that
hardly anything chooses are replaced by vectors of the batch, which is also how they begin.

The prior of an index is a choice among a few learned distributions, the rows of a table: the
prior's features, and the index of the stage before, say which row. So a file can be coded with
whole numbers: floating point only picks rows, and where two are nearly tied the encoder says
which it was (`codec/code_indices.py`). The row is a hidden decision as in a mixture of experts
(Jacobs et al., 1991); training minimises the bits expected under its probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from audiovae.config import BottleneckConfig
from audiovae.models.bottlenecks import BottleneckKind, LatentSample
from audiovae.models.code_table import CodeTable

_DEAD_SHARE = 0.03
"""An entry chosen less often than this share of its even share is replaced."""
_SMOOTHING = 1e-4  # of a row's probabilities, in all


class Bottleneck(nn.Module):
    """Residual vector quantisation of one latent group, and the prior of its indices."""

    has_rate = True
    codes: Tensor
    usage: Tensor
    sums: Tensor
    row_counts: Tensor

    def __init__(self, config: BottleneckConfig, channels: int) -> None:
        """Begin with empty codebooks and rows that differ at random."""
        super().__init__()
        self.config = config
        stages, codes, rows = config.codebooks, config.codes, config.prior_rows
        self.posterior_channels = channels
        self.prior_channels = stages * rows
        self.transitions = nn.Parameter(torch.zeros(stages - 1, codes, rows))
        self.register_buffer("codes", torch.zeros(stages, codes, channels))
        self.register_buffer("usage", torch.zeros(stages, codes))
        self.register_buffer("sums", torch.zeros(stages, codes, channels))
        draw = torch.softmax(torch.randn(stages, rows, codes), dim=2)
        self.register_buffer("row_counts", draw / rows)

    def draw(
        self,
        posterior: Tensor,
        prior: Tensor,
        mask: Tensor,
        generator: torch.Generator | None,
    ) -> LatentSample:
        """Quantise with gradients; while training, let codebooks and rows follow the data."""
        target = posterior.float()
        # Never in half precision: distances subtract nearly equal numbers.
        with torch.autocast(target.device.type, enabled=False):
            learn_from = mask[:, 0].flatten() if self.training else None
            indices = self.indices_of(target.detach(), learn_from)
            latent = self.vectors_of(indices)
            logits = self.row_logits(prior, indices)  # [batch, stage, row, step]
            chances = torch.softmax(logits, dim=2)
            if learn_from is not None:
                self._follow_rows(chances.detach(), indices, learn_from)
            bits = (chances * self._bits_of_rows(indices)).sum(dim=2)
        # Far from every entry the straight gradient is wrong: stay near.
        distance = (target - latent).square().sum(dim=1, keepdim=True)
        straight = target + (latent - target).detach()
        return LatentSample(straight, bits, self.config.commitment_weight * distance)

    def settle(self, posterior: Tensor, prior: Tensor) -> LatentSample:
        """Quantise; bits are those of an ideal entropy coder."""
        indices = self.indices_of(posterior.float())
        return LatentSample(self.vectors_of(indices), self.index_bits(indices, prior))

    def generate(
        self, prior: Tensor, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Draw the index of each stage under the row that the prior chooses."""
        chosen: list[Tensor] = []
        for stage in range(self.config.codebooks):
            rows = self.stage_logits(prior, stage, chosen[-1] if chosen else None).argmax(dim=1)
            weights = self._log_probabilities()[stage][rows]  # [batch, step, code]
            chosen.append(_draw_index(weights, temperature, generator))
        return self.vectors_of(torch.stack(chosen, dim=1))

    def indices_of(self, target: Tensor, learn_from: Tensor | None = None) -> Tensor:
        """Entries `[batch, stage, step]` nearest to what the stages before leave of a target.

        Args:
            target: `[batch, channel, step]`.
            learn_from: `[vector]` of 0 and 1, all steps of all items in a row: which of them the
                codebooks follow.
        """
        batch, channels, steps = target.shape
        residual = target.transpose(1, 2).reshape(-1, channels)  # [vector, channel]
        found = []
        for index in range(self.config.codebooks):
            if learn_from is not None:
                self._revive(index, residual, learn_from)
            indices = _nearest(residual, self.codes[index])
            chosen = self.codes[index][indices]
            if learn_from is not None:
                self._follow(index, residual, indices, learn_from)
            residual = residual - chosen
            found.append(indices.reshape(batch, steps))
        return torch.stack(found, dim=1)

    def vectors_of(self, indices: Tensor) -> Tensor:
        """The latent `[batch, channel, step]` of indices `[batch, stage, step]`."""
        parts = [codes[indices[:, stage]] for stage, codes in enumerate(self.codes)]
        return torch.stack(parts).sum(dim=0).transpose(1, 2)

    def stage_logits(self, prior: Tensor, stage: int, previous: Tensor | None) -> Tensor:
        """How much each row is for an index of a stage.

        Args:
            prior: `[batch, stage * row, step]`, raw.
            stage: Which.
            previous: `[batch, step]`, the index of the stage before.

        Returns:
            `[batch, row, step]`.
        """
        rows = self.config.prior_rows
        logits = prior[:, stage * rows : (stage + 1) * rows].float()
        if previous is None:
            return logits
        return logits + self.transitions[stage - 1][previous].transpose(1, 2)

    def row_logits(self, prior: Tensor, indices: Tensor) -> Tensor:
        """`stage_logits` of all stages, `[batch, stage, row, step]`, when all indices are known."""
        logits = [
            self.stage_logits(prior, stage, indices[:, stage - 1] if stage else None)
            for stage in range(self.config.codebooks)
        ]
        return torch.stack(logits, dim=1)

    def index_bits(self, indices: Tensor, prior: Tensor) -> Tensor:
        """`[batch, stage, step]`: bits of indices of that shape under the rows chosen for them."""
        rows = self.row_logits(prior, indices).argmax(dim=2, keepdim=True)
        return self._bits_of_rows(indices).gather(2, rows)[:, :, 0]

    def probabilities(self) -> Tensor:
        """`[stage, row, code]`."""
        counts = self.row_counts
        smooth = counts + _SMOOTHING * counts.sum(dim=2, keepdim=True) / self.config.codes
        return smooth / smooth.sum(dim=2, keepdim=True).clamp(min=1e-30)

    def _log_probabilities(self) -> Tensor:
        return self.probabilities().clamp(min=1e-30).log()

    def _bits_of_rows(self, indices: Tensor) -> Tensor:
        """`[batch, stage, row, step]`: bits of each index under every row."""
        bits = -self._log_probabilities() / math.log(2.0)
        parts = [table.T[indices[:, stage]] for stage, table in enumerate(bits)]
        return torch.stack(parts, dim=1).transpose(2, 3)

    @torch.no_grad()
    def _follow(self, stage: int, residual: Tensor, indices: Tensor, learn_from: Tensor) -> None:
        """Move a codebook's averages towards a batch, and its entries with them."""
        keep = self.config.codebook_decay
        share = (1 - keep) / learn_from.sum().clamp(min=1)
        chosen = functional.one_hot(indices, self.config.codes).to(residual)  # [vector, code]
        chosen = chosen * (share * learn_from)[:, None]
        self.usage[stage].mul_(keep).add_(chosen.sum(dim=0))
        self.sums[stage].mul_(keep).add_(chosen.T @ residual)
        self.codes[stage].copy_(self.sums[stage] / self.usage[stage].clamp(min=1e-12)[:, None])

    @torch.no_grad()
    def _revive(self, stage: int, residual: Tensor, learn_from: Tensor) -> None:
        """Put vectors of the batch in place of entries that are hardly used."""
        codes = self.config.codes
        dead = self.usage[stage] < _DEAD_SHARE / codes  # [code]
        chances = learn_from + (learn_from.sum() == 0)  # something, where nothing is signal
        picks = torch.multinomial(chances, codes, replacement=True)
        fresh = residual[picks]
        self.codes[stage].copy_(torch.where(dead[:, None], fresh, self.codes[stage]))
        self.sums[stage].copy_(torch.where(dead[:, None], fresh / codes, self.sums[stage]))
        self.usage[stage].masked_fill_(dead, 1.0 / codes)

    @torch.no_grad()
    def _follow_rows(self, chances: Tensor, indices: Tensor, learn_from: Tensor) -> None:
        """Move each row towards the indices that it is chosen for."""
        keep = self.config.codebook_decay
        for stage in range(self.config.codebooks):
            weights = chances[:, stage].transpose(1, 2).flatten(0, 1)  # [vector, row]
            weights = weights * learn_from[:, None] / learn_from.sum().clamp(min=1)
            chosen = functional.one_hot(indices[:, stage].flatten(), self.config.codes)
            counts = weights.T @ chosen.to(weights)  # [row, code]
            self.row_counts[stage].mul_(keep).add_(counts, alpha=1 - keep)


def _nearest(vectors: Tensor, codes: Tensor) -> Tensor:
    """`[vector]`: the entry `[code, channel]` nearest to each `[vector, channel]`."""
    return (codes.square().sum(dim=1) - 2 * vectors @ codes.T).argmin(dim=1)


def _draw_index(
    log_weights: Tensor, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """An index `[batch, step]` drawn by `[batch, step, code]`; the likeliest at temperature 0."""
    if temperature <= 0:
        return log_weights.argmax(dim=2)
    chances = torch.softmax(log_weights / temperature, dim=2)
    drawn = torch.multinomial(chances.flatten(0, 1), 1, generator=generator)
    return drawn.reshape(chances.shape[:2])


def table_of(_config: BottleneckConfig, groups: Sequence[BottleneckKind]) -> CodeTable:
    """The table of a trained model."""
    chances = [group.probabilities() for group in groups if isinstance(group, Bottleneck)]
    return CodeTable.of_probabilities(torch.stack(chances).detach().double().cpu().numpy())


def table_from(tensors: Mapping[str, Tensor]) -> CodeTable:
    """The table that a model file stored."""
    return CodeTable.from_tensors(tensors)
