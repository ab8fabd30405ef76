"""`fewlabel backbones [NAME]`: what --backbone can name, and what one of them is."""

import json
import shlex
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tyro.conf import Positional

from fewlabel.backbones.config import ArchitectureConfig


@dataclass(frozen=True)
class Config:
    """List the architectures that --backbone can name, or describe one of them."""

    name: Positional[str | None] = None
    """A family, a member or timm/NAME, to be described alone. None: list all."""

    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)

    channels: int = 3
    """Channels of the images, for the description of one."""

    json: bool = False
    """Print as JSON."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    from fewlabel.errors import UserError

    if config.name is not None:
        return _describe(config, config.name)
    if config.architecture != ArchitectureConfig():
        raise UserError("Options, sizes and scales belong to one backbone: name it, as in `fewlabel backbones vit`.")
    return _list(config)


def _list(config: Config) -> int:
    from rich.table import Table

    from fewlabel.backbones.catalogue import entries
    from fewlabel.console import print_table

    rows = entries()
    if config.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    headings = ("name", "source", "size", "parameters", "GFLOP", "features", "")
    table = Table(*headings, box=None)
    for column in table.columns[2:6]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            f"[bold]{row.name}[/]" if row.name == row.family else f"  {row.name}",
            row.source,
            f"{row.image_size}{'' if row.any_size else '*'}",
            f"{row.parameters:,}",
            f"{row.flops / 1e9:,.2f}",
            str(row.num_features),
            f"{row.summary} {row.paper}" if row.name == row.family else row.summary,
        )
    table.add_row("[bold]timm/NAME[/]", "timm", "", "", "", "", "any other of timm's architectures")
    print_table(table)
    print("\n* not every image size works. More of one: fewlabel backbones NAME")
    return 0


def _describe(config: Config, name: str) -> int:
    from fewlabel.backbones.cost import count_flops, count_parameters
    from fewlabel.backbones.meta import without_weights
    from fewlabel.backbones.options import as_texts, option_docs, read_options
    from fewlabel.backbones.registry import create, find, fit_image_size, options_from
    from fewlabel.backbones.scale import Scale
    from fewlabel.backbones.timm_any import PREFIX
    from fewlabel.console import as_typed

    architecture, scale = config.architecture, Scale.of(config.architecture)
    options = options_from(name, architecture.backbone_option)
    size = architecture.image_size
    if size is None:
        size = fit_image_size(name, _designed_for(name), **options)
    with without_weights():
        backbone = create(name, image_size=size, in_chans=config.channels, scale=scale, **options)
    family, _ = find(name, size)
    step = family.step(read_options(family.options, backbone.options, name))
    sizes = "any" if step == 1 else f"multiples of {step}"
    docs = option_docs(family.options)
    facts: dict[str, Any] = {
        "name": backbone.name,
        "family": family.title,
        "paper": family.paper,
        "source": backbone.source,
        "parameters": count_parameters(backbone),
        "flops": count_flops(backbone),
        "features": backbone.num_features,
        "image_size": backbone.image_size,
        "image_sizes": "those that timm takes" if name.startswith(PREFIX) else sizes,
        "channels": backbone.in_chans,
        "scale": asdict(scale),
        "options": {
            text.partition("=")[0]: {"value": text.partition("=")[2], "meaning": docs[text.partition("=")[0]]}
            for text in as_texts(backbone.options)
        },
    }
    if config.json:
        print(json.dumps(facts, indent=2))
    else:
        _print(facts)
        print("\nNext:", as_typed(), "pretrain --backbone", backbone.name, *_flags(architecture), "--data YOUR_FOLDER")
    return 0


def _flags(architecture: ArchitectureConfig) -> list[str]:
    """What was typed of the form, to be typed again."""
    flags = []
    for part in fields(architecture):
        value = getattr(architecture, part.name)
        for one in value if isinstance(value, tuple) else [] if value == part.default else [value]:
            flags.append(f"--{part.name.replace('_', '-')} {shlex.quote(str(one))}")
    return flags


def _designed_for(name: str) -> int:
    """The side in pixels that the backbone was designed for; for a family, that of its large member."""
    import timm

    from fewlabel.backbones.registry import find
    from fewlabel.backbones.timm_any import PREFIX

    if name.startswith(PREFIX):
        known = timm.get_pretrained_cfg(name.removeprefix(PREFIX), allow_unregistered=True)
        return int(known.input_size[-1]) if known else 224
    family, member = find(name, 224)
    return family.members[member].image_size


def _print(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from fewlabel.console import print_table

    table = Table(box=None, show_header=False)
    scale = facts["scale"]
    words = ", ".join(f"{part} x {value:.3g}" for part, value in scale.items())
    rows = {
        "name": facts["name"],
        "family": f"{facts['family']} ({facts['paper']})",
        "source": facts["source"],
        "parameters": f"{facts['parameters']:,}",
        "cost": f"{facts['flops'] / 1e9:,.3f} GFLOP forward, one image",
        "features": str(facts["features"]),
        "image size": f"{facts['image_size']} px; takes {facts['image_sizes']}",
        "channels": str(facts["channels"]),
        "scale": words if scale != {"depth": 1, "width": 1, "resolution": 1} else "as published",
    }
    for label, value in rows.items():
        table.add_row(f"[dim]{label}[/]", value)
    table.add_row()
    for name, option in facts["options"].items():
        table.add_row(f"{name}={option['value']}", option["meaning"])
    print_table(table)
