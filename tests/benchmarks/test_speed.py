"""Time and memory: which ratio is of what, and which side of a goal is the good one."""

from __future__ import annotations

from benchmarks.peers import memory, speed
from benchmarks.peers.children import Made

MIB = 2**20


def made(seconds: float, **told: object) -> Made:
    return Made.model_validate({"key": "k", "seconds": seconds, "peak_bytes": 300 * MIB, **told})


def test_ratios_are_of_what_they_say() -> None:
    one, ten, peer = made(10.0), made(14.0), made(25.0)
    rows = speed.rows_of(one, ten, peer)
    assert [row[5:] for row in rows] == [
        ("2.50x as fast as llm-compressor's", "at least 2x as fast", "met"),
        ("1.40x the time of one variant's", "at most 1.5x", "met"),
        ("17.86x as fast as ten llm-compressor runs (extrapolated)", "at least 10x as fast", "met"),
        ("", "", ""),
    ]
    slower = speed.rows_of(made(20.0), made(40.0), peer)
    assert [row[7] for row in slower] == ["missed", "missed", "missed", ""]


def test_peer_that_failed_gives_its_reason_and_no_verdict() -> None:
    rows = speed.rows_of(made(1.0), made(1.2), made(0.0, failed="pip could not install it"))
    assert [row[7] for row in rows] == ["", "met", "", ""]
    assert rows[3][1] == "none: pip could not install it"


def test_depth_is_judged_by_memory_beyond_the_imports() -> None:
    private = {("quantgate", 2): 140, ("quantgate", 4): 142, ("llmcompressor", 2): 200, ("llmcompressor", 4): 300}
    found = {key: made(1.0, private_bytes=size * MIB) for key, size in private.items()}
    idle = {tool: made(0.0, private_bytes=100 * MIB) for tool in ("quantgate", "llmcompressor")}
    rows = memory.rows_of(found, idle, (2, 4))
    assert rows[0] == ("quantgate", "2", "140 MiB", "40 MiB", "300 MiB", "", "", "")
    assert rows[1] == ("quantgate", "4", "142 MiB", "42 MiB", "300 MiB", "1.05x of 2 blocks", "at most 1.1x", "met")
    assert rows[3] == ("llm-compressor", "4", "300 MiB", "200 MiB", "300 MiB", "2.00x of 2 blocks", "", "")
    found["quantgate", 4] = made(1.0, private_bytes=180 * MIB)
    assert memory.rows_of(found, idle, (2, 4))[1][7] == "missed"


def test_what_a_block_needs_is_counted_by_hand() -> None:
    # q and o 128 x 128, k and v 64 x 128, three matrices of 256 x 128; Hessians 3 x 128^2 and 256^2; 256 tokens
    block, hessians, hidden = 2 * 128**2 + 2 * 64 * 128 + 3 * 256 * 128, 3 * 128**2 + 256**2, 4 * 64 * 128
    assert memory.QUICK.needed == 4 * (block + hessians + hidden)
