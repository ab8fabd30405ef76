"""Networks of timm with the weights that timm has for them, most of them trained on ImageNet."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import timm
import torch
from safetensors import SafetensorError
from timm.models import PretrainedCfg

from fewlabel.backbones.encoder import Encoder, as_encoder
from fewlabel.backbones.options import nearest
from fewlabel.backbones.registry import create
from fewlabel.backbones.timm_any import PREFIX
from fewlabel.errors import UserError

__all__ = ["imagenet_encoder"]

_FILE: Final = "model.safetensors"


def imagenet_encoder(name: str, image_size: int | None = None, in_chans: int = 3, bits: int = 8) -> Encoder:
    """The network `name` of timm with its pretrained weights and the input statistics that these were trained with.

    The weights come from the Hugging Face hub, or from its cache on this machine, and are safetensors: a pickle is
    refused. For other channels than the weights' own, timm adapts the first layer: for grey, the colours' weights
    are summed. Another image size is taken where the network takes it; position tables are interpolated.

    Args:
        name: timm's, with or without the tag of the weights and the prefix `timm/`: resnet50, resnet50.a1_in1k.
        image_size: in pixels; the weights' own by default.
        in_chans: channels of the images.
        bits: depth of the images that it is for.

    Raises:
        UserError: no such name or weights, a size that the network can't take, or they can't be had here.
    """
    name = name.removeprefix(PREFIX)
    known = timm.list_pretrained()
    architecture, _, tag = name.partition(".")
    if not any(one == name or (not tag and one.partition(".")[0] == name) for one in known):
        raise UserError(f"timm {timm.__version__} has no pretrained weights called {name!r}. {nearest(name, known)}")
    described = timm.get_pretrained_cfg(name)
    assert described is not None
    name = f"{architecture}.{described.tag}" if described.tag else architecture
    path = _weights(name, described)
    size = image_size or int(described.input_size[-1])
    arguments: dict[str, Any] = {"img_size": size} if described.fixed_input_size else {}
    with torch.random.fork_rng(devices=[]):
        backbone = create(f"{PREFIX}{architecture}", image_size=size, in_chans=in_chans)
        try:
            model = timm.create_model(
                name,
                pretrained=True,
                pretrained_cfg_overlay={"file": str(path), "custom_load": False},
                num_classes=0,
                in_chans=in_chans,
                **arguments,
            )
            backbone.body.load_state_dict(model.state_dict())
        except (RuntimeError, OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(
                f"The weights {name} in {path} don't fit the network at {size} px with {in_chans} channels: {error}. "
                "Delete the file if it is damaged, or take another --image-size."
            ) from error
    mean, std = _statistics(described, in_chans)
    return as_encoder(
        backbone,
        mean=mean,
        std=std,
        bits=bits,
        provenance={"run": f"timm:{name}", "command": "timm.create_model", "license": described.license or "unknown"},
        trained=True,
    )


def _weights(name: str, described: PretrainedCfg) -> Path:
    """The file with the weights, in the cache of the hub."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    if not described.hf_hub_id:
        raise UserError(
            f"timm has the weights {name} as a pickle alone ({described.url}), which can run any code and is never "
            f"loaded here. {nearest(name, _on_hub(name))}"
        )
    repository, _, revision = described.hf_hub_id.partition("@")
    try:
        return Path(hf_hub_download(repository, _FILE, revision=revision or None))
    except LocalEntryNotFoundError as error:
        raise UserError(_unreachable(name, repository, constants.HF_HUB_CACHE)) from error
    except EntryNotFoundError as error:
        raise UserError(
            f"{repository} on the Hugging Face hub has no {_FILE}; a pickle can run any code and is never loaded here. "
            f"{nearest(name, _on_hub(name))}"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"{_unreachable(name, repository, constants.HF_HUB_CACHE)} What it said: {error}") from error


def _unreachable(name: str, repository: str, cache: str) -> str:
    return (
        f"The weights {name} are not on this machine and the Hugging Face hub can't be reached. They are looked for in "
        f"{cache}; where there is a network, `hf download {repository} {_FILE}` puts them into that folder, which "
        "can be copied (HF_HOME says where it is)."
    )


def _on_hub(name: str) -> list[str]:
    described = {one: timm.get_pretrained_cfg(one) for one in timm.list_pretrained() if one != name}
    return [one for one, config in described.items() if config is not None and config.hf_hub_id]


def _statistics(described: PretrainedCfg, in_chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for each input channel; for other channels than the weights' own, their means."""
    values = asdict(described)
    mean, std = tuple(values["mean"]), tuple(values["std"])
    if len(mean) == in_chans:
        return mean, std
    return (sum(mean) / len(mean),) * in_chans, (sum(std) / len(std),) * in_chans
