"""A backbone with the preprocessing that it was trained with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.pixels import Images, as_batch, match_channels

__all__ = ["Featurizer"]


class Featurizer(nn.Module):
    """Images -> features: `backbone` behind resizing and normalisation.

    Args:
        backbone: (B, C, H, W) -> (B, num_features); shared, not copied, and arranged (see `Backbone.arrange`).
        mean: of each channel on the [0, 1] scale, over the training images.
        std: likewise.
    """

    mean_values: Tensor
    std_values: Tensor

    def __init__(self, backbone: Backbone, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        backbone.arrange()
        self.backbone = backbone
        self.num_features = backbone.num_features
        self.image_size = backbone.image_size
        self.mean, self.std = tuple(mean), tuple(std)
        shape = (1, backbone.in_chans, 1, 1)
        self.register_buffer("mean_values", torch.tensor(self.mean).view(shape), persistent=False)
        self.register_buffer("std_values", torch.tensor(self.std).view(shape), persistent=False)

    def preprocess(self, images: Images) -> Tensor:
        """What the backbone was trained to see of `images`.

        Args:
            images: a tensor (B, C, h, w), uint8, uint16 or float in [0, 1], or a list of PIL images and
                arrays (h, w, C) or (h, w) of any sizes. Grey and colour convert into each other.

        Returns:
            (B, in_chans, image_size, image_size) float32 on this module's device. The whole image is squashed
            to the square with antialiasing: every pixel is seen, none is cropped. Then normalised.

        Raises:
            UserError: pixels that can't be understood; the message says which and why.
        """
        pixels = as_batch(images, self.image_size, self.backbone.in_chans, self.mean_values.device)
        return self.normalize(pixels)

    def normalize(self, pixels: Tensor) -> Tensor:
        """`pixels` (B, C, h, w) float32, black 0 and white 1, with the backbone's channels and statistics.

        Raises:
            UserError: C channels can't be turned into the backbone's.
        """
        return (match_channels(pixels, self.backbone.in_chans) - self.mean_values) / self.std_values

    def forward(self, images: Images) -> Tensor:
        """Features (B, num_features) of `images`, as `preprocess` takes them."""
        features: Tensor = self.backbone(self.preprocess(images))
        return features
