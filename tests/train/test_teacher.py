from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.train.tiny import VOCABULARY, Tiny, asked, training_set
from torch import Tensor

from quantgate.train import Document
from quantgate.train import teacher as module
from quantgate.train.losses import kl
from quantgate.train.order import batch_of, packed
from quantgate.train.teacher import LogitsOf, Teacher

ROOT = Path(__file__).resolve().parents[2]


class Counting:
    """How many positions a teacher was asked about."""

    def __init__(self, network: Tiny) -> None:
        self.ask, self.positions = asked(network), 0

    def __call__(self, ids: Tensor, counted: Tensor) -> Tensor:
        self.positions += int(counted.sum())
        return self.ask(ids, counted)


@pytest.mark.parametrize("k", [1, 5, VOCABULARY])
def test_answers_are_the_teachers_own(tmp_path: Path, k: int) -> None:
    data, network = training_set(), Tiny(1)
    teacher = Teacher(asked(network), data, tmp_path, "one", k, 128)
    for tune in (False, True):
        documents = data.tune if tune else data.documents
        batch = batch_of(documents, [7, 2, 9])
        logs = asked(network)(batch.ids, batch.counted).log_softmax(1)
        found = teacher.of(batch, tune)
        assert (found.tokens == logs.topk(k).indices).all()
        torch.testing.assert_close(found.logs, logs.topk(k).values, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("k", [1, 5, VOCABULARY])
def test_float16_on_disk_leaves_no_distance_between_equals(tmp_path: Path, k: int) -> None:
    data, network = training_set(), Tiny(1)
    with torch.no_grad():
        network.head.mul_(6)  # sure of itself: little is left for the rest
    teacher = Teacher(asked(network), data, tmp_path, "one", k, 128)
    for batch in packed(data.documents, range(len(data.documents)), 256):
        assert kl(asked(network)(batch.ids, batch.counted), teacher.of(batch)).abs().max() < 2e-5


def test_it_is_asked_once(tmp_path: Path) -> None:
    data, first, second = training_set(), Counting(Tiny(1)), Counting(Tiny(1))
    one = Teacher(first, data, tmp_path, "one", 4, 128)
    two = Teacher(second, data, tmp_path, "one", 4, 512)
    assert (first.positions, one.reused) == (one.positions, 0)
    assert (second.positions, two.reused) == (0, one.positions)


@pytest.mark.parametrize(("key", "k"), [("another", 4), ("one", 5)])
def test_another_teacher_or_k_is_asked_anew(tmp_path: Path, key: str, k: int) -> None:
    data, again = training_set(), Counting(Tiny(1))
    Teacher(asked(Tiny(1)), data, tmp_path, "one", 4, 128)
    assert Teacher(again, data, tmp_path, key, k, 128).reused == 0
    assert again.positions > 0


def test_documents_that_another_run_had_are_taken_from_it(tmp_path: Path) -> None:
    """Shards follow from their documents: the tune split of one run is the same in another with other training data."""
    data, other, again = training_set(), training_set(5), Counting(Tiny(1))
    Teacher(asked(Tiny(1)), data, tmp_path, "one", 4, 128)
    found = Teacher(again, type(data)(other.documents, data.tune, other.summary), tmp_path, "one", 4, 128)
    assert found.reused == sum(len(one.counted) for one in data.tune)
    assert found.reused + again.positions == found.positions


@pytest.mark.parametrize("harm", ["torn", "edited", "empty", "not tensors"])
def test_a_shard_that_is_not_whole_is_asked_again(tmp_path: Path, harm: str) -> None:
    data, again = training_set(), Counting(Tiny(1))
    before = Teacher(asked(Tiny(1)), data, tmp_path, "one", 4, 128).of(batch_of(data.documents, [3]))
    path = max(tmp_path.glob("*.safetensors"), key=lambda one: one.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    bad = {"torn": raw[: len(raw) // 2], "edited": raw, "empty": bytearray(), "not tensors": bytearray(b"\xff" * 400)}
    path.write_bytes(bad[harm])
    teacher = Teacher(again, data, tmp_path, "one", 4, 128)
    assert again.positions == sum(len(one.counted) for one in data.documents)
    after = teacher.of(batch_of(data.documents, [3]))
    assert torch.equal(before.tokens, after.tokens)
    assert torch.equal(before.logs, after.logs)


def _always(logits: Tensor) -> LogitsOf:
    return lambda ids, counted: logits


def test_tokens_of_large_vocabularies_keep_their_numbers(tmp_path: Path) -> None:
    for vocabulary in (40_000, 70_000):
        data = type(training_set())([Document("made", [1, 2, 3], [0.0, 1.0, 1.0])], [], training_set().summary)
        logits = torch.zeros(2, vocabulary).index_fill(1, torch.tensor([vocabulary - 1]), 9.0)
        teacher = Teacher(_always(logits), data, tmp_path, f"{vocabulary}", 1, 64)
        assert teacher.of(batch_of(data.documents, [0])).tokens.tolist() == [[vocabulary - 1]] * 2


KILLED = """
import os, signal, sys
from pathlib import Path
from quantgate.train import teacher as module
from tests.train.tiny import Tiny, asked, training_set

module.SHARD_POSITIONS = 200
folder, ask, left = Path(sys.argv[1]), asked(Tiny(1)), 7

def logits_of(ids, counted):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return ask(ids, counted)

child = os.fork()
if not child:
    module.Teacher(logits_of, training_set(), folder, "one", 4, 128)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
kept = len(list(folder.glob("*.safetensors")))
made = module.Teacher(ask, training_set(), folder, "one", 4, 128)
print(kept, made.reused, made.positions)
"""


def test_a_killed_run_goes_on_at_the_next_shard(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept, reused, positions = map(int, done.stdout.split())
    assert kept > 1 and 200 * kept <= reused < positions


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(Exception, match="File too large"):
            Teacher(asked(Tiny(1)), training_set(), tmp_path, "one", 4, 128)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


def test_a_position_takes_the_bytes_that_are_promised(tmp_path: Path) -> None:
    data = training_set(documents=400)
    teacher = Teacher(asked(Tiny(1)), data, tmp_path, "one", 16, 512)
    size = max(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    positions = sum(len(one.counted) for one in data.documents)
    assert size == pytest.approx((4 * 16 + 2) * positions, rel=0.01)
    assert "4 k + 2 bytes" in (module.__doc__ or "")
    assert teacher.positions > positions
