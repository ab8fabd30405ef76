"""`python -m benchmarks.backbones_page`: count the catalogue and write docs/backbones.md from it and the registry."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewlabel.backbones.catalogue import Entry
from fewlabel.backbones.family import Family
from fewlabel.backbones.options import option_docs
from fewlabel.backbones.registry import all_families
from fewlabel.files import read_json

__all__ = ["MEASURED", "PAGE", "page"]

_ROOT = Path(__file__).resolve().parent
PAGE = _ROOT.parent / "docs" / "backbones.md"
MEASURED = _ROOT / "results" / "backbones.json"
"""What `make bench-backbones` wrote."""

_HEAD = """\
# Backbones

<!-- Made by `make docs` from the registry: edit fewlabel/backbones/families instead. -->

Any of these names goes after `--backbone`. A family's name (bold) chooses its member by the image size: one for small
images up to 64 px, another above. A member's name chooses exactly that one. `timm/NAME` takes any other architecture of
timm, as timm builds it. All weights are fresh; every network takes 1 to N channels.

```
fewlabel backbones                                       # this table in the terminal
fewlabel backbones vit --scale-phi 1 --image-size 96     # one network in one form: size, cost, options
fewlabel pretrain --backbone vit --backbone-option pool=gap --backbone-option patch_size=4 --data photos/
fewlabel pretrain --backbone resnet18 --scale-phi 1 --data photos/
```

## Compound scaling

Every family takes EfficientNet's compound scaling: `--scale-phi` multiplies depth by 1.2^phi, width by 1.1^phi and the
side of the image by 1.15^phi, for about 1.92^phi times the cost; `--scale-depth`, `--scale-width` and
`--scale-resolution` set one of them alone. In Python it is `Scale.compound(phi, alpha, beta, gamma)` or
`Scale(depth, width, resolution)`, given to `create(..., scale=...)`. Each family rounds by its own rule, told below:
widths to a multiple (of 8 unless it says otherwise, and never below 90 % of the exact width), depths to the nearest
number of blocks, sizes to the nearest multiple that the network takes. A scale that would round a stage to nothing is
refused. The small or large form, and options left to a rule, follow from the size before scaling.

The law of cost holds for convolutional networks. In a network of tokens the attention or the token-mixing matrices grow
with the fourth power of the resolution, so it holds only while there are fewer tokens than channels.

## All of them

Counted, not copied: parameters without a classifier for three channels; GFLOP of the forward pass of one image of the
stated size, a multiplication and an addition being two operations, by torch's counter on the meta device. What that
counter misses is added: Fourier transforms (5 n log2 n for n complex numbers, half for real ones), products of complex
numbers (6), and involution's sum (2 K^2 an output). Activations, norms and residual sums are not counted. An asterisk
marks sizes that must be multiples of something.

"""

_ASTERISK = r"\*"

_MEASURING = """\
## How the speeds were measured

{about}. One training step of SimCLR without the making of views: forward, NT-Xent, backward, optimiser, on random
images; the median of {steps} steps after one to warm up. Memory is what the process needed above what it had before the
network was made. Share is the operations of the step, three times those of the forward pass as counted above, over
those of the machine's own products of large matrices in the same precision. `make bench-backbones` measures again, on a
GPU where there is one.
"""


def page(rows: Sequence[Entry], measured: Mapping[str, Any]) -> str:
    """The whole page.

    Args:
        rows: the catalogue.
        measured: what `bench_backbones` wrote: `families`, `peers` and where they were measured.
    """
    sections = [_section(family, rows, measured) for family in all_families()]
    about = f"{measured['date']}, {measured['device']}, torch {measured['torch']}, {measured['precision']}"
    closing = _MEASURING.format(about=about, steps=measured["steps"])
    return "\n".join([_HEAD + _catalogue(rows), *sections, closing + _peers(measured["peers"])])


def _catalogue(rows: Sequence[Entry]) -> str:
    lines = [
        f"| {f'**[{row.name}](#{row.name})**' if row.name == row.family else row.name} | {row.source} | "
        f"{row.image_size}{'' if row.any_size else _ASTERISK} | {row.parameters:,} | {row.flops / 1e9:,.2f} | "
        f"{row.num_features:,} | {row.summary} |"
        for row in rows
    ]
    return _table("name | source | px | parameters | GFLOP | features | ", lines)


def _section(family: Family, rows: Sequence[Entry], measured: Mapping[str, Any]) -> str:
    notes = family.notes
    [source] = {row.source for row in rows if row.family == family.name}
    origin = "from timm" if source == "timm" else "written here"
    sizes = "any image size" if all(row.any_size for row in rows if row.family == family.name) else "some image sizes"
    parts = [
        f"## {family.name}",
        f"**{family.title}**, {origin}; {sizes}. {family.paper}.",
        notes.idea,
        f"$${notes.equation}$$",
        f"*Use.* {notes.use}",
        f"*Scaling.* {notes.scaling}",
        _speeds([row for row in measured["families"] if row["family"] == family.name]),
        "*Pitfalls.*\n\n" + "\n".join(f"- {text}" for text in notes.pitfalls),
    ]
    if notes.errata:
        parts.append("*Errata.* What is often written otherwise:\n\n" + "\n".join(f"- {text}" for text in notes.errata))
    options = [f"| `{name}` | {text} |" for name, text in option_docs(family.options).items()]
    parts.append(_table("option | meaning ", options))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _speeds(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"| {row['member']} | {row['image_size']} | {row['batch']} | {_three_digits(row['views_per_second'])} | "
        f"{row['memory_mib']:,.0f} | {100 * row['share']:.0f} % |"
        for row in rows
    ]
    return _table("training step | px | views | views/s | MiB | share of peak ", lines)


def _three_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _peers(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"| {row['key']} | {row['peer']} | {row['peer_seconds'] / row['seconds']:.2f} | "
        f"{row['ours_mib'] / row['peer_mib']:.2f} | {row['note']} |"
        for row in rows
    ]
    head = (
        "\nThe networks written here beside the nearest public implementation, forward and backward in turns in one\n"
        "run: how many times ours is faster, and its memory over the peer's.\n\n"
    )
    return head + _table("ours | peer | times as fast | memory ratio | note ", lines)


def _table(heading: str, lines: Sequence[str]) -> str:
    rule = "|" + " --- |" * (heading.count("|") + 1)
    return "\n".join([f"| {heading}|", rule, *lines]) + "\n"


def main() -> int:
    """Count, then write catalogue and page."""
    from fewlabel.backbones.catalogue import write
    from fewlabel.backbones.census import census
    from fewlabel.console import track

    families = all_families()
    rows = [entry for family in track(families, "Counting", len(families)) for entry in census(family)]
    write(rows)
    PAGE.write_text(page(rows, read_json(MEASURED)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
