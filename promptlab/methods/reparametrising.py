"""Vectors that come out of a small net while they are fitted, and stand alone afterwards."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Vectors(nn.Module):
    """Trainable vectors, by themselves or through a net.

    The net adds to what the vectors start from, and its last layer starts at zero, so that the first answer is the
    start whatever the kind. `mlp` looks at each vector alone (residual prompt tuning, Razdaibiedina et al. 2023),
    `lstm` at all of them in order, both ways (P-tuning, Liu et al. 2021, section 3.2).

    Args:
        start: what the vectors are before they are fitted, float.
        kind: `none`, `mlp` or `lstm`.
    """

    def __init__(self, start: Float[Tensor, "soft dim"], kind: str) -> None:
        super().__init__()
        self.vectors = nn.Parameter(start.detach().float().clone())
        self._fixed: Tensor | None = None
        self.reader: nn.LSTM | None = None
        self.net: nn.Sequential | None = None
        if kind == "none":
            return
        width = start.shape[1]
        if kind == "lstm":
            self.reader = nn.LSTM(width, width // 2, bidirectional=True, batch_first=True)
        inner = 2 * (width // 2) if kind == "lstm" else width
        self.net = nn.Sequential(nn.Linear(inner, width), nn.ReLU(), nn.Linear(width, width))
        nn.init.zeros_(self.net[2].weight)  # type: ignore[arg-type]  # a Sequential does not say what its layers are
        nn.init.zeros_(self.net[2].bias)  # type: ignore[arg-type]  # as above
        self.to(start.device)

    def forward(self) -> Float[Tensor, "soft dim"]:
        """The vectors as they are now."""
        if self._fixed is not None:
            return self._fixed
        if self.net is None:
            return self.vectors
        read = self.vectors if self.reader is None else self.reader(self.vectors[None])[0][0]
        moved: Tensor = self.vectors + self.net(read)
        return moved

    def fix(self) -> Float[Tensor, "soft dim"]:
        """Compute the vectors a last time and give those from now on."""
        with torch.no_grad():
            self._fixed = self().detach().clone()
        return self._fixed
