"""Layers that several of the networks share.

Units:  images [N, channels, H, W], tokens [N, tokens, width].
Limits: attention is written out as matrix products and a softmax, as exporters write it; the
        number of tokens is fixed, so that no shape is computed in the exported graph.
"""

from torch import Tensor, nn


class Module(nn.Module):  # type: ignore[misc]  # PyTorch is not among the types that are checked
    """The one place that says so to mypy."""


def conv(
    into: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> tuple[Module, Module]:
    """Return a padded convolution without a bias and its batch normalization."""
    first = nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return first, nn.BatchNorm2d(out)


class Attention(Module):
    """Multi-head self-attention; with ``fused`` q, k and v come from one product."""

    def __init__(self, width: int, heads: int, tokens: int, *, fused: bool) -> None:
        super().__init__()
        self.heads, self.tokens, self.size = heads, tokens, width // heads
        count = 1 if fused else 3
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width // count) for _ in range(count))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; ``mask`` [N, 1, 1, tokens] is added to the scores."""
        split = (-1, self.tokens, self.heads, self.size)
        if len(self.qkv) == 1:
            parts = self.qkv[0](x).reshape(-1, self.tokens, 3, self.heads, self.size)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (linear(x).reshape(split).transpose(1, 2) for linear in self.qkv)
        scores = (q * self.size**-0.5) @ k.transpose(-2, -1)
        if mask is not None:
            scores = scores + mask
        mixed = scores.softmax(-1) @ v
        joined = mixed.transpose(1, 2).reshape(-1, self.tokens, self.heads * self.size)
        result: Tensor = self.out(joined)
        return result


class Layer(Module):
    """A transformer layer that normalizes before each half (pre-LN), with GELU between products."""

    def __init__(self, width: int, heads: int, tokens: int, hidden: int, *, fused: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, tokens, fused=fused)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.gelu = nn.GELU()
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map [N, tokens, width] to the same."""
        x = x + self.attention(self.norm1(x), mask)
        result: Tensor = x + self.down(self.gelu(self.up(self.norm2(x))))
        return result
