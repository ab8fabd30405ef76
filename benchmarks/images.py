"""The images that both sides of the training benchmark read."""

from pathlib import Path

from fewlabel.data.config import SourceConfig
from fewlabel.data.loading import load
from fewlabel.data.sizes import stored_side
from fewlabel.data.source import Source
from fewlabel.data.store import ImageStore, open_store
from fewlabel.errors import UserError

__all__ = ["training_images"]


def training_images(data: str, limit: int, view: int, scratch: Path) -> tuple[Source, ImageStore]:
    """The first `limit` training images of `data`, decoded as for views of `view` pixels."""
    source = load(SourceConfig(data=data, val_share=0, test_share=0))
    source["train"] = source["train"].select(range(min(limit, len(source["train"]))))
    if source.channels != 3:
        raise UserError(f"The images of {data} are greyscale; the benchmark's peer takes colour.")
    side = stored_side(view, source.median_side)
    return source, open_store(source, "train", side, cache_dir=scratch, workers=2, max_bad_share=0.0)
