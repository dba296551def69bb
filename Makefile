# The door to this project: `make help` lists what it can do.
# A target is a thin name for a script or a cargo command, so that CI and people run the same thing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Seconds for each fuzz target, at most.
FUZZ_SECONDS ?= 60

# Where the images and stores of the comparison with other programs lie.
PEERS_DIR ?= /var/tmp/backy-peers
WHISPER_DIR ?= /var/tmp/backy-whisper

.PHONY: help demo test fmt fmt-check lint doc deny typos fuzz fuzz-smoke bench bench-peers bench-scale bench-nbd bench-whisper prove ci

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## back up, change, back up again and restore a real disk image (DEMO_SIZE=1G, KEEP=1 keeps the files)
	@scripts/demo

test: ## install what the tests need, run all tests, count what was skipped
	@scripts/test

fmt: ## format the sources
	cargo fmt --all

fmt-check: ## check the format of the sources
	cargo fmt --all -- --check

# With what the tests turn on, with the switches of planted bugs as well, and the program alone.
lint: ## clippy over the whole workspace; every warning is an error
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --features backy-tests/planted-bugs --test reliability --locked -- -D warnings
	cargo clippy -p backy-cli --locked -- -D warnings

doc: ## build the documentation of the libraries; every warning is an error
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

deny: ## check licences, sources and duplicates of dependencies (needs cargo-deny)
	@scripts/require cargo-deny "cargo install --locked cargo-deny"
	cargo deny --all-features check bans licenses sources

typos: ## check the spelling (needs typos)
	@scripts/require typos "cargo install --locked typos-cli"
	typos

fuzz-smoke: ## run every fuzz target for a minute, or 10^7 times (FUZZ_SECONDS=60; needs nightly Rust)
	@scripts/fuzz-smoke $(FUZZ_SECONDS)

fuzz: ## the same, and take what is found into the corpus (FUZZ_SECONDS=600 finds more)
	@FUZZ_KEEP=1 scripts/fuzz-smoke $(FUZZ_SECONDS)

bench: ## measure throughput; takes minutes, wants a quiet machine
	cargo bench -p backy-benches --locked

bench-scale: ## measure growth with chunks, image size and revisions; takes long and 12 GiB (SCALE="chunks=2 sparse")
	cargo run --release -p backy-benches --bin scale --locked -- $(SCALE)

bench-peers: ## compare with other backup programs on real images (PEERS_DIR=/var/tmp/backy-peers); takes an hour or two, 40 GiB
	cargo build --release --locked -p backy-cli
	benches/peers/dataset $(PEERS_DIR)
	benches/peers/run $(PEERS_DIR)

bench-nbd: ## compare the NBD server with nbdkit and qemu-nbd (IMAGE=disk.img; needs nbdkit, qemu-utils, fio)
	@[ -n "$(IMAGE)" ] || { echo "usage: make bench-nbd IMAGE=disk.img   (a raw image of 2 GiB or more)" >&2; exit 2; }
	cargo build --release --locked -p backy-cli
	benches/nbd/run $(IMAGE)

bench-whisper: ## compare backups of Graphite's files with whisper-backup and others (WHISPER_DIR=/var/tmp/backy-whisper); takes an hour, 25 GiB
	cargo build --release --locked -p backy-cli
	cargo build --release --locked -p backy-benches --bin whisper-tree
	[ -d $(WHISPER_DIR)/t2200 ] || target/release/whisper-tree $(WHISPER_DIR)/t2200
	[ -d $(WHISPER_DIR)/t100k ] || target/release/whisper-tree $(WHISPER_DIR)/t100k --files 100000 --schema 5m:2d,1h:28d
	benches/whisper/run $(WHISPER_DIR)

prove: ## the tests once more in the release profile, with long random and crash runs; takes a night
	@scripts/prove

ci: ## what the continuous integration runs
	@.ci/run
