"""Owns: `patch`, which imports one package so that it is green, while the rest of the program is not.

The package is imported once more, beside what `sys.modules` has under its name. The `import` statements of
its modules go through a function of their own: it gives them green copies of the modules in `copies.COPIES`,
copies of some modules of the standard library that use these, and private copies of the other packages that
they import.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import importlib.util
import sys
import threading
from typing import TYPE_CHECKING, Any

from .copies import COPIES, copy_of

if TYPE_CHECKING:
    import types
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["patch"]

# Modules of the standard library that wait by those that are green, and so are copied, too.
WAITING = {
    "ftplib",
    "http.client",
    "imaplib",
    "poplib",
    "selectors",
    "smtplib",
    "urllib.request",
    "xmlrpc.client",
}

# Never copied: there is one of each in a process.
SHARED = {"greenlet", "proact", "gevent"}


class _Scope:
    """The modules of one patched package, and how they import."""

    def __init__(self, keep: Iterable[str]) -> None:
        self._keep = SHARED | set(keep)
        self._modules: dict[str, types.ModuleType] = {}
        self._lock = threading.RLock()
        self._depth = 0
        self._outside: dict[str, types.ModuleType] = {}
        self.builtins = {**vars(builtins), "__import__": self._import}

    def is_ours(self, name: str) -> bool:
        """Whether a module belongs to the scope."""
        top = name.partition(".")[0]
        if name in COPIES or name in WAITING:
            return True
        return top not in sys.stdlib_module_names and top not in self._keep

    def _import(
        self,
        name: str,
        namespace: dict[str, Any] | None = None,
        local: dict[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> Any:
        if level == 0 and name in COPIES:
            return self.copy(name)
        if level == 0 and not self.is_ours(name) and not self._holds_ours(name, fromlist or ()):
            return builtins.__import__(name, namespace, local, fromlist, level)
        with self._lock, self:
            return builtins.__import__(name, namespace, local, fromlist, level)

    def _holds_ours(self, name: str, fromlist: Iterable[str]) -> bool:
        """`from http import client`"""
        return any(f"{name}.{item}" in WAITING for item in fromlist)

    def copy(self, name: str) -> types.ModuleType:
        """The green copy of a module, one for the scope."""
        with self._lock:
            if name not in self._modules:
                self._modules[name] = COPIES[name]()
            return self._modules[name]

    # While the scope imports, `sys.modules` has its modules.

    def _names(self) -> Iterator[str]:
        for name in list(sys.modules):
            # Its parent holds it as an attribute.
            if self.is_ours(name) or any(waiting.startswith(f"{name}.") for waiting in WAITING):
                yield name

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        self._outside = {name: sys.modules.pop(name) for name in self._names()}
        for name in COPIES:
            self.copy(name)
        for name, module in self._outside.items():
            if isinstance(getattr(module, "__loader__", None), importlib.machinery.ExtensionFileLoader):
                # Compiled modules can't be loaded twice.
                self._modules.setdefault(name, module)
            elif name not in self._modules and not self.is_ours(name):
                parent = self._modules[name] = copy_of(module)
                for waiting in WAITING:
                    if waiting.startswith(f"{name}."):
                        vars(parent).pop(waiting.rpartition(".")[2], None)
        sys.modules.update(self._modules)
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        sys.meta_path.remove(self)
        self._modules |= {name: sys.modules.pop(name) for name in self._names()}
        sys.modules.update(self._outside)
        self._outside = {}

    def find_spec(
        self, name: str, path: Any = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module of the scope, whose code gets the scope's `__import__`."""
        if not self.is_ours(name):
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if isinstance(spec.loader, importlib.machinery.SourceFileLoader):
                    spec.loader = _Loader(self, spec.loader)
                return spec
        return None


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module whose `import` statements belong to a scope."""

    def __init__(self, scope: _Scope, loader: importlib.machinery.SourceFileLoader) -> None:
        super().__init__(loader.name, loader.path)
        self._scope = scope

    def exec_module(self, module: types.ModuleType) -> None:
        module.__dict__["__builtins__"] = self._scope.builtins
        super().exec_module(module)


def patch(package: str, *, keep: Iterable[str] = ()) -> Any:
    """Import a package so that it is green; return it: `requests = green.patch("requests")`.

    Its modules get green copies of socket, ssl, select, time, threading, queue and subprocess. So do the
    other packages that it imports, except for those in `keep`, compiled modules and the standard library (but
    http.client, urllib.request, smtplib, imaplib, poplib, ftplib, xmlrpc.client and selectors are green in
    it). The rest of the program is not touched: `import requests` is the ordinary one. What is returned works
    in greenlets only.

    Process-wide patching is gevent's: `gevent.monkey.patch_all()`, on `proact.green.gevent_loop`.
    """
    scope = _Scope(keep)
    with scope._lock, scope:
        if package in COPIES:
            return scope.copy(package)
        return importlib.import_module(package)
