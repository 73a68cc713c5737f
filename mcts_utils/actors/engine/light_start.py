"""Start the engine of a process (worker.py) without what its libraries would import and no engine uses.

That is SciPy, torch's compiler, and torch's tensors over several devices: a quarter of the time of each start.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
ALONE = f"{COMPILER}._trace_wrapped_higher_order_op"  # its module that transformers imports, and that needs no other


def unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """Return the function as it is, or a decorator that does so."""
    return function if function is not None else unmarked


class Compiler(ModuleType):
    """Stands in for torch's compiler while libraries only mark functions for it; asked for more, it is imported."""

    disable = allow_in_graph = assume_constant_result = staticmethod(unmarked)

    def __init__(self, folder: str) -> None:
        """`folder`: where its modules are."""
        super().__init__(COMPILER)
        self.__path__, self.__spec__ = [folder], ModuleSpec(COMPILER, None, is_package=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.load(), name)

    def load(self) -> ModuleType:
        """Import it, in this one's place, and return it."""
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return import_module(COMPILER)


class Parts(MetaPathFinder, Loader):
    """Imports the compiler before any of its modules but ALONE, as Python does with a package that is not loaded."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """Return how to import a module of the compiler that its own import has brought, else None."""
        compiler = sys.modules.get(COMPILER)
        if not isinstance(compiler, Compiler) or not name.startswith(f"{COMPILER}.") or name == ALONE:
            return None
        compiler.load()
        found = sys.modules.pop(name, None)  # else Python would take its own way to import it, once more
        return ModuleSpec(name, self, loader_state=(found, found.__spec__)) if found else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, which is imported."""
        module: ModuleType = spec.loader_state[0]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing but name its way to be imported again."""
        module.__spec__ = module.__spec__ and module.__spec__.loader_state[1]


def leave_out() -> None:
    """Import torch, and keep other libraries from importing what the text above names."""
    sys.modules["scipy"] = None  # type: ignore[assignment]  # for losses of object detection
    import torch

    sys.modules[COMPILER] = Compiler(f"{torch.__path__[0]}/_dynamo")
    sys.meta_path.insert(0, Parts())
    torch.distributed.is_available = lambda: False


def main(number: int) -> None:
    """Import the libraries, and do what worker.main does."""
    gc.disable()  # what is imported stays
    leave_out()
    from mcts_utils.actors.engine import worker

    gc.freeze()
    gc.enable()
    worker.main(number)
