"""Every picture of a study: the curves of scaling, and Optuna's own."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fewlabel.search.curves import Plot, cost_law, scaling_curves
from fewlabel.search.table import quality_name, rows_of
from fewlabel.search.verdict import chosen_coefficients

if TYPE_CHECKING:
    import optuna

__all__ = ["plots_of"]


def plots_of(study: "optuna.Study") -> list[Plot]:
    """Every picture that the trials so far are enough for; the curves of scaling first."""
    rows = rows_of(study)
    name = quality_name(study)
    chosen = chosen_coefficients(study)
    return [
        *([scaling_curves(rows, name, chosen)] if any(row.finished and row.ratio for row in rows) else []),
        *cost_law(rows, chosen),
        *_of_optuna(study, name),
    ]


def _of_optuna(study: "optuna.Study", name: str) -> list[Plot]:
    """Optuna's own figures, each where there are trials enough for it."""
    from optuna import visualization
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    several = len(study.directions) > 1
    target: Callable[[Any], float] | None = (lambda trial: float(trial.values[0])) if several else None
    worse: Callable[[Any], float] | None = (lambda trial: -float(trial.values[0])) if several else None
    varied = {key for trial in done for key in trial.params if len({other.params.get(key) for other in done}) > 1}
    plots = []
    if several and done and len(study.directions) <= 3:
        plots.append(
            Plot(
                "pareto_front",
                "The Pareto front",
                visualization.plot_pareto_front(study, target_names=study.metric_names),
                "The trials that no other beats in every objective, and the others: choose by the cost you can pay.",
            )
        )
    if done:
        plots.append(
            Plot(
                "history",
                "The course of the search",
                visualization.plot_optimization_history(study, target=target, target_name=name),
                f"The {name} of each trial in the order in which they began, and the best so far.",
            )
        )
    if len(done) > 1 and varied:
        params = sorted(varied)
        with warnings.catch_warnings():
            # That it asks what makes a target low, which is why ours is turned round.
            warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes", UserWarning)
            importances = visualization.plot_param_importances(study, params=params, target=worse, target_name=name)
        plots.append(
            Plot(
                "importances",
                "What mattered",
                importances,
                f"How much of the difference in {name} each parameter accounts for among these trials (PED-ANOVA; "
                "Watanabe et al. 2023, arXiv:2304.10255). It tells no direction, and little of few trials.",
            )
        )
        plots.append(
            Plot(
                "parallel_coordinate",
                "All trials at a glance",
                visualization.plot_parallel_coordinate(study, params=params, target=target, target_name=name),
                "A line for each finished trial.",
            )
        )
    for plot in plots:
        plot.figure.update_layout(title=None, template="plotly_white", margin={"t": 40, "b": 50})
    return plots
