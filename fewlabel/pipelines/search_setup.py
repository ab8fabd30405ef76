"""What the process that leads a search and its workers derive alike from the configuration and the images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fewlabel.backbones.meta import without_weights
from fewlabel.backbones.registry import options_from
from fewlabel.backbones.scale import LIMITS, Scale
from fewlabel.console import say
from fewlabel.data.loading import load
from fewlabel.data.presets import resolve_preset
from fewlabel.data.source import Source
from fewlabel.data.views import TwoViews
from fewlabel.errors import UserError
from fewlabel.pipelines.configuration import as_dict
from fewlabel.pipelines.sources import base_image_size
from fewlabel.search.candidate import Candidate
from fewlabel.search.claims import Rules, Stage
from fewlabel.search.compound import growth
from fewlabel.search.cost import Budget, Cost, Model, count
from fewlabel.search.objective import Objective
from fewlabel.search.pruning import Pruning, make_pruner
from fewlabel.search.sampling import Range, Space, smallest, space_of
from fewlabel.search.stages import stages_of
from fewlabel.search.study import Studies
from fewlabel.supervised.config import FinetuneConfig
from fewlabel.supervised.finetune_plan import settle_finetuning
from fewlabel.training.config import TrainingConfig
from fewlabel.training.optimizers import settle_optimizer

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from fewlabel.pipelines.search import Config

__all__ = ["Setup", "set_up"]

INDIFFERENT = ("run", "study", "resume", "config", "json")
"""Parts of the configuration that no trial's value depends on."""
PLACES = ("data", "workers", "cache_dir")
"""Of the source: its fingerprint says which images they are."""


@dataclass(frozen=True)
class Setup:
    """A search that is ready to begin, or to be worked on."""

    config: "Config"
    """With the image size, the preset and the objective that the source suggests."""
    source: Source
    objective: Objective
    defaults: dict[str, float]
    """Of each setting that is tuned beside the scale, what training takes by itself."""
    space: Space

    @property
    def model(self) -> Model:
        """The base at full length: what costs are counted of."""
        return self.objective.model(full=True)

    @property
    def against(self) -> tuple[str, ...]:
        """The costs that are objectives."""
        search = self.config.search
        return search.against if search.mode == "free" else ()

    @property
    def metrics(self) -> list[str]:
        """Names of the objectives."""
        return [self.objective.figure, *self.against]

    @property
    def identity(self) -> dict[str, Any]:
        """What a study must agree in to be worked on together."""
        known = as_dict(self.config)
        for name in INDIFFERENT:
            del known[name]
        for name in PLACES:
            del known["source"][name]
        del known["training"]["processes"], known["search"]["confirm"]
        return {**known, "fingerprint": self.source.fingerprint}

    def cost(self, candidate: Candidate) -> Cost:
        """The cost of a candidate at full length; its latency where that counts.

        Raises:
            UserError: the family can't take it, or not at the size of a trial's images.
        """
        # A trial's smaller images may be too small.
        count(self.objective.model(full=False), candidate.scale)
        return count(self.model, candidate.scale, latency_on=self._latency_on)

    @property
    def _latency_on(self) -> "torch.device | None":
        timed = self.config.search.budget_latency is not None or "latency" in self.against
        return self.objective.accelerator.device if timed else None

    def rules(self, studies: Studies) -> tuple[Rules, list[Stage]]:
        """How its workers decide, and what they do; the first to ask settles for all what the base costs and allows.

        Raises:
            UserError: as `base_and_budget`.
        """
        search = self.config.search
        plan = self.objective.plan(full=False)
        with studies.turn():
            known = studies.proxy.user_attrs
            if "base" not in known:
                base, budget = self.base_and_budget()
                studies.proxy.set_user_attr("base", base.as_json())
                studies.proxy.set_user_attr("budget", asdict(budget))
            else:
                base, budget = Cost.from_json(known["base"]), Budget(**known["budget"])
        rules = Rules(
            space=self.space,
            seed=self.config.training.seed,
            count=self.cost,
            base=base,
            budget=budget,
            pruning=Pruning(search.pruner, self.against, plan.evaluate_steps, plan.total_steps),
            pruner=lambda: make_pruner(
                search.pruner,
                objectives=len(self.metrics),
                first_step=plan.evaluate_steps,
                last_step=plan.total_steps,
            ),
        )
        return rules, stages_of(search, self.model, base, budget, self.defaults)

    def base_and_budget(self) -> tuple[Cost, Budget]:
        """What the base costs, and what candidates may.

        Raises:
            UserError: the budget is no number, less than the smallest candidate takes, or too little to compare more.
        """
        search, base = self.config.search, self.cost(Candidate())
        flops, parameters, latency = search.budget_flops, search.budget_params, search.budget_latency
        if search.mode == "compound" and flops is parameters is latency is None:
            flops = "4x"
        budget = Budget.parse(base, flops=flops, parameters=parameters, latency=latency)
        if search.mode == "compound":
            budget.check_smallest(base)
            growth(base, budget)
        else:
            budget.check_smallest(smallest(self.model, self.space, latency_on=self._latency_on))
        return base, budget


def set_up(config: "Config", accelerator: "Accelerator") -> Setup:
    """Read the source and settle what the user left open; every process must call this.

    Raises:
        UserError: the source can't be read or judged by, or options contradict it or one another.
    """
    with accelerator.main_process_first():
        source = load(config.source)
    backbone = config.backbone
    size = base_image_size(source, backbone)
    model = Model(backbone.backbone, size, source.channels, options_from(backbone.backbone, backbone.backbone_option))
    kind = config.search.objective
    if kind == "auto":
        kind = "knn" if source.class_names is None else "probe"
    objective = Objective(
        kind,
        source,
        model,
        source_config=config.source,
        views=config.views,
        simclr=config.simclr,
        training=config.training,
        proxy=config.proxy,
        labels=config.search.labels,
        accelerator=accelerator,
    )
    # Training stays as it was given: what is open there depends on the length, and a trial's is another.
    config = replace(
        config,
        backbone=replace(backbone, image_size=size),
        source=config.source.resolved(),
        views=replace(config.views, views=resolve_preset(config.views.views, source.hints.views, source.channels)),
        search=replace(config.search, objective=kind),
    )
    defaults = _defaults(config, objective, model)
    if config.search.mode == "free":
        space = _within_reach(space_of(config.search, defaults), model)
    else:
        space = {name: Range(*LIMITS) for name in ("depth", "width", "resolution")}
    return Setup(config, source, objective, defaults, space)


def _within_reach(space: Space, model: Model) -> Space:
    """The space with each dimension that the family can't scale held at 1, which the user is told.

    Raises:
        UserError: then nothing is left to choose.
    """
    reached = dict(space)
    for name in ("depth", "width", "resolution"):
        refused = None
        for end in (space[name].least, space[name].greatest):
            try:
                count(model, Candidate(**{name: end}).scale)
                break
            except UserError as error:
                refused = error
        else:
            reached[name] = Range(1.0, 1.0)
            say(f"The {name} stays as it is: {refused}")
    if all(one.least == one.greatest for one in reached.values()):
        raise UserError(f"Nothing is left to search for {model.name} in these ranges: take wider ones, or --tune.")
    return reached


def _defaults(config: "Config", objective: Objective, model: Model) -> dict[str, float]:
    """What a training of the base takes for each setting that is to be tuned."""
    tuned = config.search.tune
    if not tuned:
        return {}
    with without_weights():
        backbone = model.create(Scale())
    training = objective.training(full=False)
    if isinstance(training, FinetuneConfig):
        settled: TrainingConfig = settle_finetuning(
            training,
            len(objective.images(full=False)),
            trained=False,
            convolutional=backbone.convolutional,
            processes=training.processes or 1,
        )[0]
    else:
        settled = settle_optimizer(training, training.batch_size or 0, convolutional=backbone.convolutional)
    channels = (0.0,) * model.in_chans, (1.0,) * model.in_chans
    strength = TwoViews(config.views.views, backbone.image_size, *channels, config.views.strength).strength
    known: Mapping[str, float | None] = {
        "lr": settled.lr,
        "weight_decay": settled.weight_decay,
        "temperature": config.simclr.temperature,
        "view_strength": strength,
    }
    return {name: value for name in tuned if (value := known[name]) is not None}
