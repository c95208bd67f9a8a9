# make demo, make test: each sets up what it needs and does nothing twice. CONTRIBUTING.md says which to use when.
BIN := .venv/bin
STAMP := .venv/.installed
# Where it is set, each of the many processes of a run would compile the project again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo docs pictures lint test-fast test build mongo bench-quality bench-trust bench-compare bench-sequence setup \
  constraints clean

demo: setup
	$(BIN)/dynaq demo

# The pictures of pages, report and documentation, from the run of `make demo`; needs a Chromium.
pictures: setup
	$(BIN)/python -m tests.support.pictures runs/demo data/esco docs/pictures

# The documentation on http://127.0.0.1:8100, rebuilt when a page changes. Ctrl-C ends it.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --strict --dev-addr 127.0.0.1:8100

# What a commit must pass; .pre-commit-config.yaml runs it.
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Under two minutes on two cores: the tests that need neither engine, browser nor Ray, and are not slow.
FAST := not engine and not browser and not cluster and not slow
test-fast: setup
	$(BIN)/python -m pytest -n 2 -m "$(FAST)"

test: lint
	@bash requirements/chromium.sh
	$(BIN)/python -m pytest -n 2 --dist loadgroup  # the tests of the engine in one process, those of Ray in the other

# Wheel and source distribution in dist/, the wheel built from the source distribution.
build: setup
	$(BIN)/python -m uv build --no-build-isolation --python $(BIN)/python --out-dir dist

# A MongoDB server for a person to try things with, on loopback, its data under data/mongod. Ctrl-C ends it.
mongo: setup
	$(BIN)/python -m tests.support.mongod data/mongod

setup: $(STAMP)

$(STAMP): pyproject.toml requirements/setup.sh requirements/overrides.txt requirements/constraints.txt
	@bash requirements/setup.sh
	@touch $@

# nDCG@10 of agents, ablations and baselines; ONET is a folder of O*NET tables. About a quarter of an hour on two cores.
bench-quality: setup
	@test -n "$(ONET)" || { echo "bench-quality: name the folder of O*NET tables: make bench-quality ONET=FOLDER" >&2; exit 2; }
	$(BIN)/python -m bench.quality --onet $(ONET)

# nDCG@10 against the quality of simulated judges, on ESCO and O*NET, into runs/bench-trust. An hour and more on one core.
bench-trust: setup
	@test -n "$(ONET)" || { echo "bench-trust: name the folder of O*NET tables: make bench-trust ONET=FOLDER" >&2; exit 2; }
	$(BIN)/python -m bench.trust --onet $(ONET)

# Whether planning ahead pays where people change, on ESCO, into runs/bench-sequence. Ten minutes on one core.
bench-sequence: setup
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m bench.sequence

# cosine, llm, hybrid and RLlib's DQN on O*NET over three seeds, with intervals and a report in runs/onet. A few minutes.
bench-compare: setup
	@test -n "$(ONET)" || { echo "bench-compare: name the folder of O*NET tables: make bench-compare ONET=FOLDER" >&2; exit 2; }
	$(BIN)/dynaq ingest --store data/onet-32 --onet $(ONET) --applicants 32
	$(BIN)/python -m bench.graded_ledger --store data/onet-32 --out data/onet-32.parquet
	$(BIN)/dynaq tune --store data/onet-32 --judge ledger:data/onet-32.parquet --strategies cosine,llm,hybrid,rllib-dqn \
	  --seeds 3 --budget 50 --concurrent 2 --actors 1 --out runs/onet

# Writes down the versions that are installed now. What differs between CPU and GPU hosts is left out:
# pyproject.toml pins torch and bounds vllm, and these pin the rest of theirs.
constraints:
	$(BIN)/python -m uv pip freeze --exclude-editable \
	  | grep -v -i -E '^(torch|triton|vllm|nvidia|cuda|intel|apache-tvm-ffi|pip|setuptools|uv)[a-z-]*==' > requirements/constraints.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist runs data *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
