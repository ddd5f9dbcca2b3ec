# Two commands matter: `make figures` and `make test`. Both set up .venv on a bare machine first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OPENBLAS_NUM_THREADS = 1
export MPLBACKEND = Agg

.PHONY: figures studies paper test coverage fuzz test-lowest sanitize sanitize-threads lint docs bench clean
.DELETE_ON_ERROR:

# Bytecode of what is imported is kept; making all of it takes pip as long as all the rest.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile

SOURCES := setup.cfg pyproject.toml setup.py $(wildcard core/* tools/*)
$(VENV)/.core: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -e '.[parquet]'
	touch $@

# All at once: pip builds the package again each time it is asked for it.
$(VENV)/.test: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -e '.[parquet,test,lint]'
	touch $(VENV)/.core $@

# What pip takes to build with, for builds in place: an environment may have none of it, or an older one.
$(VENV)/.build: $(VENV)/.test
	$(BIN)/python $(INSTALL) 'setuptools>=77'
	touch $@

figures: $(VENV)/.core
	$(BIN)/afafilter figures --output figures/quick --force --jobs 2

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy > $(VENV)/mypy.txt 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -n 2 --dist loadfile; failed=$$?; \
	wait $$types || failed=1; cat $(VENV)/mypy.txt; exit $$failed

# Counting lines makes the tests take twice as long.
coverage: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

# Every estimator on many random cases against exact answers; goes on where it was interrupted. Report: fuzz_report/.
CASES := 100000
SEED := 0
fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz --cases $(CASES) --seed $(SEED)

# The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer; calls from many threads under ThreadSanitizer,
# which wants addresses where it expects them (setarch -R).
SANITIZE := ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 AFAFILTER_CORE=sanitize \
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)"
THREADS := TSAN_OPTIONS="exitcode=66 report_bugs=1" AFAFILTER_CORE=threads AFAFILTER_NUM_THREADS=4 \
	LD_PRELOAD="$$($(CXX) -print-file-name=libtsan.so)"
sanitize: $(VENV)/.build
	AFAFILTER_LEVELS=sanitize $(BIN)/python setup.py -q build_ext --inplace
	$(SANITIZE) $(BIN)/python -m pytest -q -p no:cacheprovider $(wildcard tests/*/test_recursions.py)
sanitize-threads: $(VENV)/.build
	AFAFILTER_LEVELS=threads $(BIN)/python setup.py -q build_ext --inplace
	$(THREADS) setarch -R $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/test_threads.py

# The same tests with the lowest versions that setup.cfg declares.
LOWEST := .venv-lowest
test-lowest: setup.cfg
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(PYTHON) tools/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python $(INSTALL) -e '.[test]' -c $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

# Every statement of the paper, checked: writes docs/paper.rst.
paper: $(VENV)/.core
	$(BIN)/python -m simulations._paper

studies: $(VENV)/.core
	$(BIN)/afafilter figures --full --force --jobs 2
	$(BIN)/python -m simulations._summary

$(VENV)/.docs: $(VENV)/.core
	$(BIN)/python $(INSTALL) -e '.[docs]'
	touch $@

docs: $(VENV)/.docs
	rm -rf docs/_build docs/auto_examples docs/api/generated docs/generated
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html
	$(BIN)/python -m pytest -q tests/docs

BENCH := .venv-bench
# torch first: its pinned build is the one without CUDA. A peer that cannot be had has no row.
$(BENCH)/.ready: setup.cfg pyproject.toml
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	-$(BENCH)/bin/python $(INSTALL) torch==2.13.0
	$(BENCH)/bin/python $(INSTALL) -e .
	for peer in statsmodels simdkalman pykalman dynamax torch-kf torchsde diffrax distributed; do \
		$(BENCH)/bin/python $(INSTALL) $$peer || true; \
	done
	touch $@

# make bench TASKS="smoothing attention" runs some of them; OPTIONS="--before CHECKOUT" beside an earlier commit.
bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.threads
	$(BENCH)/bin/python -m benchmarks $(TASKS) $(OPTIONS)

clean:
	rm -rf $(VENV) $(BENCH) $(LOWEST) build afafilter/_core/*.so dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	rm -rf docs/_build docs/generated docs/auto_examples docs/api/generated
