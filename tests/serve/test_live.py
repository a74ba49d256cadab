"""Moves of the registry's pointer are heard at once, and what was heard last stands when nobody can be asked."""

from __future__ import annotations

import threading

import pytest
from tests.release.given import register

from quantgate.errors import RecordError, ReleaseError
from quantgate.release import Live, Variant
from quantgate.release.lifecycle import promote, rollback
from quantgate.release.store import Registry
from quantgate.serve.live import LiveFeed, file_of

BASE = Variant(name="BF16", artifact="sha256:b", engine="none", is_baseline=True)
OTHER = Variant(name="W4A16", artifact="sha256:c", engine="none")


def live(revision: int, **changed) -> Live:
    return Live.model_validate({"target": "laptop", "revision": revision, "baseline": BASE, "stable": BASE} | changed)


class Heard:
    def __init__(self) -> None:
        self.lives, self.something = list[Live](), threading.Event()

    def __call__(self, now: Live) -> None:
        self.lives.append(now)
        self.something.set()


class Pointer:
    """A registry of one target that can go away."""

    def __init__(self, now: Live | None) -> None:
        self.now, self.gone = now, False

    def changed(self, since: int) -> Live | None:
        if self.gone:
            raise ReleaseError("registry: does not answer")
        return self.now if self.now is not None and self.now.revision > since else None


def test_a_move_is_heard_and_older_ones_are_not(tmp_path):
    pointer = Pointer(live(1))
    feed = LiveFeed("laptop", pointer.changed, tmp_path, poll_s=0.01)
    assert feed.first() == live(1)
    heard = Heard()
    feed.start(heard)
    pointer.now = live(5, canary=OTHER, share=0.1)
    assert heard.something.wait(30)
    feed.close()
    pointer.now = live(4)
    feed.ask()
    assert [one.revision for one in heard.lives] == [5]


def test_the_last_release_stands_while_the_registry_is_away_and_through_a_restart(tmp_path):
    pointer = Pointer(live(7))
    feed = LiveFeed("laptop", pointer.changed, tmp_path)
    feed.first()
    pointer.now = live(8)
    feed.ask()
    pointer.gone = True
    feed.ask()
    assert feed.trouble is not None
    assert "revision 8 stands, as last known" in feed.trouble
    again = LiveFeed("laptop", pointer.changed, tmp_path)
    assert again.first().revision == 8
    assert "cannot be asked" in str(again.trouble)
    pointer.gone, pointer.now = False, live(9)
    again.ask()
    assert again.trouble is None
    assert Live.load(file_of(tmp_path, "laptop")).revision == 9


def test_without_registry_and_file_nothing_starts(tmp_path):
    pointer = Pointer(None)
    with pytest.raises(ReleaseError, match="laptop: the registry serves no such target"):
        LiveFeed("laptop", pointer.changed, tmp_path).first()
    pointer.gone = True
    with pytest.raises(ReleaseError, match="does not answer"):
        LiveFeed("laptop", pointer.changed, tmp_path).first()


def test_a_file_that_was_edited_is_not_believed(tmp_path):
    pointer = Pointer(live(7))
    LiveFeed("laptop", pointer.changed, tmp_path).first()
    kept = file_of(tmp_path, "laptop")
    kept.write_text(kept.read_text().replace('"revision": 7', '"revision": 9'))
    pointer.gone = True
    with pytest.raises(RecordError, match="does not match its digest"):
        LiveFeed("laptop", pointer.changed, tmp_path).first()


def test_two_targets_have_two_files(tmp_path):
    assert file_of(tmp_path, "a/b") != file_of(tmp_path, "a_b")


def test_a_move_is_applied_even_if_it_cannot_be_written_down(tmp_path):
    folder = tmp_path / "data"
    pointer = Pointer(live(1))
    feed = LiveFeed("laptop", pointer.changed, folder, poll_s=0.01)
    feed.first()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("a file where the folder was")
    heard = Heard()
    feed.start(heard)
    pointer.now = live(2)
    assert heard.something.wait(30)
    feed.close()
    assert [one.revision for one in heard.lives] == [2]


def test_a_rollback_in_a_real_registry_is_heard(tmp_path):
    registry = Registry.open(f"sqlite:///{tmp_path / 'quantgate.db'}", "ada", create=True)
    register(registry, "laptop", W4A16="pass")
    before = promote(registry, "laptop", "W4A16", canary=0.05)
    feed = LiveFeed("laptop", lambda since: registry.changed("laptop", since), tmp_path)
    assert feed.first() == before
    heard = Heard()
    feed.start(heard)
    rollback(registry, "laptop", why="a test")
    assert heard.something.wait(30)
    feed.close()
    assert heard.lives[0].canary is None
    registry.close()


def test_whoever_moved_the_pointer_asks_at_once_and_releases_are_heard_in_their_order(tmp_path):
    """Many ask at the same time while the pointer moves: the newest stands, and none is heard after a newer one."""
    pointer = Pointer(live(1))
    feed = LiveFeed("laptop", pointer.changed, tmp_path, poll_s=3600)
    feed.first()
    heard = Heard()
    feed.start(heard)

    def asks():
        for _ in range(50):
            feed.ask()

    threads = [threading.Thread(target=asks) for _ in range(4)]
    for one in threads:
        one.start()
    for revision in range(2, 100):
        pointer.now = live(revision)
    for one in threads:
        one.join()
    feed.ask()
    feed.close()
    revisions = [one.revision for one in heard.lives]
    assert revisions == sorted(set(revisions))
    assert revisions[-1] == 99
