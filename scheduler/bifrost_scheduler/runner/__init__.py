"""Runs executions: kernels, the papermill engine, and the record that every execution leaves.

The control plane's loop uses it; workers of it hold no store and no key.
"""

import sys

# nbformat asks jsonschema for its format checkers, and one of them builds a grammar at import, for two seconds, that no
# notebook needs; jsonschema does without when the import fails. Must stand before the first import of nbformat.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
