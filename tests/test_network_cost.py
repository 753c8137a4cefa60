"""Only what is read is computed: FLOPs by the row, and the plain way of the benchmark, which computes the rest too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from network_fixtures import clips, tiny_model
from timm.models.vision_transformer import Block
from torch.utils.flop_counter import FlopCounterMode

from keyreid.model.network.part_attention import PartAttention, class_token_row

WIDTH, HEADS, PARTS = 96, 12, 6
PRODUCTS = 2 * 2 * WIDTH * HEADS  # FLOPs by the row: each head's logit, and each head's weighted sum


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")


def flops_by_the_row(module: torch.nn.Module, parts: int = 0) -> float:
    """How many more FLOPs a row more takes."""
    totals = []
    for num_rows in (16, 32):
        rows = torch.randn(1, num_rows + 1, WIDTH)
        with FlopCounterMode(display=False) as counter:
            if parts:
                module(rows[:, :1], rows[:, 1:], torch.rand(1, num_rows, parts))
            else:
                class_token_row(module, rows)
        totals.append(counter.get_total_flops())
    return (totals[1] - totals[0]) / 16


def test_a_row_of_the_last_block_is_read_and_not_projected() -> None:
    assert flops_by_the_row(Block(WIDTH, HEADS, qkv_bias=True)) == PRODUCTS


@pytest.mark.parametrize("guidance", ["bias", "multiply"])
def test_a_row_of_the_part_block_is_read_and_not_projected(guidance: str) -> None:
    """Logits are shared by the parts, whatever their weights do to them."""
    attention = PartAttention(width=WIDTH, num_heads=HEADS, guidance=guidance, weight_floor=1e-3)
    for parts, expected in ((PARTS, (1 + PARTS) / 2), (1, 1)):
        assert flops_by_the_row(attention, parts) == expected * PRODUCTS


@pytest.mark.parametrize("variant", ["reference", "aligned"])
def test_the_plain_way_gives_the_same(variant: str) -> None:
    from network_plain import PlainKeyReID

    model = tiny_model(variant=variant, drop_path=0.1)
    plain, inputs = PlainKeyReID(model), clips(model)
    model.eval()
    torch.testing.assert_close(plain.eval()(*inputs), model(*inputs), rtol=1e-10, atol=1e-12)
    outputs = []
    for way in (model, plain):
        torch.manual_seed(0)  # the same stochastic depth and shifts in time
        outputs.append(way.train()(*inputs))
    for ours, theirs in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_the_benchmark_runs_and_refuses_ways_that_differ(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import network

    network.main(["--size", "tiny", "--rounds", "1"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith(("| ref", "| ali"))]
    assert [row[0][2:] + " " + row[1] for row in rows] == [
        "reference forward", "reference forward + backward", "aligned forward", "aligned forward + backward",
    ]  # fmt: skip
    assert all(float(row[7]) > 2 for row in rows)  # times fewer FLOPs
    with pytest.raises(SystemExit, match="the two ways differ"):
        monkeypatch.setattr(network.PlainKeyReID, "_neck", lambda self, feature, part: 1.001 * feature)
        network.main(["--size", "tiny", "--variant", "reference", "--rounds", "1"])
