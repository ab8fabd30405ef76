"""`fewlabel index build`: an index of a source's images, to be searched by likeness."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from fewlabel.console import say, say_rows
from fewlabel.data.config import SourceConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.configuration import as_dict
from fewlabel.pipelines.indexes import next_steps, summary_of
from fewlabel.pipelines.labelled import find_encoder
from fewlabel.pipelines.neighbour_quality import judge, show_examples
from fewlabel.pipelines.sources import keep_left_out, load_all, record_of, shown_alike
from fewlabel.retrieval.config import IndexConfig
from fewlabel.tracking.config import RunConfig

COMMAND = "index"


@dataclass(frozen=True)
class Config:
    """Make an index of a source's images, to find similar ones in."""

    encoder: Path | None = None
    """Encoder directory, or the run that made it. Default: the newest in runs/."""
    source: SourceConfig = field(default_factory=SourceConfig)
    """All images of all splits, with labels or without."""
    index: IndexConfig = field(default_factory=IndexConfig)
    judged_images: int = 10_000
    """Labelled images, drawn at random, among which is counted how often neighbours share a label, beside the untrained
    network; 0 counts nothing."""
    seed: int = 0
    """Of the samples: those that the vectors' layout is chosen by, and the judged images."""
    run: RunConfig = field(default_factory=RunConfig)
    json: bool = False
    """Print the result alone, as JSON, on standard output."""

    def __post_init__(self) -> None:
        """Check ranges, before anything is loaded."""
        if self.judged_images < 0:
            raise UserError(f"--judged-images is {self.judged_images}; it must be 0 or more.")


def run(config: Config) -> int:
    """Run the command; its exit status."""
    from fewlabel.backbones.encoder import load_encoder
    from fewlabel.retrieval.index import Index
    from fewlabel.tracking.run import Run

    directory = find_encoder(config.encoder)
    config = replace(config, encoder=directory.resolve(), source=config.source.resolved())
    encoder = load_encoder(directory)
    config = replace(config, source=shown_alike(config.source, encoder.config.provenance))
    source = load_all(config.source)
    made_by = str(encoder.config.provenance.get("run", directory))
    with Run.create(
        COMMAND,
        as_dict(replace(config, run=replace(config.run, out=None), json=False)),
        out=config.run.out,
        slug=f"{encoder.config.name}-{source.name}",
        parents={"encoder": f"{made_by}@{encoder.hash[:16]}", "source": f"{source.name}@{source.fingerprint}"},
        source=record_of(source, config.source),
        project=config.run.project,
    ) as record:
        record.log_input(f"encoder-{encoder.config.name}", "encoder", directory)
        splits = ", ".join(f"{len(part):,} {split}" for split, part in source.items())
        say_rows(
            {
                "encoder": f"{directory}: {encoder.config.name}, {encoder.num_features} features at "
                f"{encoder.image_size} px",
                "source": f"{source.name}: {splits}",
                "run": str(record.directory),
            }
        )
        if encoder.backbone.in_chans != source.channels:
            takes = encoder.backbone.in_chans
            say(f"The encoder takes {takes} channels: the images, of {source.channels}, are converted.")
        index = Index.build(
            record.directory / "index", encoder, source, config=config.index, reading=config.source, seed=config.seed
        )
        bad = [*source.bad, *index.left_out]
        keep_left_out(source, bad, record.directory)
        description = index.description
        show_examples(index, record, config.seed)
        quality = judge(index, source, config.source, config.judged_images, config.seed)
        result = record.finish(
            {
                **(quality.metrics() if quality is not None else {}),
                "recall": description.plan.recall.measured,
                "images": len(index.entries),
                "vectors": len(index),
            },
            index=str(index.directory),
            backbone=encoder.config.name,
            encoder=str(directory),
            plan=description.plan.as_json(),
            bad_images=[{"id": image.id, "reason": image.reason} for image in bad],
        )
        say_rows(summary_of(description))
        say(f"Index: {index.directory}")
        say(f"Look:  {record.directory / 'neighbours.png'}")
        say(next_steps(index.directory if config.run.out is not None else None))
    if config.json:
        print(json.dumps(result, indent=2))
    return 0
