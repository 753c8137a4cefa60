"""What was measured earlier: metrics.json of a report, of the weights that one asks about and of no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keyreid.pipeline.commit import read_json
from keyreid.pipeline.errors import FormatError, SettingsError

from .report import FORMAT_VERSION


def read_metrics(path: Path, model_fingerprint: str) -> dict[str, Any]:
    """The content of a metrics.json.

    Args:
        path: the file, or the folder of the report.
        model_fingerprint: of the weights and configuration that it must be of.

    Raises:
        FormatError: no such file, another kind of file, or another version.
        SettingsError: it was measured with other weights or another configuration.
    """
    path = path / "metrics.json" if path.is_dir() else path
    if not path.is_file():
        raise FormatError(f"there is no {path}", "metrics.json of keyreid-eval --report")
    content = read_json(path, sealed=False)  # keyreid-eval --json > metrics.json is one, too
    if content.get("format_version") != FORMAT_VERSION or not content.get("results"):
        raise FormatError(
            f"{path} is no metrics.json of version {FORMAT_VERSION}", "", "measure again with keyreid-eval"
        )
    if content.get("model_fingerprint") != model_fingerprint:
        raise SettingsError(
            f"{path} was measured with other weights or another configuration "
            f"(fingerprint {content.get('model_fingerprint')})",
            f"fingerprint {model_fingerprint}",
            "measure this network with keyreid-eval --report",
        )
    return content
