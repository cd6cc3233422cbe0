# Everything lives in the virtual environment and in Debian packages; `make clean` removes the former.
PYTHON ?= python3
VENV ?= .venv
# what is needed to run backy and its demonstration, and what else the tests call
DEMO_PACKAGES := python3 python3-venv e2fsprogs
TEST_PACKAGES := $(DEMO_PACKAGES) btrfs-progs busybox-static ceph-common ceph-mon ceph-osd chromium cpio debootstrap fdisk fio fish fonts-dejavu-core \
    fuse3 gdisk guestfish kmod kpartx libguestfs-xfs libnbd-bin libvirt-clients libvirt-daemon-system \
    linux-image-cloud-amd64 logrotate lvm2 man-db nbd-client nbdkit openssh-client openssh-server openssl procps prometheus radosgw rclone \
    python3-libnbd python3-libvirt python3-rados python3-rbd \
    qemu-guest-agent qemu-system-common qemu-system-x86 qemu-utils rsync systemd telnet thin-provisioning-tools \
    util-linux xfsprogs zsh zstd

export PYTHON VENV
# mkfs and its like are not in the PATH of users
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH):/usr/sbin:/sbin
# tools remember things in the virtual environment, too
CACHE := $(CURDIR)/$(VENV)/cache
export COVERAGE_FILE := $(CACHE)/coverage
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
export MYPY_CACHE_DIR := $(CACHE)/mypy
export RUFF_CACHE_DIR := $(CACHE)/ruff
# hundreds of processes that tests start find there what is compiled; else each compiles even Python's own modules anew
unexport PYTHONDONTWRITEBYTECODE
PYTEST := PYTHONPYCACHEPREFIX=$(CACHE)/python .ci/pytest -o cache_dir=$(CACHE)/pytest

# one test process more than processors, as each waits for disks, clusters and guests now and then; each has whole files
# or folders of tests (tests/conftest.py), the longest first
PARALLEL := -n $(shell expr $$(nproc) + 1) --no-loadscope-reorder

.PHONY: help demo test coverage check docs wheels deb soak environment demo-packages test-packages clean

help:
	@echo 'make demo      back up a file system image, change it, and get both states back'
	@echo 'make test      check the code and run all tests'
	@echo 'make coverage  run all tests and tell which lines none of them runs'
	@echo 'make check     check format, style and types only'
	@echo 'make docs      make HTML pages and man pages in $(VENV)/docs'
	@echo 'make wheels    make wheels of all distributions in dist/, for pip install --find-links dist'
	@echo 'make deb       make Debian packages of all distributions in dist/, for apt install ./dist/*.deb'
	@echo 'make soak      run all tests with as many rounds as it takes to be sure'
	@echo 'make clean     remove the virtual environment'
	@echo
	@echo 'PYTHON=python3.12 chooses the interpreter: 3.11, 3.12 or 3.13.'

demo: demo-packages environment
	@demo/demo

test: test-packages check
	$(PYTEST) $(PARALLEL)

# apart from `test`: up to CPython 3.11 it takes twice the processor time
coverage: test-packages environment
	$(PYTEST) --cov $(PARALLEL)

check: environment
	ruff format --check
	ruff check
	mypy

docs: environment
	sphinx-build -W -q -d $(CACHE)/docs -b html docs $(VENV)/docs/html
	python docs/generate_man.py $(VENV)/docs/man

wheels: environment
	.ci/wheels dist

deb: environment
	.ci/deb dist

soak: test-packages environment
	$(PYTEST) --soak --timeout 7200

environment: | demo-packages
	@.ci/environment

demo-packages:
	@.ci/system-packages $(DEMO_PACKAGES)

test-packages:
	@.ci/system-packages $(TEST_PACKAGES)

clean:
	rm -rf $(VENV)
