"""What the token networks written here share: images to tokens, and how linear layers begin."""

import torch
from torch import Tensor, nn

__all__ = ["PatchTokens", "initialize_linear"]


class PatchTokens(nn.Module):
    """Patches as tokens with a learned position table: (B, C, S, S) -> (B, (S / patch_size)^2, width).

    A convolution of kernel and stride `patch_size` is the linear map of each flattened patch.

    Attributes:
        positions: (1, tokens, width), initially truncated normal of standard deviation 0.02.

    Source: Dosovitskiy et al. 2020, arXiv:2010.11929, eq. 1.
    """

    def __init__(self, image_size: int, patch_size: int, in_chans: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_chans, width, patch_size, patch_size)
        self.positions = nn.Parameter(torch.empty(1, (image_size // patch_size) ** 2, width))
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of `images`, row by row."""
        tokens: Tensor = self.project(images).flatten(2).transpose(1, 2) + self.positions
        return tokens


def initialize_linear(module: nn.Module) -> None:
    """Fill a linear layer from a truncated normal of standard deviation 0.02, its bias with 0; for `Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
