"""How the commands that take all images of a source, with labels or without, load it."""

from dataclasses import replace
from typing import TYPE_CHECKING

from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError

if TYPE_CHECKING:
    from fewlabel.data.source import Source

__all__ = ["load_all"]


def load_all(config: SourceConfig) -> "Source":
    """The source, divided as for training, so that its splits are those; undivided where it is too small for that.

    Raises:
        UserError: there is no such source, or it can't be read.
    """
    from fewlabel.data.source import load

    try:
        return load(config)
    except UserError:
        # Whatever else is wrong is wrong with one part too, and then told.
        return load(replace(config, val_share=0.0, test_share=0.0), least=1)
