"""Batch normalisation over all processes.

Statistics of one process's share would tell which images came together, which a contrastive loss can use to cheat
(SimCLR, section 2.1, "Global BN").
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

__all__ = ["GlobalBatchNorm", "synchronize_batch_norm"]


class _Sum(torch.autograd.Function):
    """The sum of a tensor over processes, forwards and backwards."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class GlobalBatchNorm(nn.Module):
    """Batch norm with the statistics of all processes, for devices where torch's SyncBatchNorm has no kernel.

    Takes over the parameters, buffers and (timm's fused) activation of `norm`, under the same names.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.momentum = norm.weight, norm.bias, norm.eps, norm.momentum
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.drop: nn.Module = getattr(norm, "drop", nn.Identity())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Normalise `(B, C, ...)` over the batch and places of every process."""
        values = images.float()
        shape = (1, -1) + (1,) * (values.ndim - 2)
        if self.training:
            axes = [0, *range(2, values.ndim)]
            count = values.new_tensor([values.numel() / values.shape[1]])
            sums = _Sum.apply(torch.cat([values.sum(axes), count]))
            number = sums[-1].detach()
            mean = sums[:-1] / number
            centred = values - mean.view(shape)
            variance = _Sum.apply(centred.square().sum(axes)) / number
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * number / (number - 1), share)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normal = values * scale.view(shape) + (self.bias - mean * scale).view(shape)
        activated: Tensor = self.act(self.drop(normal.to(images.dtype)))
        return activated


def synchronize_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Make every batch norm in `module` take its statistics over all processes; names in the state dict stay."""
    if device.type == "cuda":
        from timm.layers.norm_act import convert_sync_batchnorm

        converted: nn.Module = convert_sync_batchnorm(module)
        return converted
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, GlobalBatchNorm(child))
        else:
            synchronize_batch_norm(child, device)
    return module
