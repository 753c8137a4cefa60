"""Training, weights and measurement; needs neither openpifpaf nor Dask. Importing this package alone loads no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .network.authors import load_authors_checkpoint
    from .network.build import build_model
    from .network.config import ModelConfig
    from .network.export import export_model
    from .network.keyreid import KeyReID
    from .network.weights import load_model, save_model

__all__ = [
    "KeyReID",
    "ModelConfig",
    "build_model",
    "export_model",
    "load_authors_checkpoint",
    "load_model",
    "save_model",
]

_HOMES = {
    "KeyReID": "keyreid",
    "ModelConfig": "config",
    "build_model": "build",
    "export_model": "export",
    "load_authors_checkpoint": "authors",
    "load_model": "weights",
    "save_model": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".network.{_HOMES[name]}", __name__), name)
