"""Any other network of timm, as `timm/NAME`: exactly as timm builds it, without the small-image stem."""

import functools
from dataclasses import dataclass

import timm
import torch
from timm.models import PretrainedCfg

from fewlabel.backbones.family import Family, Notes
from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.options import check_rate, nearest
from fewlabel.backbones.scale import Scale
from fewlabel.backbones.timm_call import TimmCall, create_model
from fewlabel.errors import UserError

__all__ = ["FAMILY", "PREFIX", "TimmOptions", "check_name", "names"]

PREFIX = "timm/"


@dataclass(frozen=True)
class TimmOptions:
    """Options of a network that is timm's and no member of a family."""

    drop_path_rate: float = 0.0
    """Stochastic depth in training, where the network has it."""

    def completed(self, member: str, image_size: int) -> "TimmOptions":
        """Nothing is left to a rule."""
        check_rate("drop_path_rate", self.drop_path_rate)
        return self


@functools.cache
def names() -> list[str]:
    """Every architecture that the installed timm knows, with the prefix."""
    return [PREFIX + name for name in timm.list_models()]


def check_name(name: str) -> None:
    """Refuse a `timm/NAME` that timm doesn't list: a typo, a tag of pretrained weights, a `hf-hub:` address.

    Raises:
        UserError: no such name; the message has the nearest ones.
    """
    if name not in names():
        architecture = name.removeprefix(PREFIX)
        raise UserError(f"timm {timm.__version__} has no architecture {architecture!r}. {nearest(name, names())}")


def _call(member: str, image_size: int, in_chans: int, scale: Scale, options: TimmOptions) -> TimmCall:
    architecture = member.removeprefix(PREFIX)
    if (scale.depth, scale.width) != (1, 1):
        raise UserError(
            f"{member} can't be made deeper or wider, as no rule says how: only the resolution of a timm/NAME can be "
            "scaled. `fewlabel backbones` lists the names that take a whole scale."
        )
    tried = _try(architecture, image_size, in_chans, options)
    if isinstance(tried, TimmCall):
        return tried
    near = {int(_pretrained(architecture).input_size[-1])} | {
        multiple
        for step in (8, 14, 16, 32)
        for multiple in (image_size // step * step, -(-image_size // step) * step)
        if multiple > 0
    }
    working = [
        str(size)
        for size in sorted(near - {image_size})
        if isinstance(_try(architecture, size, in_chans, options), TimmCall)
    ]
    advice = (
        f"Image sizes that work: {', '.join(working)} px."
        if working
        else f"No other image size helps; does it take {in_chans} channels?"
    )
    raise UserError(f"{member} can't be built for {image_size} px. timm says: {tried}. {advice}")


def _pretrained(architecture: str) -> PretrainedCfg:
    """What timm knows of the weights that it has for `architecture`: the input size among it."""
    return timm.get_pretrained_cfg(architecture) or PretrainedCfg()


def _try(architecture: str, image_size: int, in_chans: int, options: TimmOptions) -> TimmCall | Exception:
    """The call that makes `architecture`, or why there is none.

    Which arguments a network takes, and at which sizes its parts fit together, only timm's code knows. It is
    tried in eval mode on the meta device, which takes no memory and touches no batch statistics.

    Raises:
        UserError: `options` has a rate that the network doesn't know.
    """
    arguments = {"in_chans": in_chans, "drop_rate": 0.0, "drop_path_rate": options.drop_path_rate}
    if _pretrained(architecture).fixed_input_size:
        arguments["img_size"] = image_size
    while True:
        call = TimmCall(create_model(architecture, **arguments))
        try:
            with without_weights(), torch.no_grad():
                model, _ = call.build()
                features = model.eval()(torch.empty(2, in_chans, image_size, image_size))
        except TypeError as error:
            unknown = next((name for name in arguments if f"'{name}'" in str(error)), None)
            if unknown not in ("drop_rate", "drop_path_rate"):
                return error
            if arguments.pop(unknown):
                raise UserError(f"{PREFIX}{architecture} has no {unknown}: leave that option out.") from None
        # timm says that a size doesn't fit by assertions and by errors of many types.
        except Exception as error:
            return error
        else:
            if features.shape == (2, model.head_hidden_size):
                return call
            return ValueError(f"the output has the shape {tuple(features.shape)}, which is no feature vector")


FAMILY = Family(
    name="timm",
    title="Any timm model",
    paper="https://github.com/huggingface/pytorch-image-models",
    summary="Every other architecture of timm by its own name, as timm builds it, with fresh weights.",
    notes=Notes(
        idea="",
        equation="",
        use="A network that is in the literature and not in the table.",
        scaling="Only the resolution: no rule says what depth and width of any network are.",
        pitfalls=("It is built as timm builds it, without a form for small images.",),
    ),
    members={},
    small="",
    large="",
    options=TimmOptions,
    build=_call,
    convolutional=None,
)
"""Not in the registry: its names are timm's, found by their prefix."""
