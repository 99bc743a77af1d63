# `make demo` and `make test` are all a newcomer needs; each sets up what it uses. `make help` lists the rest.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Python compiles a module on its first import and caches the result. Compiling all of torch in advance takes half of
# the installation.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo docs screenshots test test-faults test-random test-mysql test-lightning test-libraries \
	test-deploy lock lint audit format serve clean mariadb postgresql chromium faketime nginx caddy haproxy rsync

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

install: $(INSTALLED) ## Install everything into .venv

# torch comes first and alone, at the version in constraints.txt, so that nothing else picks another build.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name it with make PYTHON=...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh .ci/debian-package python3-venv "virtual environments"
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch
	@# setuptools warns of every editable install; the warnings say nothing of this one.
	PYTHONWARNINGS=ignore $(PIP_INSTALL) -e '.[dev]'
	@# Zeus' own client, which a test runs against this server, knows pydantic 1 only; it gets one of its own.
	$(PIP_INSTALL) --no-deps --upgrade --target .venv/zeus-client "pydantic<2"
	@# The releases after zeus-ml are called zeus, under the same module's name; a test measures with both.
	$(PIP_INSTALL) --no-deps --upgrade --target .venv/zeus-later zeus
	@touch $@

demo: $(INSTALLED) ## 30 recurrences of a real training against a server of their own; SERVE=1 keeps it until Ctrl-C
	$(BIN)/python examples/demo.py $(if $(SERVE),--serve)

# Tests wait for browsers and processes, so one more than there are cores keeps the cores busy.
TEST_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')

# The test processes share the cores. More threads in each of them only wait for each other.
test test-faults test-random test-mysql test-lightning: export OMP_NUM_THREADS = 1

test: $(INSTALLED) mariadb postgresql chromium faketime nginx caddy ## Run all tests, on real databases and proxies too
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist worksteal --ignore tests/libraries \
		--ignore tests/deploy/galera --ignore tests/deploy/postgresql \
		--ignore-glob 'tests/deploy/test_with_*' $(TEST_OPTIONS)

test-faults: $(INSTALLED) mariadb postgresql faketime ## Run all tests of faults, also those that wait for long or mount a disk
	$(BIN)/pytest tests/faults --full-size --numprocesses $(TEST_PROCESSES) --dist worksteal $(TEST_OPTIONS)

test-random: $(INSTALLED) mariadb postgresql ## Run the random tests with many calls, different ones each time
	$(BIN)/pytest tests/core $(addprefix tests/backend/,test_histories.py test_document.py test_fuzzing.py) \
		--many-examples --numprocesses $(TEST_PROCESSES) --dist worksteal $(TEST_OPTIONS)

test-mysql: $(INSTALLED) ## Run the backend's tests of MariaDB on Oracle's MySQL, if its package can be had
	.ci/mysql-tests $(TEST_PROCESSES)

test-lightning: $(INSTALLED) mariadb ## Run the callbacks' tests with other Lightnings
	.ci/lightning-tests $(TEST_PROCESSES)

test-libraries: $(INSTALLED) ## Train with other libraries, in new virtual environments
	$(BIN)/pytest tests/libraries $(TEST_OPTIONS)

# The tests of the images build them as root. Each tool is named after its Debian package or is one of its programs.
test-deploy: $(INSTALLED) mariadb postgresql haproxy rsync ## Build and run the images, and let database nodes fail under load
	@for tool in buildah debootstrap docker-compose pgbouncer; do \
		command -v $$tool >/dev/null || sh .ci/debian-package $$tool "the tests of the deployment" || exit 1; done
	@command -v kubectl >/dev/null || sh .ci/debian-package kubernetes-client "the tests of the manifests"
	$(BIN)/pytest tests/deploy $(TEST_OPTIONS)

# pip-compile writes only names, versions and hashes into the files, so that every index will do.
LOCK := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras \
	--allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

lock: $(INSTALLED) ## Take the newest versions into the images
	$(LOCK) --extra server --extra postgresql --output-file docker/requirements.txt pyproject.toml
	$(LOCK) --build-deps-for wheel --only-build-deps --output-file docker/build-requirements.txt pyproject.toml

lint: $(INSTALLED) ## Check style, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

screenshots: $(INSTALLED) chromium ## Make docs/images anew, from the browser tests
	$(BIN)/pytest tests/browser/test_admin_page.py -k test_every_page_is_accessible
	cp build/screenshots/job-top-light.png docs/images/job.png

# Material warns of a later mkdocs, which pyproject.toml leaves out.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(INSTALLED) ## Build the documentation site into site/, from docs/ and the code
	$(BIN)/python -m mkdocs build --quiet

# pip-audit skips packages that its service does not know. With a mirror that knows none, it would find nothing.
ASK_ABOUT_PIP := import pip, requests; \
	requests.get(f"https://pypi.org/pypi/pip/{pip.__version__}/json", timeout=15).json()["vulnerabilities"]

audit: $(INSTALLED) ## Look for known vulnerabilities of the installed packages, if pypi.org is reachable
	@if $(BIN)/python -c '$(ASK_ABOUT_PIP)' 2>/dev/null; then $(BIN)/pip-audit --skip-editable --progress-spinner off; \
	else echo "Not audited: pypi.org cannot be asked about vulnerabilities from here."; fi

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(INSTALLED) ## Serve on http://127.0.0.1:8000, data in ./zeus_bso.db
	$(BIN)/python -m backend serve

clean: ## Remove generated files; keep your data (*.db)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build site *.egg-info

chromium:
	@command -v chromium >/dev/null || sh .ci/debian-package chromium "the tests in a browser"

mariadb:
	@PATH="$$PATH:/usr/sbin" command -v mariadbd >/dev/null || sh .ci/debian-package mariadb-server "the tests on MariaDB"

postgresql:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null \
	|| sh .ci/debian-package postgresql "the tests on PostgreSQL"

faketime:
	@command -v faketime >/dev/null || sh .ci/debian-package faketime "the tests of a clock that is set back"

nginx:
	@PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || sh .ci/debian-package nginx "the tests behind nginx"

caddy:
	@command -v caddy >/dev/null || sh .ci/debian-package caddy "the tests behind Caddy"

haproxy:
	@PATH="$$PATH:/usr/sbin" command -v haproxy >/dev/null || sh .ci/debian-package haproxy "the tests of a database cluster"

rsync:
	@command -v rsync >/dev/null || sh .ci/debian-package rsync "the tests of a database cluster"
