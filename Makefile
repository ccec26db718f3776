# `make run` starts a server, `make test` runs everything CI runs; both bring what they need.

.PHONY: run test lint bench kill sim

run:
	@scripts/run.sh

test:
	@scripts/test.sh

lint:
	@scripts/setup-system.sh test
	@scripts/setup-tools.sh
	@scripts/lint.sh

# An hour or so, undisturbed; results in docs/benchmarks.md. Less: make bench ARGS="--workloads 1 --repeats 1"
bench:
	@scripts/setup-system.sh test
	@. scripts/env.sh && cargo build --release --locked --workspace --bin comity --bin comity-bench
	@rm -f target/bench.jsonl
	@target/release/comity-bench compare $(ARGS)
	@target/release/comity-bench report

# SIGKILL, two hundred times, under 16 writers; CI does twenty.
kill:
	@scripts/setup-system.sh test
	@. scripts/env.sh && cargo build --locked --workspace
	@COMITY_KILLS=$${COMITY_KILLS:-200} scripts/test-kill.sh

# Ten thousand worlds of several servers under storms; CI runs forty. COMITY_SIM_SEED=n tells the story of one.
sim:
	@scripts/setup-system.sh test
	@. scripts/env.sh && COMITY_SIM_SEEDS=$${COMITY_SIM_SEEDS:-10000} \
		cargo test --profile quick --locked --package comity-sim federation -- --include-ignored --nocapture
