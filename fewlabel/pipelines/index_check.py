"""`fewlabel index check`: whether an index is still what it was."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fewlabel.console import console, say
from fewlabel.errors import UserError
from fewlabel.pipelines.indexes import find_index

_LISTED = 10


@dataclass(frozen=True)
class Config:
    """Check an index: its files, counts and images, and a sample of its features and neighbours."""

    index: Path | None = None
    """Index directory, or the run that made it. Default: the newest in runs/."""
    sample: int = 100
    """Images that are embedded anew, and searches that are compared with exact ones."""
    seed: int = 0
    """Of the draw of the sample."""
    json: bool = False
    """Print the result alone, as JSON, on standard output."""

    def __post_init__(self) -> None:
        """Check the sample's size."""
        if self.sample < 1:
            raise UserError(f"--sample is {self.sample}; at least 1 image must be looked at.")


def run(config: Config) -> int:
    """Run the command; its exit status: 1 where the index is damaged."""
    directory = find_index(config.index)

    from fewlabel.retrieval.check import check_index

    found = check_index(directory, sample=config.sample, seed=config.seed)
    for problem in found.problems:
        console.print(f"{problem.kind}:", style="bold red" if problem.kind == "damaged" else "bold yellow", end=" ")
        say(problem.what)
        for image in problem.images[:_LISTED]:
            say(f"  {image}")
        if len(problem.images) > _LISTED:
            say(f"  and {len(problem.images) - _LISTED} more: --json lists all")
    looked = f"{found.files} files of the index, {found.images:,} image files, {found.embedded} images embedded anew"
    if found.recall is not None:
        looked += f", {found.recall:.3f} of the true neighbours found"
    say(f"Checked: {looked}.")
    say(f"Index:   {directory} is {'sound' if found.sound else 'damaged'}.")
    if config.json:
        print(json.dumps({"index": str(directory), "sound": found.sound, **asdict(found)}, indent=2))
    return 0 if found.sound else 1
