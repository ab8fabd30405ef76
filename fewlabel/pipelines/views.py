"""`fewlabel views`: augmented pairs, to look at before training."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.console import console
from fewlabel.data.config import SourceConfig, ViewsConfig
from fewlabel.errors import UserError

if TYPE_CHECKING:
    from fewlabel.data.store import ImageStore
    from fewlabel.data.views import TwoViews


@dataclass(frozen=True)
class Config:
    """Draw augmented pairs of a source's images, to look at before training."""

    source: SourceConfig = field(default_factory=SourceConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    image_size: int | None = None
    """Side of the views in pixels. Default: what suits the source."""
    seed: int = 0
    """Of the choice of images and of the views."""
    out: Path = Path("views.png")
    """The picture to write; an existing file is not overwritten."""
    json: bool = False
    """Print the result alone, as JSON, on standard output."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    if config.out.exists():
        raise UserError(f"{config.out} exists. Give another name with --out, or remove it.")
    from fewlabel.data.loading import load
    from fewlabel.data.presets import preset_named, resolve_preset
    from fewlabel.data.sizes import stored_side, view_side
    from fewlabel.data.store import mean_and_std, open_split
    from fewlabel.data.views import TwoViews

    resolve_preset(config.views.views, None, channels=1)
    source = load(config.source)
    size = config.image_size or source.hints.image_size or view_side(source.median_side)
    preset = preset_named(resolve_preset(config.views.views, source.hints.views, source.channels))
    store = open_split(source, "train", stored_side(size, source.median_side), config.source)
    views = TwoViews(preset, size, *mean_and_std(store, config.seed), config.views.strength)
    draw(store, views, config.seed, config.out)
    if config.json:
        result: dict[str, Any] = {"picture": str(config.out), "views": preset.name, "image_size": size}
        print(json.dumps({**result, "fingerprint": source.fingerprint}, indent=2))
    about = f"{preset.name} at {size} px, original | view | view: {config.out}"
    console.print(about, style="bold", soft_wrap=True, markup=False, highlight=False)
    console.print(preset.why, markup=False, highlight=False)
    return 0


def draw(store: "ImageStore", views: "TwoViews", seed: int, path: Path, rows: int = 8) -> None:
    """Write a picture of `rows` images of `store`, each beside two of its views."""
    import torch

    from fewlabel.data.views import contact_sheet

    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(store), generator=generator)[:rows].sort().values
    batch = store.batch(indices)
    contact_sheet(
        batch.pixels,
        *views(batch.pixels, batch.aspect, generator),
        views.mean.flatten().tolist(),
        views.std.flatten().tolist(),
        path,
    )
