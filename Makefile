# Every target sets up .venv by itself, with what runs need; test, lint and format add the [dev] tools.
# SCALE=desk (default), smoke, photos or paper; DATA=/path for real datasets, which the last two need; SEEDS="0 1 2";
# WORKERS, JOBS, INCOMPLETE=1: see --help.
PYTHON ?= python3
SCALE ?= desk
SEEDS ?= 0

venv := .venv
bin := $(venv)/bin
sslbench := $(bin)/sslbench
# Quoted, as a path may contain spaces, and not taken apart by make, which would make one of two. sslbench expands a ~.
data := $(if $(DATA),--data "$(DATA)")
running := $(if $(WORKERS),--workers $(WORKERS)) $(if $(JOBS),--jobs $(JOBS)) $(if $(INCOMPLETE),--incomplete)
options := --scale $(SCALE) --seeds $(SEEDS) $(running) $(data)
# These tests fork, and autograd fails in a fork of a process that has used it already: they get workers of their own.
forking := $(shell grep -lw small_runs tests/test_*.py | xargs grep -lw 'in_processes\|Processes')

.PHONY: help install install-dev test lint format world tables leaderboards check regress
.DEFAULT_GOAL := help

help:
	@echo "make test                      lint, types and every test"
	@echo "make reproduce-<recipe>        one recipe and the reference rows, from nothing to the tables"
	@echo "make reproduce-<paper>-tables  every row of a paper's tables, e.g. pirl, or of one table by its key, e.g. jigsaw_shortcuts"
	@echo "  SCALE=desk|smoke|photos|paper  DATA=/path/to/datasets (photos, paper)  SEEDS=\"0 1 2\"  WORKERS=8  JOBS=2"
	@echo "make tables                    write leaderboards/*.md again from the published records"
	@echo "make leaderboards              the same, and a website with plots and downloads in build/leaderboards"
	@echo "make check                     the regression gate on the published records, and on your runs if there are any"
	@echo "make regress                   run REGRESS (default: the quickest recipes) again at SCALE, then the gate"

$(venv)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sslbench needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(venv)
	$(bin)/python -m pip install -e .
	touch $@

$(venv)/.installed-dev: $(venv)/.installed
	$(bin)/python -m pip install -e '.[dev]'
	touch $@

install: $(venv)/.installed

install-dev: $(venv)/.installed-dev

lint: $(venv)/.installed-dev
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports --no-cache

format: $(venv)/.installed-dev
	$(bin)/ruff check --fix
	$(bin)/ruff format

test: lint
	$(bin)/python -m pytest -n 2 $(forking)
	$(bin)/python -m pytest -n 2 $(addprefix --ignore ,$(forking))

world: $(venv)/.installed
	$(sslbench) world --scale $(SCALE)

tables: $(venv)/.installed
	$(sslbench) tables --write

leaderboards: $(venv)/.installed
	$(sslbench) leaderboards build/leaderboards

check: $(venv)/.installed
	$(sslbench) check

# Recipes that have targets at that scale; the reference rows run too. At desk scale, add REGRESS="pirl npid_pp ..." as
# time allows.
REGRESS ?= $(if $(filter smoke,$(SCALE)),pirl npid_pp,rotation)
regress: $(venv)/.installed
	$(sslbench) reproduce $(REGRESS) $(options)
	$(sslbench) check --scale $(SCALE)

reproduce-%-tables: $(venv)/.installed
	$(sslbench) reproduce --tables-of $* $(options)

reproduce-%: $(venv)/.installed
	$(sslbench) reproduce $* $(options)
