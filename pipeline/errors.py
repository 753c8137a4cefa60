"""The one family of errors that users see: what was found, what was expected, what to do."""

from __future__ import annotations


class KeyReIDError(Exception):
    """Base of every error this project raises on purpose; commands print it without a traceback.

    Args:
        found: what was found, naming the file or value.
        expected: what was expected in its place, or "" where `found` says it all.
        remedy: what the reader can do now, or "".
    """

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        parts = [found, f"expected {expected}" if expected else "", remedy]
        super().__init__("; ".join(part for part in parts if part))

    def __reduce__(self) -> tuple[type[KeyReIDError], tuple[str, str, str]]:
        return type(self), (self.found, self.expected, self.remedy)  # errors cross process borders


class SourceError(KeyReIDError):
    """A dataset on disk is missing, incomplete or contradicts itself."""


class FormatError(KeyReIDError):
    """A prepared file has an unknown version, a wrong checksum or an unexpected content."""


class SettingsError(KeyReIDError):
    """An option or a configuration value is unknown, out of range or contradicts another."""


class CheckpointError(KeyReIDError):
    """Weights are missing, do not match the network, or may not be trusted."""


class SurroundingsError(KeyReIDError):
    """Disk, mount, device, network, memory or another process failed: nothing is known about the data."""


class NotEnoughMemoryError(SurroundingsError):
    """What was asked for needs more memory than the host or the CUDA device has; the remedy says what lowers it."""
