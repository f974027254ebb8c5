# Every target makes its own environment from nothing, in one command, and reuses it while
# pyproject.toml, constraints.txt and TORCH stay the same.
#
#   make test    what must pass before a change goes in
#   make nightly the same with all of the tests, those that take longer too
#   make lint    style and types alone
#   make demo    ask the released model for what is hidden in long texts and in files
#   make docs    the documentation, into site/
#   make clean   delete environments and everything built
#
# Other versions:  make test PYTHON=python3.12 TORCH=torch==2.14.1

PYTHON ?= python3
TORCH ?= torch==2.13.0

KEY := $(shell (cat pyproject.toml constraints.txt; echo "$(TORCH) $(PYTHON)") | cksum | cut -d" " -f1)
TEST := .venv-test/bin
DEMO := .venv-demo/bin
DOCS := .venv-docs/bin

# one thread per pytest worker
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# without its cache every process would compile every file again
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test nightly lint style types quick full wheel demo docs clean

# its parts side by side: the type check and the build keep one core busy each
test: style
	@$(MAKE) --no-print-directory -j3 types quick wheel

nightly: style
	@$(MAKE) --no-print-directory -j3 types full wheel

lint: style types

style: .venv-test/installed-$(KEY)
	$(TEST)/ruff check
	$(TEST)/ruff format --check

types: .venv-test/installed-$(KEY)
	$(TEST)/mypy

quick: .venv-test/installed-$(KEY)
	$(TEST)/python -m pytest -n 2 --dist worksteal -m "not slow"

full: .venv-test/installed-$(KEY)
	$(TEST)/python -m pytest -n 2 --dist worksteal

wheel: .venv-test/installed-$(KEY)
	rm -rf dist
	$(TEST)/python -m build --outdir dist >/dev/null
	@for file in gcattn/py.typed gcattn/data/tokenizer/tokenizer.json \
	    gcattn/data/tokenizer/tokenizer_config.json \
	    gcattn/data/needle_tasks/note_frames_training.txt \
	    gcattn/data/needle_tasks/note_frames_evaluation.txt \
	    gcattn/data/stories/tellings_training.txt \
	    gcattn/data/stories/tellings_evaluation.txt \
	    gcattn/ops/native/kernels.c gcattn/ops/native/shared_work.h; do \
	  $(TEST)/python -m zipfile -l dist/*.whl | grep "^$$file " >/dev/null \
	    || { echo "the wheel lacks $$file" >&2; exit 1; }; \
	done; echo "the wheel holds the tokenizer, the notes, the stories, the kernels in C and py.typed"
	@test -z "$$(find dist -name '*.whl' -size +2M)" \
	  || { echo "the wheel takes more than 2 MiB" >&2; exit 1; }

demo: .venv-demo/installed-$(KEY)
	env -u OMP_NUM_THREADS $(DEMO)/python -m experiments.demo --model checkpoints/gcattn-39m

docs: .venv-docs/installed-$(KEY)
	$(DOCS)/zensical build --clean --strict

clean:
	rm -rf .venv-test .venv-demo .venv-docs dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv-test/installed-$(KEY): EXTRAS = test,train,eval
.venv-demo/installed-$(KEY): EXTRAS = train,eval
.venv-docs/installed-$(KEY): EXTRAS = docs

# torch comes first and is named again, so that no other package can exchange it
.venv-%/installed-$(KEY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed, as in: make PYTHON=python3.12" >&2; exit 1; }
	rm -rf .venv-$*
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install -q "$(TORCH)"
	.venv-$*/bin/python -m pip install -q -c constraints.txt -e ".[$(EXTRAS)]" "$(TORCH)"
	touch $@
