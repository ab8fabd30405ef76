# Every variable maps onto one flag; anything else goes through ARGS, as in
#   make pretrain BACKBONE=vit DATA=photos/ EPOCHS=100 BATCH=256 GPUS=4 ARGS="--temperature 0.2"
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/fewlabel
INSTALLED := $(VENV)/.installed

TRAINING_FLAGS := $(if $(DATA),--data "$(DATA)") $(if $(EPOCHS),--epochs $(EPOCHS)) $(if $(BATCH),--batch-size $(BATCH)) \
	$(if $(GPUS),--processes $(GPUS)) $(if $(VIEWS),--views $(VIEWS)) $(if $(SEED),--seed $(SEED)) $(if $(OUT),--out "$(OUT)") \
	$(if $(RESUME),--resume "$(RESUME)")
FLAGS := $(if $(BACKBONE),--backbone $(BACKBONE)) $(if $(IMAGE_SIZE),--image-size $(IMAGE_SIZE)) $(TRAINING_FLAGS)
VIEW_FLAGS := $(if $(DATA),--data "$(DATA)") $(if $(VIEWS),--views $(VIEWS)) $(if $(IMAGE_SIZE),--image-size $(IMAGE_SIZE)) \
	$(if $(SEED),--seed $(SEED)) $(if $(OUT),--out "$(OUT)")

# An index where none was named and none is there.
INDEXED = @$(if $(INDEX),true,$(RUN) index info --json >/dev/null 2>&1 || $(RUN) index build \
	$(if $(ENCODER),--encoder "$(ENCODER)") $(if $(DATA),--data "$(DATA)"))

.DEFAULT_GOAL := help
.PHONY: help setup clean-data pretrain probe finetune predict label-curve views index query app search dashboard backbones runs test lint bench bench-backbones docs clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{ printf "  make %-16s %s\n", $$1, $$2 }'
	@echo 'Variables: BACKBONE DATA EPOCHS BATCH GPUS IMAGE_SIZE VIEWS SEED OUT RESUME ENCODER CLASSIFIER LABELS IMAGE INDEX TRIALS WORKERS STORAGE STUDY SEARCH; anything else in ARGS="--flag value".'

setup: $(INSTALLED) ## Make .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "Fewlabel needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean-data: $(INSTALLED) ## Find what is wrong with the images of DATA, with a report; nothing is changed unless asked
	@test -n "$(DATA)" || { echo 'Which images? As in: make clean-data DATA=photos/'; exit 2; }
	@$(RUN) clean "$(DATA)" $(if $(ENCODER),--encoder "$(ENCODER)") $(if $(OUT),--out "$(OUT)") $(ARGS)

pretrain: $(INSTALLED) ## Learn features from images without labels: BACKBONE=resnet50 DATA=folder
	@$(RUN) pretrain $(FLAGS) $(ARGS)

probe: $(INSTALLED) ## Say what an encoder's features are worth with few labels: ENCODER=run (the newest) DATA=folder
	@$(RUN) probe $(if $(ENCODER),--encoder "$(ENCODER)") $(if $(DATA),--data "$(DATA)") $(if $(SEED),--seed $(SEED)) \
		$(if $(OUT),--out "$(OUT)") $(ARGS)

finetune: $(INSTALLED) ## Train a classifier on few labels: ENCODER=run (the newest), scratch or timm:name LABELS=0.1 DATA=folder
	@$(RUN) finetune $(if $(ENCODER),--encoder "$(ENCODER)") $(if $(LABELS),--labels $(LABELS)) $(FLAGS) $(ARGS)

predict: $(INSTALLED) ## Say what a classifier sees on images, as a table: CLASSIFIER=run (the newest) DATA=folder
	@$(RUN) predict $(if $(CLASSIFIER),--classifier "$(CLASSIFIER)") $(if $(DATA),--data "$(DATA)") \
		$(if $(OUT),--out "$(OUT)") $(ARGS)

label-curve: $(INSTALLED) ## Say whether pretraining paid, with a report: ENCODER=run (the newest) DATA=folder LABELS="0.01 0.1 1"
	@$(RUN) label-curve $(if $(ENCODER),--encoder "$(ENCODER)") $(if $(LABELS),--labels $(LABELS)) $(TRAINING_FLAGS) $(ARGS)

views: $(INSTALLED) ## Draw augmented pairs of DATA's images, to look at before training
	@$(RUN) views $(VIEW_FLAGS) $(ARGS)

index: $(INSTALLED) ## Make an index to find similar images in: ENCODER=run (the newest) DATA=folder
	@$(RUN) index build $(if $(ENCODER),--encoder "$(ENCODER)") $(if $(DATA),--data "$(DATA)") $(if $(SEED),--seed $(SEED)) \
		$(if $(OUT),--out "$(OUT)") $(ARGS)

query: $(INSTALLED) ## Find the images most like IMAGE=file: INDEX=run (the newest; with none yet, one is made first of ENCODER and DATA)
	@test -n "$(IMAGE)" || { echo 'Which image? As in: make query IMAGE=photo.jpg'; exit 2; }
	$(INDEXED)
	@$(RUN) query "$(IMAGE)" $(if $(INDEX),--index "$(INDEX)") $(ARGS)

app: $(INSTALLED) ## Search an index and look at the runs on a page of this machine: INDEX=run (the newest, or made first)
	$(INDEXED)
	@$(RUN) app $(if $(INDEX),--index "$(INDEX)") $(ARGS)

search: $(INSTALLED) ## Find how deep, wide and fine BACKBONE is best for DATA: TRIALS=30 WORKERS=2 STORAGE=postgresql://... STUDY=name
	@$(RUN) search $(if $(TRIALS),--trials $(TRIALS)) $(if $(WORKERS),--workers $(WORKERS)) \
		$(if $(STORAGE),--storage "$(STORAGE)") $(if $(STUDY),--study "$(STUDY)") $(FLAGS) $(ARGS)

dashboard: $(INSTALLED) ## Look at a search in the browser: SEARCH=its run (the newest), or all studies in a STORAGE
	@$(RUN) dashboard $(if $(SEARCH),--study "$(SEARCH)") $(if $(STORAGE),--storage "$(STORAGE)") $(ARGS)

backbones: $(INSTALLED) ## List the architectures that BACKBONE can name, or describe the one it names
	@$(RUN) backbones $(BACKBONE) $(if $(IMAGE_SIZE),--image-size $(IMAGE_SIZE)) $(ARGS)

runs: $(INSTALLED) ## List the runs made so far
	@$(RUN) runs $(ARGS)

test: $(INSTALLED) ## Run the test suite
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile $(ARGS)

lint: $(INSTALLED) ## Check format, style, types and the order of the rooms
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(INSTALLED) ## Measure beside the peers: DATA=CIFAR-10 parquet PHOTOS=folder of JPEGs LABELLED=labelled images ENCODER=run/encoder
	$(VENV)/bin/python -m benchmarks $(if $(DATA),--data "$(DATA)") $(if $(PHOTOS),--photos "$(PHOTOS)") \
		$(if $(LABELLED),--labelled "$(LABELLED)") $(if $(ENCODER),--encoder "$(ENCODER)") $(ARGS)

bench-backbones: $(INSTALLED) ## Measure a training step of every family and write docs/backbones.md
	$(VENV)/bin/python -m benchmarks.bench_backbones $(ARGS)

docs: $(INSTALLED) ## Count the catalogue again and write docs/backbones.md from the registry
	$(VENV)/bin/python -m benchmarks.backbones_page

clean: ## Remove .venv and caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
