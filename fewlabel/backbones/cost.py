"""What a backbone costs, counted operation by operation and never assumed."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.meta import without_weights

__all__ = ["count_flops", "count_parameters"]

aten = torch.ops.aten


def count_parameters(backbone: Backbone) -> int:
    """Trainable numbers in `backbone`; it may be on the meta device."""
    return sum(parameter.numel() for parameter in backbone.parameters())


def count_flops(backbone: Backbone) -> int:
    """Floating-point operations of the forward pass of one image, a multiplication and an addition being two.

    Torch's counter knows matrix products, convolutions and attention; the following it misses, so they are added: a
    Fourier transform of n numbers, 5 n log2 n if complex and half of that if real (the usual count, Van Loan 1992,
    section 1.2); a product of complex numbers, 6; involution's sum over its kernel, 2 K^2 an output. Other element-wise
    operations (activations, norms, residual sums) count nothing, as in published figures.

    Args:
        backbone: on the meta device; it is left in eval mode.
    """
    image = torch.empty(1, backbone.in_chans, backbone.image_size, backbone.image_size, device="meta")
    counter = FlopCounterMode(display=False, custom_mapping=_MISSED)
    with without_weights(), torch.no_grad(), counter:
        backbone.eval()(image)
    return int(counter.get_total_flops())


def _transform(real: Callable[[Any, Any], Tensor]) -> Callable[..., int]:
    """The count of a transform over some dimensions; `real` picks the side, of input and output, that sets its size."""

    def count(values: Tensor, dimensions: list[int], *rest: Any, out_val: Tensor, **keywords: Any) -> int:
        full = real(values, out_val)
        transformed = math.prod(full.shape[dimension] for dimension in dimensions)
        each = 5.0 if values.is_complex() and out_val.is_complex() else 2.5
        return round(each * full.numel() * math.log2(transformed))

    count._get_raw = True  # type: ignore[attr-defined]
    return count


def _complex_product(left: Tensor, right: Tensor, *rest: Any, out_val: Tensor, **keywords: Any) -> int:
    return 6 * out_val.numel() if out_val.is_complex() else 0


_complex_product._get_raw = True  # type: ignore[attr-defined]

_MISSED = {
    aten._fft_r2c: _transform(lambda values, out: values),
    aten._fft_c2c: _transform(lambda values, out: values),
    aten._fft_c2r: _transform(lambda values, out: out),
    aten.mul: _complex_product,
}
