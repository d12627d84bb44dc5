.PHONY: run test check bench soak docs lock

run:            ## start everything (http://localhost:7071, key `test`)
	./start-dev.sh

test:           ## all checks and tests
	./test.sh

check:          ## format, lint, types, floors; no tests
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench:          ## the figures, as ratios against peers measured in the same run
	.venv/bin/python -m bench.hello
	.venv/bin/python -m bench.portal
	.venv/bin/python -m bench.kernels
	.venv/bin/python -m bench.schedules
	.venv/bin/python -m bench.history

soak:           ## hours of what the tests only sample: 40 expressions in 40 zones over 20 years, a day of 200 kills
	BIFROST_SOAK=1 .venv/bin/python -m pytest -s --timeout 7200 tests/kernel/test_cron.py tests/scheduler/test_schedules_killed.py

docs:           ## execute the guides in notebooks/
	.venv/bin/python -m pytest notebooks

lock:           ## renew requirements.lock
	.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras pyproject.toml -o requirements.lock
