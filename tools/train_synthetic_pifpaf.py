"""Trains the small PifPaf network behind `--checkpoint synthetic` on synthetic people.

    .venv/bin/python tools/train_synthetic_pifpaf.py --out synthetic.safetensors

openpifpaf's own network, target encoders and losses; the people are those of keyreid-prep synthesize, with other seeds
than any that the tests or the demo use. A pool of crops and their targets is made once, then sampled.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from keyreid.pipeline.pose.forward import PADDING_VALUE, normalise
from keyreid.pipeline.pose.pifpaf import build_network, openpifpaf
from keyreid.pipeline.skeleton import JOINT_FLIP
from keyreid.pipeline.synthetic.person import sample_appearance
from keyreid.pipeline.synthetic.scene import HEIGHT, WIDTH, render_tracklet, sample_camera

BASE_NAME, UPSAMPLE_STRIDE, INPUT_HEIGHT = "mobilenetv3small", 2, 128
FRAMES_PER_SCENE = 6
SEED_BASE = 7_000_000  # far from the seeds of datasets


def render_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Crops of one scene, uint8 (F, 129, 65, 3), and the joints in them of two people, float32 (F, 2, 17, 3)."""
    rng = np.random.default_rng([SEED_BASE, seed])
    difficulty = float(rng.uniform(0.1, 1.0))
    camera = sample_camera(rng, difficulty)
    appearance = sample_appearance(rng, 0.0, rng) if rng.random() > 0.03 else None
    pictures, joints = [], []
    scale = INPUT_HEIGHT / HEIGHT
    for frame in render_tracklet(appearance, camera, FRAMES_PER_SCENE, difficulty, rng):
        small = frame.image.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BILINEAR)
        padded = np.full((INPUT_HEIGHT + 1, WIDTH // 2 + 1, 3), PADDING_VALUE, np.uint8)
        padded[:-1, :-1] = np.asarray(small)
        pictures.append(padded)
        joints.append(np.stack([frame.keypoints, frame.stranger]) * np.array([scale, scale, 1], np.float32))
    return np.stack(pictures), np.stack(joints)


def mirrored(pictures: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same crops flipped left to right, left and right joints swapped."""
    content = pictures[:, :, :-1]
    pictures = np.concatenate([content[:, :, ::-1], pictures[:, :, -1:]], axis=2)
    joints = joints[:, :, list(JOINT_FLIP)].copy()
    joints[..., 0] = content.shape[2] - joints[..., 0]
    return pictures, joints


def targets(model: Any, pictures: np.ndarray, joints: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """openpifpaf's CIF and CAF fields for a batch of crops."""
    cif_meta, caf_meta = model.head_metas
    cif_encoder, caf_encoder = openpifpaf.encoder.Cif(cif_meta, bmin=0.1), openpifpaf.encoder.Caf(caf_meta, bmin=0.1)
    cif, caf = [], []
    for picture, people in zip(pictures, joints, strict=True):
        annotations = [_annotation(person) for person in people if person[:, 2].any()]
        image = torch.from_numpy(picture).movedim(-1, 0)
        cif.append(cif_encoder(image, annotations, {}))
        caf.append(caf_encoder(image, annotations, {}))
    return torch.stack(cif).half(), torch.stack(caf).half()


def _annotation(person: np.ndarray) -> dict[str, object]:
    keypoints = person.astype(np.float64)
    keypoints[:, 2] *= 2  # COCO: 2 is visible, 0 unlabelled
    seen = keypoints[keypoints[:, 2] > 0, :2]
    low, high = seen.min(0), seen.max(0)
    return {"keypoints": keypoints, "bbox": np.concatenate([low, high - low]), "iscrowd": 0}


def build_pool(model: Any, num_scenes: int, workers: int) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Crops with their targets; each scene as rendered and mirrored."""
    pictures, cifs, cafs = [], [], []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        scenes = pool.map(render_scene, range(num_scenes), chunksize=8)
        for scene in tqdm(scenes, total=num_scenes, desc="render", unit=" scenes"):
            for crops, joints in (scene, mirrored(*scene)):
                cif, caf = targets(model, crops, joints)
                pictures.append(crops)
                cifs.append(cif)
                cafs.append(caf)
    return np.concatenate(pictures), torch.cat(cifs), torch.cat(cafs)


def train(model: Any, pool: tuple[np.ndarray, torch.Tensor, torch.Tensor], steps: int, seed: int) -> float:
    """AdamW with a cosine; returns the mean loss of the last tenth."""
    pictures, cifs, cafs = pool
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.05
    model.train().to(memory_format=torch.channels_last)
    losses = openpifpaf.network.losses
    of_heads = [losses.composite.CompositeLoss.factory_from_headmeta(meta) for meta in model.head_metas]
    loss_of = losses.multi_head.MultiHeadLoss(of_heads, None)  # every term with weight 1
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=1e-2)
    warmup = min(200, steps // 5)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    rng = np.random.default_rng(seed)
    recent: list[float] = []
    with tqdm(total=steps, desc="train", unit=" steps") as bar:
        for _ in range(steps):
            rows = rng.choice(len(pictures), 32, replace=False)
            images = _vary(pictures[rows], rng)
            loss, _ = loss_of(
                model(images.contiguous(memory_format=torch.channels_last)), [cifs[rows].float(), cafs[rows].float()]
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 500)
            optimiser.step()
            schedule.step()
            recent = [*recent[-steps // 10 :], float(loss.detach())]
            bar.set_postfix(loss=f"{np.mean(recent[-50:]):.1f}", refresh=False)
            bar.update()
    return float(np.mean(recent))


def _vary(pictures: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Light and colour of each crop, then openpifpaf's normalisation."""
    gain = rng.uniform(0.75, 1.25, (len(pictures), 1, 1, 1)) * rng.uniform(0.85, 1.15, (len(pictures), 1, 1, 3))
    return normalise(torch.from_numpy(np.clip(pictures * gain, 0, 255).astype(np.uint8)))


def save_network(model: torch.nn.Module, path: Path, metadata: dict[str, Any]) -> None:
    """Write what pifpaf.load_network reads: weights as float16 safetensors.

    The buffers of batch normalisation stay float32: float16 loses small variances.
    """
    buffers = {name for name, _ in model.named_buffers()}
    state = {
        name: (value if name in buffers else value.half()).contiguous() for name, value in model.state_dict().items()
    }
    save_file(state, path, metadata={"keyreid_pifpaf": json.dumps(metadata, sort_keys=True)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=2600, help="six crops each, and their mirror images")
    parser.add_argument("--steps", type=int, default=6000, help="of 32 crops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = build_network(BASE_NAME, UPSAMPLE_STRIDE)
    start = time.time()
    pool = build_pool(model, options.scenes, options.workers)
    loss = train(model, pool, options.steps, options.seed)
    metadata = {
        "base_name": BASE_NAME,
        "upsample_stride": UPSAMPLE_STRIDE,
        "input_height": INPUT_HEIGHT,
        "steps": options.steps,
        "scenes": options.scenes,
    }
    save_network(model.eval(), options.out, metadata)
    print(json.dumps({**metadata, "loss": round(loss, 2), "seconds": round(time.time() - start)}))


if __name__ == "__main__":
    main()
