"""Sentence encoder: token numbers to one embedding; 4 layers, 4 heads, width 128, padding masked.

Source: the shape of a sentence transformer (Reimers and Gurevych, arXiv:1908.10084): embedding
        table, encoder, mean over the tokens that are not padding; normalized before each half
        of a layer.  q, k and v are products of their own.
Limits: 0.92 million parameters; sentences of ``sentences.LENGTH`` tokens, shorter ones padded.
"""

import torch
from torch import Tensor, nn

from benchmarks.networks.layers import Layer, Module
from benchmarks.networks.sentences import LENGTH, PADDING, VOCABULARY

WIDTH = 128
DEPTH = 4
HEADS = 4
HIDDEN = 512
HIDDEN_SCORE = -10000.0
"""Added to the score of padding, as BERT's exports do."""


class Encoder(Module):
    """Embed, encode, average."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Parameter(torch.randn(1, LENGTH, WIDTH) * 0.02)
        self.layers = nn.ModuleList(
            Layer(WIDTH, HEADS, LENGTH, HIDDEN, fused=False) for _ in range(DEPTH)
        )
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.table.weight, std=0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens int64 [N, LENGTH] to embeddings [N, WIDTH]."""
        known = tokens.ne(PADDING).float()
        mask = ((1.0 - known) * HIDDEN_SCORE).unsqueeze(1).unsqueeze(1)
        x = self.table(tokens) + self.position
        for layer in self.layers:
            x = layer(x, mask)
        weights = known.unsqueeze(-1)
        result: Tensor = (self.norm(x) * weights).sum(1) / weights.sum(1)
        return result


def build() -> Module:
    """Return the untrained network."""
    return Encoder()
