# The two commands of this project are `make backup` and `make test`; the others are for its makers.
#   make backup                                  against a demo cluster that it starts itself
#   make backup BUILD=/path/to/build TARGET=/to  against a real cluster

# Three files of tests at a time: most of them wait for hosts. A part: PYTEST_FLAGS=tests/unit
PYTEST_FLAGS ?= --numprocesses=3 --dist=loadfile

.PHONY: backup test bench lint format lock docs demo-down

backup:
	@BUILD='$(BUILD)' TARGET='$(TARGET)' STACK='$(STACK)' scripts/backup

test:
	@scripts/setup dev
	@.venv/bin/epibackup engine obtain
	.venv/bin/pytest $(PYTEST_FLAGS)

bench:
	@scripts/setup dev
	@.venv/bin/epibackup engine obtain
	.venv/bin/python -m benchmarks

lint:
	@scripts/setup dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/shellcheck scripts/* .ci/run

format:
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

# Raise the pins: the locks name versions and hashes, and no package host.
lock:
	@scripts/setup dev
	.venv/bin/uv pip compile pyproject.toml --quiet --no-header --no-emit-index-url --generate-hashes \
	  --python-version 3.11 --upgrade --group build --group dev -o requirements/dev.txt
	.venv/bin/uv pip compile pyproject.toml --quiet --no-header --no-emit-index-url --generate-hashes \
	  --python-version 3.11 --upgrade --group build -c requirements/dev.txt -o requirements/run.txt

# The pages that are made from the code.
docs:
	.venv/bin/epibackup config sample > stacks/Pulumi.sample.yaml
	.venv/bin/epibackup config reference > docs/configuration.md
	.venv/bin/epibackup config manifest-schema > docs/manifest.schema.json

demo-down:
	.venv/bin/python -m lab down
