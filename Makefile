# `make run` starts a server, `make test` runs everything CI runs; both bring what they need.

.PHONY: run test lint bench

run:
	@scripts/run.sh

test:
	@scripts/test.sh

lint:
	@scripts/setup-system.sh test
	@scripts/setup-tools.sh
	@scripts/lint.sh

# Arguments: make bench ARGS="--help"
bench:
	@. scripts/env.sh && cargo run --release -p comity-bench -- $(ARGS)
