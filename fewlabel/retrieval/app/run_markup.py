"""A run as HTML: its figures, curves, pictures and report, all read from its directory."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fewlabel.data.decode import DecodeError, decode
from fewlabel.errors import UserError
from fewlabel.files import read_json
from fewlabel.retrieval.app.markup import data_uri
from fewlabel.retrieval.thumbnails import thumbnail_of
from fewlabel.tracking.catalogue import RunRecord
from fewlabel.tracking.curves import curve_png, series_of
from fewlabel.tracking.report import shown

__all__ = ["REPORT", "run_markup", "runs_table"]

REPORT: Final = "report.html"

_PICTURE_SIDE: Final = 1600
_MOST_PICTURES: Final = 12
_MOST_CURVES: Final = 24


def runs_table(records: Sequence[RunRecord]) -> str:
    """A row for each run, whose name is a button."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("run", "made", "status", "source", "backbone", "figure"))
    rows = []
    for record in records:
        name = escape(record.directory.name)
        made = record.created.astimezone().strftime("%Y-%m-%d %H:%M")
        texts = (made, record.status, record.source or "", record.backbone or "", _main_figure(record))
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        rows.append(f'<tr><td><button type="button" data-key="{name}">{name}</button></td>{cells}</tr>')
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _main_figure(record: RunRecord) -> str:
    figure = record.figure
    if figure is None:
        return ""
    if figure.low is None or figure.high is None:
        return f"{figure.name} {shown(figure.value)}"
    return f"{figure.name} {shown({'mean': figure.value, 'low': figure.low, 'high': figure.high})}"


def run_markup(record: RunRecord) -> str:
    """All of a run that is worth a look."""
    directory = record.directory
    terms = {
        "status": record.status,
        "source": record.source or "",
        "backbone": record.backbone or "",
        "made from": ", ".join(f"{role} {name}" for role, name in record.parents.items()),
        "directory": str(directory),
        **_figures(directory / "result.json"),
    }
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in terms.items() if text)
    parts = [f"<h2>{escape(directory.name)}</h2><dl>{facts}</dl>"]
    if curves := _curves(directory / "metrics.jsonl"):
        parts.append(f'<h3>Curves</h3><div class="curves">{curves}</div>')
    if (directory / REPORT).is_file():
        address = f"report/{quote(directory.name, safe='')}"
        parts.append(
            f'<h3>Report</h3><p><a href="{address}" target="_blank" rel="noopener">Open it in a tab of its own</a></p>'
            f'<iframe src="{address}" sandbox title="Report of {escape(directory.name)}"></iframe>'
        )
    if pictures := _pictures(directory):
        parts.append(f'<h3>Pictures</h3><div class="pictures">{pictures}</div>')
    return "".join(parts)


def _figures(path: Path) -> dict[str, str]:
    """The final figures that are a number, with their intervals."""
    try:
        metrics = read_json(path)["metrics"]
    except (UserError, KeyError, TypeError):
        return {}
    numbers = {
        name: value
        for name, value in metrics.items()
        if isinstance(value, int | float)
        or (isinstance(value, dict) and all(isinstance(value.get(part), float) for part in ("mean", "low", "high")))
    }
    return {name: shown(value) for name, value in numbers.items()}


def _curves(path: Path) -> str:
    """A drawing of each metric that was logged at two steps or more."""
    series = {name: line for name, line in series_of(path).items() if len(line[0]) > 1}
    drawn = [
        f"<figure><figcaption><b>{escape(name)}</b> {values[-1]:.4g}</figcaption>"
        f'<img src="{data_uri(curve_png(steps, values))}" alt="{escape(name)} from {values[0]:.4g} at step '
        f'{steps[0]:,} to {values[-1]:.4g} at step {steps[-1]:,}"></figure>'
        for name, (steps, values) in list(series.items())[:_MOST_CURVES]
    ]
    left = len(series) - len(drawn)
    return "".join(drawn) + (f"<p>… and {left} more in {escape(path.name)}</p>" if left else "")


def _pictures(directory: Path) -> str:
    """The pictures that the run drew, decoded and encoded anew: only an image gets out."""
    found = [path for pattern in ("*.png", "pictures/*.png") for path in sorted(directory.glob(pattern))]
    drawn = []
    for path in found[:_MOST_PICTURES]:
        try:
            picture = thumbnail_of(decode(path.read_bytes()), _PICTURE_SIDE)
        except (OSError, DecodeError):
            continue
        name = escape(path.stem.replace("_", " "))
        drawn.append(f'<figure><figcaption>{name}</figcaption><img src="{data_uri(picture)}" alt="{name}"></figure>')
    return "".join(drawn)
