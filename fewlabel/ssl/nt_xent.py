"""NT-Xent, the loss of SimCLR, in tiles: memory grows with the batch, not with its square.

For unit vectors z of the 2N views in the batch, temperature t and the other view p(i) of view i
(arXiv 2002.05709, equation 1 and algorithm 1):

    loss = 1/2N sum_i [ log S_i - z_i.z_p(i) / t ],    S_i = sum_(j != i) exp(z_i.z_j / t)

The matrix of exp(z_i.z_j / t) is symmetric, which is used twice. The tiles below its diagonal need no
computing: each tile above it counts for its rows and, transposed, for its columns. And the gradient of the
first term,

    d/dz_i = 1/2Nt sum_(j != i) exp(z_i.z_j / t) (1/S_i + 1/S_j) z_j,

has in 1/S_j all that z_i does to the losses of the other views, so that of several processes each needs the
others' z and S, but no gradients. The backward pass computes the tiles anew rather than keep them.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["nt_xent"]

_TILE_SIDE = {"cpu": 1024, "cuda": 4096}
"""A tile of float32 stays in a CPU's cache at 4 MB; a GPU wants fewer, larger products."""

_LEAST_TEMPERATURE = {torch.float32: 1 / 64, torch.float64: 1 / 512}
"""Unit vectors have logits within +-1/temperature. From these temperatures on their exponentials, the sums of
these and the reciprocals of the sums are normal numbers for any batch: no running maximum is needed."""


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised temperature-scaled cross entropy of N pairs of views among their 2N - 1 candidates.

    Computed in float32 also under autocast and for half-precision input, in float64 for float64 input and for
    temperatures below 1/64. Differentiable once. On a GPU, products are as exact as
    `torch.set_float32_matmul_precision` says.

    Over several processes (an initialised `torch.distributed`) the candidates are the views of all of them.
    It is then a collective operation: every process calls it, with equally many pairs. The result is the mean
    over this process's views. The mean over processes of these results, and of the gradients of the
    parameters, as DistributedDataParallel takes it, are those of one process with the concatenated batch.

    Args:
        first: `(N, D)` floating-point projections of one view of each image, of any length.
        second: the same images' other view, in the same order.
        temperature: 1/512 or more.

    Returns:
        The loss, a scalar of float32; of float64 for float64 input.

    Raises:
        ValueError: shapes that don't fit together, no pairs, or a temperature out of range.

    Source: Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
    arXiv 2002.05709, equation 1 and algorithm 1.
    """
    if first.ndim != 2 or first.shape != second.shape or len(first) == 0:
        raise ValueError(
            "two (N, D) tensors of the same shape with N > 0 expected, "
            f"not {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if not _LEAST_TEMPERATURE[torch.float64] <= temperature < math.inf:
        raise ValueError(f"temperature {temperature} is not a finite number from 1/512 up")
    result = torch.promote_types(first.dtype, torch.float32)
    exact = torch.float64 if temperature < _LEAST_TEMPERATURE[torch.float32] else result
    # Scaled so that a product of two views is a logit.
    views = F.normalize(torch.cat([first, second]).to(exact), dim=1) * temperature**-0.5
    one, other = views.chunk(2)
    loss: Tensor = _MeanLogSumExp.apply(views) - (one * other).sum(dim=1).mean()
    return loss.to(result)


class _MeanLogSumExp(torch.autograd.Function):
    """Mean over this process's views `(2n, D)` of the log-sum-exp of products with all other views.

    The products are taken in place or into a given tensor, which autocast leaves alone.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        views = _gather(own)
        sums = own.new_zeros(len(own))
        for rows, columns, mirrored, tile in _tiles(views, len(own)):
            sums[rows] += tile.sum(dim=1)
            if mirrored:
                sums[columns] += tile.sum(dim=0)
        ctx.save_for_backward(views, _gather(sums))
        ctx.own = len(own)
        return sums.log().mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> Tensor:
        views, sums = ctx.saved_tensors
        inverse = sums.reciprocal()
        gradient = torch.zeros_like(views[: ctx.own])
        for rows, columns, mirrored, tile in _tiles(views, ctx.own):
            tile *= inverse[rows, None] + inverse[columns]
            gradient[rows].addmm_(tile, views[columns])
            if mirrored:
                gradient[columns].addmm_(tile.T, views[rows])
        return gradient.mul_(scale / ctx.own)


def _gather(own: Tensor) -> Tensor:
    """`own` of all processes along the first axis, this process's part first."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return own
    everyone = own.new_empty(dist.get_world_size() * len(own), *own.shape[1:])
    dist.all_gather_into_tensor(everyone, own.contiguous())
    return everyone.roll(-dist.get_rank() * len(own), dims=0)


def _tiles(views: Tensor, own: int) -> Iterator[tuple[slice, slice, bool, Tensor]]:
    """The exponentials of the products of the first `own` views with all, without those with themselves.

    Yields rows, columns, whether the tile stands for its mirror image as well, and the tile: a buffer that
    the next one overwrites.
    """
    total, side = len(views), _TILE_SIDE.get(views.device.type, 4096)
    buffer = views.new_empty(min(side, own) * min(side, total))
    for top in range(0, own, side):
        rows = slice(top, min(top + side, own))
        for left in (*range(top, own, side), *range(own, total, side)):
            columns = slice(left, min(left + side, own if left < own else total))
            height, width = rows.stop - rows.start, columns.stop - columns.start
            tile = buffer[: height * width].view(height, width)
            torch.mm(views[rows], views[columns].T, out=tile).exp_()
            if left == top:
                tile.fill_diagonal_(0)
            yield rows, columns, top < left < own, tile
