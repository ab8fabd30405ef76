"""`fewlabel search`: how deep, how wide and at what resolution a backbone is best for a source and a budget."""

import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabel.backbones.config import BackboneConfig
from fewlabel.data.config import ViewsConfig
from fewlabel.errors import UserError
from fewlabel.pipelines.configuration import as_dict, load_config
from fewlabel.pipelines.sources import keep_left_out, record_of
from fewlabel.search.config import ProxyConfig, SearchConfig, SearchedSource, StudyConfig
from fewlabel.ssl.config import SimCLRConfig
from fewlabel.tracking.config import RunConfig
from fewlabel.training.config import TrainingConfig

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from fewlabel.pipelines.search_setup import Setup
    from fewlabel.search.study import Studies
    from fewlabel.tracking.run import Run

COMMAND = "search"

WORKER = "FEWLABEL_SEARCH_WORKER"
"""Environment variable with the number of the worker that this process is."""
WORKERS = "workers"
"""Folder of the run with what its workers are told, and a folder for each."""

FREE = ("source.data", "source.exclude", "source.workers", "source.cache_dir", "study.workers", "study.stale_after")
"""Options that a resumed search may have others of."""


@dataclass(frozen=True)
class Config:
    """Find how deep, how wide and at what resolution a backbone is best for a source, by trying it."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """What the search starts from; the scale is its to find."""
    source: SearchedSource = field(default_factory=SearchedSource)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    simclr: SimCLRConfig = field(default_factory=SimCLRConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The full length, of which a trial is a part."""
    search: SearchConfig = field(default_factory=SearchConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
    run: RunConfig = field(default_factory=RunConfig)
    resume: Path | None = None
    """A stopped search's directory: go on with its study, with its own options."""
    config: Path | None = None
    """The config.json of an earlier search: its options become the defaults."""
    json: bool = False
    """Print the result alone, as JSON, on standard output."""


def run(config: Config) -> int:
    """Run the command; its exit status."""
    from fewlabel.search.storage import keep_password
    from fewlabel.training.processes import launched, run_processes

    if WORKER in os.environ:
        processes = config.training.processes or 1
        if processes > 1 and not launched():
            return run_processes(sys.argv[1:], processes)
        return _work(config)
    if launched():
        raise UserError("A search starts its processes itself: run `fewlabel search` with --workers and --processes.")
    if config.study.storage is not None:
        config = replace(config, study=replace(config.study, storage=keep_password(config.study.storage)))
    return _lead(_check(config))


def _check(config: Config) -> Config:
    """Refuse what takes no look at the images; the configuration with the backbone's options as they are read."""
    from fewlabel.backbones.options import as_texts
    from fewlabel.backbones.registry import options_from
    from fewlabel.backbones.scale import Scale
    from fewlabel.data.presets import resolve_preset

    backbone = config.backbone
    options = options_from(backbone.backbone, backbone.backbone_option)
    if Scale.of(backbone) != Scale():
        raise UserError(
            "--scale-phi, --scale-depth, --scale-width and --scale-resolution are what a search finds: leave them out. "
            "--depth-range and its like say where it looks, in --mode free."
        )
    resolve_preset(config.views.views, None, channels=1)
    if config.search.objective == "supervised" and "temperature" in config.search.tune:
        raise UserError("--tune temperature is for contrastive pretraining: --objective supervised has none.")
    return replace(config, backbone=replace(backbone, backbone_option=as_texts(options)))


def _lead(config: Config) -> int:
    """Begin or resume a search, let workers do it, and say what came of it."""
    from fewlabel.console import say
    from fewlabel.pipelines.search_report import Progress, announce, conclude, how_to_resume
    from fewlabel.search.claims import slots_of
    from fewlabel.search.notes import write_study_note
    from fewlabel.search.storage import open_storage, telling_of_loss
    from fewlabel.search.workers import supervise

    setup = _set_up(config)
    config = setup.config
    name = config.study.study or f"{config.backbone.backbone}-{setup.source.name}"
    config = replace(config, study=replace(config.study, study=name))
    shared = None
    if config.resume is None:
        # What can be refused is, before a directory is made.
        setup.base_and_budget()
    if config.study.storage is not None and config.resume is None:
        shared = _studies(setup, open_storage(config.study.storage, stale_after=config.study.stale_after), name)
    with _recorded(config, setup, name) as record:
        studies = shared or _studies(setup, _storage(config, record.directory), name)
        rules, stages = setup.rules(studies)
        write_study_note(studies.proxy)
        with studies.turn():
            slots = slots_of(studies, stages[0])
        announce(setup, config, studies, rules, slots, record.directory)
        progress = Progress(studies)
        told = record.directory / WORKERS / "config.json"
        _tell_workers(told, config, record.directory)
        # The images are the workers' from here on.
        figure, pretrain, environments = setup.objective.figure, _pretrain_config(config), _environments(config)
        del setup, rules, stages
        with telling_of_loss(studies.storage):
            stopped = supervise(
                [sys.executable, "-m", "fewlabel", COMMAND, "--config", str(told)],
                environments,
                record.directory / WORKERS,
                progress=progress,
            )
        if stopped:
            record.close("interrupted", "stopped")
            say(how_to_resume(record.directory))
            return 128 + stopped
        result = conclude(studies, record, figure, pretrain)
        if config.json:
            print(json.dumps(result, indent=2))
    return 0


def _set_up(config: Config) -> "Setup":
    from fewlabel.pipelines.search_setup import set_up
    from fewlabel.training.processes import choose_precision, make_accelerator

    precision = choose_precision(config.training.precision)
    training = replace(config.training, precision=precision, processes=config.training.processes or 1)
    # This process leads and does not train, so it is one, however many each worker has.
    accelerator = make_accelerator(replace(training, processes=None), precision)
    return set_up(replace(config, training=training), accelerator)


def _storage(config: Config, directory: Path) -> "RDBStorage":
    from fewlabel.search.storage import open_storage, sqlite_url

    url = config.study.storage or sqlite_url(directory / "study.db")
    return open_storage(url, stale_after=config.study.stale_after)


def _studies(setup: "Setup", storage: "RDBStorage", name: str) -> "Studies":
    from fewlabel.search.study import open_studies

    return open_studies(storage, name, metrics=setup.metrics, identity=setup.identity, create=True)


def _recorded(config: Config, setup: "Setup", name: str) -> "Run":
    from fewlabel.tracking.run import Run

    options = as_dict(replace(config, run=replace(config.run, out=None), resume=None, config=None, json=False))
    if config.resume is not None:
        record = Run.resume(config.resume, command=COMMAND)
        record.require_config(options, free=FREE)
        return record
    record = Run.create(
        COMMAND,
        options,
        out=config.run.out,
        slug=name,
        parents={"source": f"{setup.source.name}@{setup.source.fingerprint}"},
        source=_about(setup),
        project=config.run.project,
        group=name,
    )
    keep_left_out(setup.source, setup.source.bad, record.directory)
    return record


def _about(setup: "Setup") -> dict[str, Any]:
    source = setup.source
    return {
        **record_of(source, setup.config.source),
        "images": {split: len(source[split]) for split in source},
        "bad_images": [{"id": image.id, "reason": image.reason} for image in source.bad],
    }


def _pretrain_config(config: Config) -> dict[str, Any]:
    """What `fewlabel pretrain` would train the base with."""
    from fewlabel.pipelines.pretrain import Config as Pretrain

    training = replace(config.training, processes=None)
    pretrain = Pretrain(
        config.backbone, config.source, config.views, config.simclr, training, RunConfig(project=config.run.project)
    )
    return as_dict(pretrain)


def _tell_workers(file: Path, config: Config, directory: Path) -> None:
    from fewlabel.files import write_json

    own = replace(config, run=replace(config.run, out=directory.absolute()), resume=None, config=None, json=False)
    write_json(file, {"command": COMMAND, "config": as_dict(own)})


def _environments(config: Config) -> list[dict[str, str]]:
    import torch

    from fewlabel.search.workers import environment_of

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = [str(number) for number in range(torch.cuda.device_count())]
    if devices and named:
        devices = named.split(",")
    workers, processes, cores = config.study.workers, config.training.processes or 1, os.cpu_count() or 1
    return [
        {WORKER: str(index), **environment_of(index, workers, processes, cores=cores, devices=devices)}
        for index in range(workers)
    ]


def _work(config: Config) -> int:
    """Be one process of a worker of the search that `config` was written for."""
    from accelerate.utils import broadcast_object_list

    from fewlabel.pipelines.search_setup import set_up
    from fewlabel.search.final import judge_winner
    from fewlabel.search.worker import Worker, follow
    from fewlabel.training.processes import make_accelerator

    assert config.config is not None
    assert config.run.out is not None
    directory, index = config.run.out, int(os.environ[WORKER])
    accelerator = make_accelerator(config.training, config.training.precision)
    setup = set_up(config, accelerator)
    status = 0
    if accelerator.is_main_process:
        studies = _studies(setup, _storage(config, directory), config.study.study or "")
        rules, stages = setup.rules(studies)
        options = as_dict(replace(load_config(Config, COMMAND, directory), run=RunConfig(project=config.run.project)))
        about = {
            "config": options,
            "source": _about(setup),
            "parents": {"search": directory.name},
            "project": config.run.project,
        }
        worker = Worker(
            studies,
            stages,
            rules,
            setup.objective,
            directory,
            index,
            about=about,
            share=broadcast_object_list,
            processes=accelerator.num_processes,
        )
        stopped = worker.work()
        status = 128 + stopped if stopped else 0
        last = studies if index == 0 and not stopped else None
        judge_winner(last, setup.objective, broadcast_object_list)
    else:
        follow(setup.objective, broadcast_object_list)
        judge_winner(None, setup.objective, broadcast_object_list)
    accelerator.end_training()
    return status
