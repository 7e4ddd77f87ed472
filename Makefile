# What can be done here: `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

export OFFSHOOT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/offshoot
# CI starts from fresh clones: what is built stays outside of them.
export CARGO_TARGET_DIR ?= $(if $(filter true,$(CI)),$(OFFSHOOT_CACHE)/target,$(CURDIR)/target)
export CARGO ?= cargo
export PATH := $(OFFSHOOT_CACHE)/tools/bin:$(PATH)
demo serve dev clean-data: export OFFSHOOT_DATA_DIR ?= $(CURDIR)/data

offshoot := $(CARGO_TARGET_DIR)/release/offshoot

.PHONY: help demo serve build package test lint fmt audit soak bench dev clean-data checkout

help: ## Lists what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Standard output belongs to the demo alone: with ARGS="--once --json" the JSON is the last thing on it.
demo: ## Clones a running guest and shows it in the browser; ARGS=--once does it and ends, ARGS="--once --json" tells it as JSON
	@scripts/setup.sh demo
	@$(MAKE) build >&2
	@image=$$(guest/build.sh) && exec $(offshoot) demo --image demo="$$image" $(ARGS)

build: ## Builds the console and the program, release
	@scripts/build.sh

serve: build ## Runs the server on the demo's data; ARGS are its flags
	@exec $(offshoot) serve $(ARGS)

package: build ## Makes a Debian package, with a systemd unit
	@scripts/package.sh

test: ## Installs what tests need and runs everything
	@scripts/test.sh

lint: checkout ## Formatting, lints as errors, licences and sources of dependencies
	@scripts/lint.sh

fmt: ## Formats the Rust sources
	@$(CARGO) fmt --all

audit: ## Asks for known vulnerabilities of the dependencies; needs the network
	@$(CARGO) deny --all-features check advisories

soak: checkout ## Long and random runs: SOAK_MINUTES=30, SEED=n repeats one
	@scripts/soak.sh

bench: ## Takes the figures; ONLY=group takes one group
	@scripts/setup.sh bench
	@$(MAKE) build
	@bench/run.sh $(ONLY)

dev: ## Builds and runs the server, again at each change of the sources
	@scripts/dev.sh $(ARGS)

clean-data: ## Switches the demo's machines off and deletes its data
	@scripts/clean-data.sh

checkout:
	@scripts/checkout.sh
