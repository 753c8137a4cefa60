"""Where training data is decoded, kept and rendered: options that change the speed and not the recipe."""

from __future__ import annotations

from dataclasses import dataclass

from keyreid.pipeline.errors import SettingsError

DECODE = ("host", "device")
CACHE = ("none", "ram", "device")
HEATMAPS = ("stored", "rendered")


@dataclass(frozen=True)
class DataSettings:
    """How frames get to the network.

    Attributes:
        decode: "host": in the workers, by libjpeg; "device": JPEG files in batch on the CUDA device, by nvJPEG.
        cache: where decoded frames and heatmaps are kept: "none", "ram" or "device".
        cache_gigabytes: what the cache of one process may take, in 10^9 bytes.
        heatmaps: "stored": read from the shards; "rendered": drawn on the device from the keypoints there.
    """

    decode: str = "host"
    cache: str = "none"
    cache_gigabytes: float = 16.0
    heatmaps: str = "stored"

    def __post_init__(self) -> None:
        for name, allowed in (("decode", DECODE), ("cache", CACHE), ("heatmaps", HEATMAPS)):
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name} is {getattr(self, name)!r}", " or ".join(allowed))
        if not self.cache_gigabytes > 0:
            raise SettingsError(f"a cache of {self.cache_gigabytes} gigabytes", "more than 0", "use --cache none")
