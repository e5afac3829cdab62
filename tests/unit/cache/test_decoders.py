"""What msgspec knows of a struct is complete before a second thread, or a child, can meet it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import ROOT

STRUCTS = 30
PROGRAM = """
import os, sys, threading
from typing import Literal
import msgspec
from pipeline.cache.encoding.codec import codec_for

sys.setswitchinterval(1e-6)  # as often as can be: a thread may end another's turn between two fields

def struct(number):
    within = [msgspec.defstruct(f"Within{number}_{k}", [("a", "int"), ("b", "str | None", None)]) for k in range(12)]
    fields = [(f"f{k}", each, None) for k, each in enumerate(within)]
    return msgspec.defstruct(f"Struct{number}", [*fields, ("x", Literal["a", "b"], "a")])

def decode(wanted):
    assert codec_for(wanted).decode(b'{"f0": {"a": 1}, "f5": {"a": 1}, "x": "b"}').f5.a == 1

for number in range(STRUCTS):
    wanted = struct(number)
    together = threading.Barrier(2 if FORKS else 4)
    def run():
        together.wait()
        decode(wanted)
    threads = [threading.Thread(target=run) for _ in range(1 if FORKS else 3)]
    for thread in threads:
        thread.start()
    together.wait()
    if FORKS:
        pid = os.fork()
        if not pid:
            decode(wanted)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "the child ended otherwise"
    else:
        decode(wanted)
    for thread in threads:
        thread.join()
"""


@pytest.mark.parametrize("forks", [False, True], ids=["threads", "forks"])
def test_types_that_several_threads_meet_at_once(forks: bool) -> None:
    """Without the lock it ends by SIGSEGV within a second."""
    program = PROGRAM.replace("STRUCTS", str(STRUCTS)).replace("FORKS", str(forks))
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def test_each_struct_that_is_decoded_is_known_from_its_module_on() -> None:
    """`type=` of a decoding, and the type of a conversion: a name that is `ready`, or a decoder's own."""
    sources = {
        path: path.read_text(encoding="utf-8") for folder in ("pipeline", "workers") for path in (ROOT / folder).rglob("*.py")
    }
    trees = {path: ast.parse(text) for path, text in sources.items() if "msgspec" in text or "ready" in text}
    known = {name for tree in trees.values() for name in _ready(tree)}
    wanted = {(path.relative_to(ROOT), name) for path, tree in trees.items() for name in _decoded(tree)}
    assert {name for _, name in wanted if name not in known} == VARIABLES


VARIABLES = {
    "cls",  # PersonaResponse.from_wire
    "type",  # pipeline.figures.reading: rows of pipeline.figures.records
    "kind",  # workers.dashboard.acting.handlers: Wish and _Confirmation
}


def _ready(tree: ast.Module) -> set[str]:
    names = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(each, ast.Name) and each.id == "ready" for each in node.decorator_list)
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return names | {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "ready"}


def _decoded(tree: ast.Module) -> set[str]:
    found = set()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    for call in (call for call in calls if call.func.attr in ("decode", "convert")):
        function = ast.unparse(call.func)
        named = [keyword.value for keyword in call.keywords if keyword.arg == "type"]
        if function in ("msgspec.json.decode", "msgspec.msgpack.decode"):
            found |= {ast.unparse(each) for each in named}
        elif function == "msgspec.convert":
            found |= {ast.unparse(each) for each in named or call.args[1:2]}
    return found


def test_the_sources_are_read() -> None:
    tree = ast.parse((Path(ROOT) / "workers" / "queue" / "backlog.py").read_text(encoding="utf-8"))
    assert _decoded(tree) == _ready(tree) == {"_Item"}
