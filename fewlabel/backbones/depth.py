"""How deep in its network each parameter is, for learning rates that fall towards the input."""

import torch
from torch import nn

from fewlabel.backbones.backbone import Backbone

__all__ = ["DEPTHS", "depths_of"]

DEPTHS = 12
"""Steps of depth, as many as ConvNeXt and the base size of BEiT have for layer-wise rates, whatever a network's layers:
so one decay suits them all."""


@torch.no_grad()
def depths_of(backbone: Backbone) -> dict[str, int]:
    """The depth of each parameter by its name in `backbone`: 0 nearest to the images, `DEPTHS` - 1 to the features.

    Layers are counted in the order in which the network runs them on a blank image, which holds for every
    architecture, whoever wrote it; one that runs several times counts where it runs first. A parameter that no layer
    of its own uses is as deep as what contains it.
    """
    modes = {module: module.training for module in backbone.modules()}
    order: dict[nn.Module, int] = {}

    def note(module: nn.Module, _: object) -> None:
        order.setdefault(module, len(order))

    hooks = [module.register_forward_pre_hook(note) for module in modes]
    backbone.eval()
    try:
        like = next(backbone.parameters())
        backbone(like.new_zeros(1, backbone.in_chans, backbone.image_size, backbone.image_size))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    places: dict[str, int] = {}
    for path, module in backbone.named_modules():
        parts = path.split(".")
        ancestors = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        owner = next((one for name in ancestors if (one := backbone.get_submodule(name)) in order), backbone)
        for name, _ in module.named_parameters(prefix=path, recurse=False):
            places[name] = order.get(owner, 0)
    ranks = {place: rank for rank, place in enumerate(sorted(set(places.values())))}
    return {name: ranks[place] * DEPTHS // len(ranks) for name, place in places.items()}
