"""The network once more, plainly and slowly: one clip, one frame, one part, one head at a time, in float64.

Written from the description in docs/method.md and sharing nothing with keyreid.model but the names of tensors in a
state dict, so that the fast code can be held against it. Letters: T frames, N patches, P parts, C channels, D = T * C.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]
NUM_PARTS = 6


@dataclass
class Oracle:
    """A state dict and the few numbers that its shapes do not tell."""

    state: State
    patch_size: int
    num_heads: int
    clip_length: int
    camera_scale: float = 3.0
    norm_eps: float = 1e-6
    local_norm_eps: float = 1e-5

    def tokens(self, frame: Tensor, camera: int) -> Tensor:
        """(3, H, W) -> (1 + N, C): all blocks but the last."""
        kernel, bias = (
            self.state["backbone.vit.patch_embed.proj.weight"],
            self.state["backbone.vit.patch_embed.proj.bias"],
        )
        size = self.patch_size
        rows = [self.state["backbone.vit.cls_token"][0, 0]]
        for top in range(0, frame.shape[1], size):
            for left in range(0, frame.shape[2], size):
                patch = frame[:, top : top + size, left : left + size]
                rows.append((kernel * patch).sum(dim=(1, 2, 3)) + bias)
        camera_row = self.camera_scale * self.state["backbone.camera_embedding.weight"][camera]
        tokens = torch.stack(rows) + self.state["backbone.vit.pos_embed"][0] + camera_row
        index = 0
        while f"backbone.vit.blocks.{index}.norm1.weight" in self.state:
            tokens = self.block(tokens, f"backbone.vit.blocks.{index}.")
            index += 1
        return tokens

    def block(self, rows: Tensor, name: str, factors: Tensor | None = None) -> Tensor:
        """A pre-norm transformer block; `factors` multiply each row's exp(q.k) before shares are taken."""
        normed = self.norm(rows, name + "norm1.", self.norm_eps)
        rows = rows + self.linear(self.attention(normed, name, factors), name + "attn.proj.")
        hidden = self.linear(self.norm(rows, name + "norm2.", self.norm_eps), name + "mlp.fc1.")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return rows + self.linear(hidden, name + "mlp.fc2.")

    def attention(self, rows: Tensor, name: str, factors: Tensor | None) -> Tensor:
        width = rows.shape[1] // self.num_heads
        query, key, value = self.linear(rows, name + "attn.qkv.").split(rows.shape[1], dim=1)
        heads = []
        for head in range(self.num_heads):
            mine = slice(head * width, (head + 1) * width)
            shares = torch.exp(query[:, mine] @ key[:, mine].T / math.sqrt(width))
            if factors is not None:
                shares = shares * factors
            heads.append(shares / shares.sum(dim=1, keepdim=True) @ value[:, mine])
        return torch.cat(heads, dim=1)

    def linear(self, rows: Tensor, name: str) -> Tensor:
        return rows @ self.state[name + "weight"].T + self.state[name + "bias"]

    def norm(self, rows: Tensor, name: str, eps: float) -> Tensor:
        centred = rows - rows.mean(dim=-1, keepdim=True)
        deviation = (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
        return centred / deviation * self.state[name + "weight"] + self.state[name + "bias"]

    def global_feature(self, clip: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The frames' tokens -> the clip's feature (C) and the frame scores (T)."""
        rows = [
            self.norm(self.block(tokens, "global_branch.block.")[0], "global_branch.norm.", self.norm_eps)
            for tokens in clip
        ]
        hidden = [self.linear(row[None], "global_branch.score_hidden.")[0].clamp(min=0) for row in rows]
        kernel, scores = self.state["global_branch.score.weight"][0], []
        for frame in range(len(rows)):
            score = self.state["global_branch.score.bias"][0]
            for offset in (-1, 0, 1):
                if 0 <= frame + offset < len(rows):
                    score = score + (kernel[:, offset + 1] * hidden[frame + offset]).sum()
            scores.append(score.clamp(min=0))
        shares = torch.stack([score.exp() for score in scores])
        shares = shares / shares.sum()
        return sum(share * row for share, row in zip(shares, rows, strict=True)), torch.stack(scores)

    def reference_parts(self, clip: list[Tensor], weights: Tensor) -> Tensor:
        """As the authors' code: weights (T, N, P) in [-1, 1] -> (P, D)."""
        tokens = [token for frame in clip for token in frame]
        rows = [torch.cat(tokens[start : start + len(clip)]) for start in range(0, len(tokens), len(clip))]
        rotated = rows[5:] + rows[1:5]
        half = len(rotated) // 2
        shuffled = [row for pair in zip(rotated[:half], rotated[half:], strict=True) for row in pair]
        features = []
        for part in range(NUM_PARTS):
            weighted = [row * weights[:, index, part].mean() for index, row in enumerate(shuffled)]
            features.append(self.part_block(torch.stack([rows[0], *weighted])))
        return torch.stack(features)

    def aligned_parts(self, clip: list[Tensor], weights: Tensor, floor: float) -> Tensor:
        """As the paper has it, without shift and shuffle: weights (T, N, P) in [0, 1] -> (P, D)."""
        rows = torch.stack([torch.cat([frame[index] for frame in clip]) for index in range(len(clip[0]))])
        features = []
        for part in range(NUM_PARTS):
            seen = weights[:, :, part].mean(dim=0) + floor
            factors = torch.cat([torch.ones(1, dtype=seen.dtype), seen / seen.max()])
            features.append(self.part_block(rows, factors))
        return torch.stack(features)

    def part_block(self, rows: Tensor, factors: Tensor | None = None) -> Tensor:
        first = self.block(rows, "local_branch.attention.block.", factors)[0]
        return self.norm(first, "local_branch.attention.norm.", self.local_norm_eps)

    def neck(self, feature: Tensor, name: str, channels: slice, batch: Tensor | None = None) -> Tensor:
        """BatchNorm of one feature: with the running statistics, or with those of `batch` (B, channels)."""
        mean, variance = self.state[name + "running_mean"][channels], self.state[name + "running_var"][channels]
        if batch is not None:
            mean = batch.mean(dim=0)
            variance = (batch - mean).square().mean(dim=0)
        scaled = (feature - mean) / (variance + 1e-5).sqrt()
        return scaled * self.state[name + "weight"][channels] + self.state[name + "bias"][channels]

    def necks(self, global_feature: Tensor, parts: Tensor) -> list[Tensor]:
        """At test time: (C), (P, D) -> the global feature and the six of the parts after their necks."""
        pieces = [self.neck(global_feature, "global_head.neck.", slice(None))]
        for part, feature in enumerate(parts):
            channels = slice(part * len(feature), (part + 1) * len(feature))
            pieces.append(self.neck(feature, "part_heads.neck.", channels))
        return pieces

    def reference_descriptor(self, global_feature: Tensor, parts: Tensor) -> Tensor:
        """(C), (P, D) -> (C + P * D)."""
        first, *others = self.necks(global_feature, parts)
        return torch.cat([first, *(piece / NUM_PARTS for piece in others)])

    def aligned_descriptor(self, global_feature: Tensor, parts: Tensor) -> Tensor:
        """(C), (P, D) -> (C + P * D): squared distances are those of the global feature plus the mean of the parts'."""
        first, *others = (piece / piece.square().sum().sqrt() for piece in self.necks(global_feature, parts))
        return torch.cat([first, *(piece / math.sqrt(NUM_PARTS) for piece in others)])

    def logits(self, global_features: Tensor, parts: Tensor) -> tuple[Tensor, Tensor]:
        """In training, with the statistics of the batch: (B, C), (B, P, D) -> (B, K), (B, P, K)."""
        of_clips, of_parts, width = [], [], parts.shape[2]
        for index in range(len(parts)):
            neck = self.neck(global_features[index], "global_head.neck.", slice(None), global_features)
            of_clips.append(self.state["global_head.classifier.weight"] @ neck)
            rows = []
            for part in range(NUM_PARTS):
                channels = slice(part * width, (part + 1) * width)
                neck = self.neck(parts[index, part], "part_heads.neck.", channels, parts[:, part])
                rows.append(self.state["part_heads.classifiers"][part] @ neck)
            of_parts.append(torch.stack(rows))
        return torch.stack(of_clips), torch.stack(of_parts)

    def run(
        self, frames: Tensor, weights: Tensor, cameras: Tensor, parts_of: Callable[[list[Tensor], Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Global features (B, C), part features (B, P, D) and frame scores (B, T) of clips (B, T, 3, H, W)."""
        features, parts, scores = [], [], []
        for clip_frames, clip_weights, camera in zip(frames, weights, cameras.tolist(), strict=True):
            clip = [self.tokens(frame, camera) for frame in clip_frames]
            feature, score = self.global_feature(clip)
            features.append(feature)
            scores.append(score)
            parts.append(parts_of(clip, clip_weights))
        return torch.stack(features), torch.stack(parts), torch.stack(scores)
