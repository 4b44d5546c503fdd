"""What calls say, in a notebook: in the cell that runs, live; and tracebacks with its cells' lines.

A real kernel runs the cells.
"""

import os
import re

import pytest

from tests.conftest import with_programs

pytestmark = [
    with_programs,
    pytest.mark.timeout(110),
    # Of the notebook's machinery.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SETUP = """
import logging, sys, time, warnings
from k8sfutures import K8sRabbitExecutor
ex = K8sRabbitExecutor()
def work(n):
    print("line", n)
    print("trouble", n, file=sys.stderr)
    return n
def fail(x):
    local = [x]
    return local[x]  # in a cell
"""


@pytest.fixture(scope="module")
def outputs(cluster):
    """Runs cells; returns what each has shown, as {stdout, stderr, error, result}."""
    import nbformat
    from nbclient import NotebookClient

    def run(*sources, allow_errors=True):
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in sources]
        )
        client = NotebookClient(notebook, timeout=60, kernel_name="python3")
        client.allow_errors = allow_errors
        client.execute(env={**os.environ, **cluster.environment()})
        shown = []
        for cell in notebook.cells:
            one = {"stdout": "", "stderr": "", "error": "", "result": ""}
            for output in cell.outputs:
                if output.output_type == "stream":
                    one[output.name] += output.text
                elif output.output_type == "error":
                    text = "\n".join(output.traceback)
                    one["error"] += re.sub(r"\x1b\[[0-9;]*m", "", text)
                else:
                    one["result"] += output.data.get("text/plain", "")
            shown.append(one)
        return shown

    return run


def test_a_notebook(outputs):
    begin, first, second, record, failed, end = outputs(
        SETUP,
        "ex.submit(work, 1).result()\ntime.sleep(0.3)",
        "list(ex.map(work, range(2, 4)))",
        "time.sleep(0.3)\nex.submit(lambda: logging.getLogger('app').warning('a record')).result()",
        "ex.submit(fail, 5).result()",
        "import traceback\n"
        "traceback.print_exception(ex.submit(fail, 5).exception())\n"
        "ex.shutdown()",
    )
    assert begin["error"] == ""
    assert first["stdout"] == "work#1 | line 1\n", "in the cell that runs"
    assert first["stderr"] == "work#1 | trouble 1\n"
    assert second["result"] == "[2, 3]"
    both = second["stdout"] + record["stdout"]
    assert sorted(both.splitlines()) == ["work[0] | line 2", "work[1] | line 3"]
    assert "lambda#2 | a record" in record["stderr"] + failed["stderr"]
    assert re.search(r"-+> \d+\s+return local\[x\]  # in a cell", failed["error"])
    assert "IndexError: list index out of range" in failed["error"]
    assert "k8sfutures: raised in call 3 of fail on pod" in failed["error"]
    assert "    return local[x]  # in a cell\n           ~~~~~^^^\n" in end["stderr"]
