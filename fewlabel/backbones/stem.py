"""The small-image stem: keep resolution where an ImageNet stem would throw a small image away."""

from torch import nn

__all__ = ["use_small_stem"]


def use_small_stem(model: nn.Module) -> list[str]:
    """Change a fresh convolutional timm `model` in place so that it starts at full resolution.

    An ImageNet stem reduces 32 px fourfold before the first block. Here the first convolution gets stride 1,
    and a 3x3 kernel where it had 7x7 (the CIFAR stem of SimCLR, appendix B.9). The next reduction goes too:
    the max-pool where there is one, else the stride of the next strided convolution. A 32 px image then ends
    in a 4x4 map instead of 1x1.

    Returns:
        The lines of Python that do the same to a plain timm network called `model`.

    Raises:
        ValueError: `model` already has it; a second pass would take away two more reductions.
    """
    if getattr(model, "has_small_stem", False):
        raise ValueError("This network already has the small-image stem.")
    strided = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2)
    ]
    (first_path, first), (second_path, second) = strided[:2]
    pool_path = next((path for path, module in model.named_modules() if isinstance(module, nn.MaxPool2d)), None)
    lines = []
    if first.kernel_size == (7, 7):
        convolution = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=first.bias is not None)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        model.set_submodule(first_path, convolution)
        lines.append(f'model.set_submodule("{first_path}", torch.nn.{convolution!r})')
    else:
        lines.append(_full_stride(first_path, first))
    if pool_path is not None:
        model.set_submodule(pool_path, nn.Identity())
        lines.append(f'model.set_submodule("{pool_path}", torch.nn.Identity())')
    else:
        lines.append(_full_stride(second_path, second))
    model.has_small_stem = True  # type: ignore[assignment]
    return lines


def _full_stride(path: str, convolution: nn.Conv2d) -> str:
    convolution.stride = (1, 1)
    return f'model.get_submodule("{path}").stride = (1, 1)'
