# Every target sets up .venv by itself: what runs need, and for test, lint and format the [dev] tools as well.
# SCALE=desk (default), smoke or paper; DATA=/path for real datasets; SEEDS="0 1 2"; WORKERS, JOBS: see --help.
PYTHON ?= python3
SCALE ?= desk
SEEDS ?= 0

venv := .venv
bin := $(venv)/bin
sslbench := $(bin)/sslbench
# in quotes for a path with a space, which keep the shell from its ~
data := $(if $(DATA),--data "$(patsubst ~/%,$(HOME)/%,$(DATA))")
options := --scale $(SCALE) --seeds $(SEEDS) $(if $(WORKERS),--workers $(WORKERS)) $(if $(JOBS),--jobs $(JOBS)) $(data)
# these fork, which autograd does not survive in a process where it has run: workers of their own
forking := tests/test_engine_resume.py tests/test_engine_processes.py tests/test_transfer_resume.py

.PHONY: help install install-dev test lint format world tables leaderboards check regress
.DEFAULT_GOAL := help

help:
	@echo "make test                      lint, types and every test"
	@echo "make reproduce-<recipe>        one recipe with the reference rows, from nothing to the tables"
	@echo "make reproduce-<paper>-tables  every row of a paper's tables, e.g. pirl"
	@echo "  SCALE=desk|smoke|paper  DATA=/path/to/datasets (paper)  SEEDS=\"0 1 2\"  WORKERS=8  JOBS=2"
	@echo "make tables                    write leaderboards/*.md again from the published records"
	@echo "make leaderboards              that, and the site with plots and downloads, in build/leaderboards"
	@echo "make check                     the regression gate on what is published, and on runs where there are any"
	@echo "make regress                   run REGRESS (default: the quickest recipes) at SCALE again, then the gate"

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

# recipes with targets at that scale; the references come along. At desk scale add REGRESS="pirl npid_pp ..." as time allows
REGRESS ?= $(if $(filter smoke,$(SCALE)),pirl npid_pp,rotation)
regress: $(venv)/.installed
	$(sslbench) reproduce $(REGRESS) $(options)
	$(sslbench) check --scale $(SCALE)

reproduce-%-tables: $(venv)/.installed
	$(sslbench) reproduce --tables-of $* $(options)

reproduce-%: $(venv)/.installed
	$(sslbench) reproduce $* $(options)
