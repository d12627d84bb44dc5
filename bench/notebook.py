"""The equal notebook: what peers run, made of the source of the example's `hello_world`."""

from __future__ import annotations

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from bench import product

# The same function, its decorators and its context replaced by the least that runs without Bifrost.
STANDALONE = """
import json, sys

class OrganizationContext:
    org_id, org_name, executed_by_email = "test-org-active", "Test Organization", "dev@example.com"
    def log(self, level, message, data=None): print(level, message, json.dumps(data))
    def save_checkpoint(self, name, data=None): print(name, json.dumps(data))

def workflow(**_): return lambda function: function
def param(*_, **__): return lambda function: function
"""
PARAMETERS = {"name": "Alice", "language": "spanish"}
ANSWER = "¡Hola, Alice!"


def equal() -> nbformat.NotebookNode:
    """As many cells as a record has: header, parameters (and papermill's own), source, call."""
    cells = [
        new_markdown_cell("# hello_world"),
        new_code_cell('name = ""\nlanguage = "english"', metadata={"tags": ["parameters"]}),
        new_code_cell(standalone_source()),
        new_code_cell("await hello_world(OrganizationContext(), name=name, language=language)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made: nbformat.NotebookNode = new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    return made


def standalone_source() -> str:
    """`hello_world` and what it needs, for any Python."""
    source = (product.EXAMPLES / "workflows" / "hello_world.py").read_text()
    return STANDALONE + source.replace("from bifrost_kernel import OrganizationContext, param, workflow", "")
