"""The command line: `fewlabel <command>`, also as `python -m fewlabel <command>`."""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from fewlabel import __version__
from fewlabel.errors import UserError

COMMANDS = {
    "clean": "Find what is wrong with a source's images: broken, odd, blurred, twice; nothing is changed unless asked.",
    "pretrain": "Learn features from the images of a source, without labels (SimCLR).",
    "probe": "Say what an encoder's features are worth with few labels: linear probe and kNN.",
    "finetune": "Train a classifier on few labels, beginning with an encoder.",
    "predict": "Say what a classifier sees on images: a table with a row for each.",
    "label-curve": "Say whether pretraining paid: every way of learning from few labels, with a report.",
    "views": "Draw augmented pairs of a source's images, to look at before training.",
    "index build": "Make an index of a source's images, to find similar ones in.",
    "index add": "Add the images of a source to an index; only those that are new to it are embedded.",
    "index remove": "Take images out of an index; their files stay where they are.",
    "index info": "Say what an index holds, and how.",
    "index check": "Check an index: its files, counts and images, and a sample of its features and neighbours.",
    "query": "Find the images of an index that are most like others.",
    "duplicates": "List the near-identical images of an index.",
    "app": "Search an index in the browser, see its map, and look through the runs; on this machine alone.",
    "search": "Find how deep, how wide and at what resolution a backbone is best for a source, by trying it.",
    "dashboard": "Look at a study in the browser while it runs or later: Optuna's dashboard, the report, the runs.",
    "backbones": "List the architectures that --backbone can name, or describe one of them.",
    "runs": "List the runs made so far with their main figures.",
}
"""Each has a module in `pipelines` (see `module_of`) with a `Config` dataclass and `run(config)`."""


def module_of(command: str) -> str:
    """The full name of the module that runs `command`."""
    return f"fewlabel.pipelines.{command.replace('-', '_').replace(' ', '_')}"


def _help(group: str = "") -> str:
    """Of all commands, or of those that begin with `group`."""
    listed = {name: summary for name, summary in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, listed))
    return "\n".join(
        [
            "usage: fewlabel <command> [options]",
            "",
            "Many images, few labels: pretrain, evaluate and search on your own machine.",
            "",
            "commands:",
            *(f"  {name:<{width}}  {summary}" for name, summary in listed.items()),
            "",
            "`fewlabel <command> --help` shows a command's options, `fewlabel --version` the version.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status: 0 for success, 2 for something the user can put right."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    words = 2 if arguments and any(name.startswith(f"{arguments[0]} ") for name in COMMANDS) else 1
    if len(arguments) < words or arguments[words - 1] in ("-h", "--help"):
        print(_help("".join(f"{word} " for word in arguments[: words - 1])))
        return 2 if len(arguments) < words else 0
    if arguments[0] == "--version":
        print(f"fewlabel {__version__}")
        return 0
    command, rest = " ".join(arguments[:words]), arguments[words:]
    try:
        if command not in COMMANDS:
            near = get_close_matches(command, COMMANDS, n=1)
            raise UserError(
                f"There is no command {command!r}."
                + (f" Did you mean {near[0]!r}?" if near else "")
                + f" The commands are {', '.join(COMMANDS)}."
            )
        pipeline = import_module(module_of(command))
        from fewlabel.pipelines.configuration import parse

        status: int = pipeline.run(parse(pipeline.Config, command, rest))
        return status
    except UserError as error:
        from fewlabel.training.processes import first_to_fail

        if first_to_fail():
            from rich.console import Console

            # Not the shared console, which is silent in all processes but the main one.
            shown = Console(stderr=True)
            shown.print("[bold red]Error:[/] ", end="")
            shown.print(str(error), soft_wrap=True, markup=False, highlight=False)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`head`, say) has gone; writing more at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception:
        from fewlabel.training.processes import first_to_fail

        if first_to_fail():
            raise
        return 1


if __name__ == "__main__":
    if sys.path and sys.path[0] and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
        sys.exit(
            "Start Fewlabel with `fewlabel` or `python -m fewlabel`: run as a file, its rooms shadow Python's own."
        )
    sys.exit(main())
