.PHONY: run test check bench docs lock

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

docs:           ## execute the guides in notebooks/
	.venv/bin/python -m pytest notebooks

lock:           ## renew requirements.lock
	.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras pyproject.toml -o requirements.lock
