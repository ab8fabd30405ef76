"""The model card of a classifier: what it says of an image, where it comes from, how to load it, what it can't do."""

from collections.abc import Sequence
from typing import Any

from fewlabel.backbones.backbone import Backbone
from fewlabel.backbones.card import metrics_section, provenance_list

__all__ = ["classifier_card"]

_CARD = """\
---
library_name: fewlabel
pipeline_tag: image-classification
tags:
- fewlabel
---

# {name} at {size} px, {count} {kind}

An image classifier: {meaning} The {kind}, in the order of its output:

{names}

## Use it

```sh
fewlabel predict --classifier path/to/this/directory --data your/images
```

```python
import fewlabel

classifier = fewlabel.load_classifier("path/to/this/directory")
probabilities = classifier.probabilities(images)  # PIL images, arrays, or a tensor (B, C, h, w) -> (B, {count})
```

The directory `encoder` holds the network without its classifier, for search, probing or plain timm; its own card
says how images are prepared.

## Where it comes from

{provenance}
{metrics}
## Limits

The probabilities are those of images like the ones it was trained on. An image of something else also gets a
probability, and a high one as likely as not. Images of another camera, hospital or population need a test of their
own. It is no medical device.
"""


def classifier_card(
    class_names: Sequence[str], multi_label: bool, backbone: Backbone, provenance: dict[str, Any]
) -> str:
    """The card as Markdown."""
    return _CARD.format(
        name=backbone.name,
        size=backbone.image_size,
        count=len(class_names),
        kind="labels" if multi_label else "classes",
        meaning="the probability of a yes for each label, of which an image may have several."
        if multi_label
        else "a probability for each class, with the sum 1.",
        names="\n".join(f"{number}. {_plain(name)}" for number, name in enumerate(class_names)),
        provenance=provenance_list(provenance),
        metrics=metrics_section(provenance.get("metrics")),
    )


def _plain(name: str) -> str:
    # A backtick or a line break would end the code span.
    return "`" + " ".join(name.replace("`", "'").split()) + "`"
