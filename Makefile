# The project's commands. Each is one script or one cargo command, and installs what it lacks.
.DEFAULT_GOAL := help
.PHONY: help demo test lint fuzz bench bench-peers counts build stop clean-run

help:                 ## what there is
	@sed -n 's/^\([a-z-]*\): *\(.*\)## /  make \1\t/p' Makefile | expand -t 20

demo:                 ## real changes arriving in a real Kafka, until Ctrl-C or for DEMO_SECONDS; DEMO=all|postgres|mysql|mariadb
	@scripts/demo

test:                 ## all tests, on real servers; the last line is the count
	@scripts/test

lint:                 ## format, clippy and documentation, warnings denied
	@scripts/install build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps --locked

fuzz:                 ## a million inputs for every decoder of foreign bytes
	@scripts/fuzz

bench:                ## speed of the release build beside what the servers can do, as one table; BENCH=all|core
	@scripts/bench

bench-peers:          ## Debezium beside it, on the same backlog in the same run
	@scripts/bench peers

counts:               ## instructions and allocations a row, held against the last ones; `scripts/counts update` writes them down
	@scripts/counts

build:                ## the release binary, target/release/seachange
	@scripts/install build
	cargo build --release --locked

stop:                 ## stops whatever demo and tests have left running
	@scripts/demo stop
	@scripts/test stop

clean-run: stop       ## forgets the throw-away servers and their software
	rm -rf .run .demo
