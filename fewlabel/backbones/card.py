"""The model card of an encoder: what it is, where it comes from, how to load it, what it can't do."""

import json
from typing import Any

from fewlabel.backbones.encoder_config import WEIGHTS, EncoderConfig

__all__ = ["metrics_section", "model_card", "provenance_list"]

_CARD = """\
---
library_name: {library}
pipeline_tag: image-feature-extraction
tags:
- fewlabel
- {tag}
---

# {name} at {size} px

An image encoder, trained {how}: an image becomes {features:,} numbers. {parameters:,} parameters.
Trained on {channels} of {bits} bits a channel.

## Load it

```python
import fewlabel

encoder = fewlabel.load_encoder("path/to/this/directory")
features = encoder(images)  # PIL images, arrays, or a tensor (B, C, h, w) -> (B, {features})
```
{timm}
## What the network sees

The whole image, resized to {size} x {size} px (bilinear, antialiased, out of proportion if it isn't square),
on the scale from 0 (black) to 1 (white), minus `{mean}`, divided by `{std}`.

## Where it comes from

{provenance}
{metrics}
## Limits

The features carry what told {apart} of that source apart in spite of the augmentations. On images of another
kind, camera or hospital they may carry little: measure before you rely on them. They inherit whatever is
uneven in the source. Similar features mean similar appearance, not the same diagnosis, species or person.
"""

_TIMM = """
With timm alone, from within this directory:

```python
{imports}from safetensors.torch import load_file

model = {model}
{then}model.load_state_dict(load_file("{weights}"))
model.eval()
```
"""


def model_card(config: EncoderConfig, parameters: int) -> str:
    """The card as Markdown; the Python block for timm runs as it stands."""
    labels = config.provenance.get("labels")
    return _CARD.format(
        how=f"with labels of {labels} classes" if labels else "without labels",
        tag="supervised" if labels else "self-supervised",
        apart="the classes" if labels else "images",
        library="timm" if config.timm_call else "fewlabel",
        name=config.name,
        size=config.image_size,
        features=config.num_features,
        parameters=parameters,
        channels={1: "greyscale images", 3: "colour images"}.get(
            config.in_chans, f"images of {config.in_chans} channels"
        ),
        bits=config.bits,
        timm=_timm_section(config.timm_call) if config.timm_call else "",
        mean=list(config.mean),
        std=list(config.std),
        provenance=provenance_list({**config.provenance, "options": config.options, "made with": config.made_with}),
        metrics=metrics_section(config.provenance.get("metrics")),
    )


def _timm_section(call: dict[str, Any]) -> str:
    imports = "".join(f"import {module}\n" for module in sorted({*call["imports"], "timm", "torch"}))
    then = "".join(f"{line}\n" for line in call["then"])
    return _TIMM.format(imports=imports, model=call["model"], then=then, weights=WEIGHTS)


def provenance_list(facts: dict[str, Any]) -> str:
    """Markdown list of where something comes from, without its metrics."""
    named = {name: value for name, value in facts.items() if name != "metrics" and value != {}}
    return "\n".join(f"- {name.replace('_', ' ')}: {_inline(value)}" for name, value in named.items())


def _inline(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    # A backtick or a line break would end the code span.
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def metrics_section(metrics: Any) -> str:
    """Markdown section with a table of figures, plain or with their intervals; empty where there are none."""
    if not isinstance(metrics, dict) or not metrics:
        return ""
    rows = "\n".join(f"| {name.replace('_', ' ')} | {_figure(value)} |" for name, value in metrics.items())
    return f"\n## Figures\n\nOn that source alone.\n\n| | |\n|---|---|\n{rows}\n"


def _figure(value: Any) -> str:
    if isinstance(value, dict) and {"mean", "low", "high"} <= value.keys():
        return f"{value['mean']:.4g} ({value['low']:.4g} to {value['high']:.4g})"
    return f"{value:.4g}" if isinstance(value, float) else _inline(value)
