"""Folders elsewhere: whole or not there, the same bytes back, and a sentence for whatever goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate import store
from quantgate.errors import ArtifactError, StoreError, UsageError
from quantgate.store import INDEX, index_of, pull, push

BYTES = 3_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "inner").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "inner" / "notes.txt").write_text("deep")
    (made / "model.safetensors").write_bytes(os.urandom(BYTES))
    return made


@pytest.fixture
def memory() -> Iterator[str]:
    import fsspec

    yield "memory://run"
    fsspec.filesystem("memory").store.clear()


def same(first: Path, second: Path) -> bool:
    return index_of(first) == index_of(second)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_was_pushed_comes_back_under_its_digest(folder: Path, memory: str, tmp_path: Path, kind: str) -> None:
    url = memory if kind == "memory" else f"file://{tmp_path / 'there'}"
    address = push(folder, url)
    assert address == f"{url}/{index_of(folder).name}" == push(folder, url)
    got = pull(address, kept=tmp_path / "kept")
    assert same(got, folder) and got.name == index_of(folder).name
    assert pull(address, kept=tmp_path / "kept") == got


@given(
    st.dictionaries(
        st.text("abc.", min_size=1, max_size=4).filter(lambda one: not one.startswith(".")),
        st.binary(max_size=40),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=25)
def test_any_folder_survives_the_way_there_and_back(files: dict[str, bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        for name, raw in files.items():
            (Path(place) / "made").mkdir(exist_ok=True)
            (Path(place) / "made" / name).write_bytes(raw)
        address = push(Path(place) / "made", f"file://{place}/there")
        assert same(pull(address, kept=Path(place) / "kept"), Path(place) / "made")


def test_a_model_that_somebody_copied_there_is_fetched_by_its_listing(folder: Path, tmp_path: Path) -> None:
    url = f"file://{folder}"
    got = pull(url, kept=tmp_path / "kept")
    assert (got / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    time.sleep(0.01)
    (folder / "model.safetensors").write_bytes(os.urandom(BYTES))  # the same length, other bytes
    again = pull(url, kept=tmp_path / "kept")
    assert again != got and (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_bytes_that_are_not_what_the_index_says_are_refused_and_not_kept(folder: Path, tmp_path: Path) -> None:
    address = push(folder, f"file://{tmp_path / 'there'}")
    file = Path(address.removeprefix("file://")) / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[BYTES // 2] ^= 1
    file.write_bytes(raw)
    with pytest.raises(
        ArtifactError, match=r"model.safetensors: its bytes are not those .* vouches for; push it again"
    ):
        pull(address, kept=tmp_path / "kept")
    assert not (tmp_path / "kept" / index_of(folder).name).exists()


def test_an_index_that_was_swapped_is_refused(folder: Path, tmp_path: Path) -> None:
    address = push(folder, f"file://{tmp_path / 'there'}")
    place = Path(address.removeprefix("file://"))
    told = json.loads((place / INDEX).read_text())
    told["files"]["config.json"]["bytes"] = 3
    (place / INDEX).write_text(json.dumps(told))
    with pytest.raises(ArtifactError, match="is not the one that its name vouches for"):
        pull(address, kept=tmp_path / "kept")


def test_an_index_cannot_name_a_file_outside(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"files": {"../../evil.json": {"sha256": "", "bytes": 1}}}))
    with pytest.raises(ArtifactError, match=r"names '../../evil.json', which lies outside"):
        pull(f"file://{tmp_path}", kept=tmp_path / "kept")


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_upload_that_is_cut_leaves_nothing_under_the_final_name_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The disk of the store fails in the middle of a file."""
    url, sent, copy = f"file://{tmp_path / 'there'}", list[str](), shutil.copyfile

    def cut(source: Any, target: Any) -> None:
        if len(sent) == after:
            Path(target).write_bytes(Path(source).read_bytes()[:-1])
            raise OSError("Connection reset by peer")
        sent.append(Path(source).name)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", cut)
    with pytest.raises(StoreError, match=r"could not all be sent \(Connection reset by peer\); run again to go on"):
        push(folder, url)
    there = {file.name for file in (tmp_path / "there").rglob("*") if file.is_file()}
    assert there == set(sent) and INDEX not in there
    if sent:
        with pytest.raises(StoreError, match="its upload was cut; run again what pushed it"):
            pull(f"{url}/{index_of(folder).name}", kept=tmp_path / "kept")

    def whole(source: Any, target: Any) -> None:
        sent.append(Path(source).name)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", whole)
    assert same(pull(push(folder, url), kept=tmp_path / "kept"), folder)
    assert sorted(sent) == sorted(Path(name).name for name in index_of(folder).files)  # none was sent twice


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/run", "s3://bucket/run?X-Amz-Signature=abc", "s3://key@b/run"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(folder: Path, url: str) -> None:
    with pytest.raises(UsageError, match="holds a password or a signature") as refused:
        push(folder, url)
    assert not any(word in str(refused.value) for word in ("secret", "abc", "key@"))


def test_a_protocol_that_nobody_speaks_is_told(folder: Path) -> None:
    with pytest.raises(UsageError, match="nothing speaks 'gopher' here"):
        push(folder, "gopher://host/run")


def test_nothing_there_is_told(memory: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="memory://run/none: nothing is there; check the address"):
        pull("memory://run/none", kept=tmp_path)


class Cutting:
    """A TCP relay to ``port`` that drops every connection once ``left`` bytes went to the server or came back."""

    def __init__(self, port: int) -> None:
        self.port, self.left = port, 10**12
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._relay, args=(one, other), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while raw := source.recv(65536):
                self.left -= len(raw)
                if self.left < 0:
                    break
                target.sendall(raw)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """moto, which speaks S3, in a process of its own on loopback."""
    for module in ("s3fs", "moto", "flask"):
        pytest.importorskip(
            module, reason=f"{module} is not installed: pip install 'quantgate[s3]' 'moto[s3]' flask flask-cors"
        )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        child.terminate()
        child.wait(10)


@pytest.fixture
def s3(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cutting]:
    import fsspec

    relay = Cutting(server)
    for name, value in {
        "AWS_ENDPOINT_URL": relay.address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    if not files.exists("bucket"):
        files.mkdir("bucket")
    yield relay
    relay.listener.close()


def test_s3_gives_back_what_it_was_given(s3: Cutting, folder: Path, tmp_path: Path) -> None:
    address = push(folder, "s3://bucket/run")
    assert address == f"s3://bucket/run/{index_of(folder).name}"
    assert same(pull(address, kept=tmp_path / "kept"), folder)


def test_s3_without_the_bucket_is_told(s3: Cutting, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"s3://nobody-has-this/run: there is no such bucket or folder"):
        push(folder, "s3://nobody-has-this/run")
    with pytest.raises(StoreError, match=r"s3://nobody-has-this/run: nothing is there"):
        pull("s3://nobody-has-this/run", kept=tmp_path)


def test_s3_upload_that_is_cut_leaves_no_index_and_goes_on(s3: Cutting, folder: Path, tmp_path: Path) -> None:
    s3.left = BYTES // 2
    with pytest.raises(StoreError, match=r"s3://bucket/cut: could not all be sent .*; run again to go on"):
        push(folder, "s3://bucket/cut")
    s3.left = 10**12
    address = f"s3://bucket/cut/{index_of(folder).name}"
    with pytest.raises(StoreError, match=r"its upload was cut|nothing is there"):
        pull(address, kept=tmp_path / "kept")
    assert same(pull(push(folder, "s3://bucket/cut"), kept=tmp_path / "kept"), folder)


def test_s3_download_that_is_cut_leaves_nothing_under_its_name_and_goes_on(
    s3: Cutting, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PIECE", 500_000)
    address, kept, name = push(folder, "s3://bucket/down"), tmp_path / "kept", index_of(folder).name
    s3.left = BYTES // 2
    with pytest.raises(StoreError, match="could not all be fetched"):
        pull(address, kept=kept)
    assert not (kept / name).exists()
    parts = list((kept / f".{name}.partial").rglob("model.safetensors.part"))
    assert len(parts) == 1 and 0 < parts[0].stat().st_size < BYTES
    s3.left = BYTES  # not enough for all of it once more, and the index
    assert same(pull(address, kept=kept), folder)


def test_s3_without_rights_is_told(server: int, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Refusing(Cutting):
        """Answers every request as S3 answers one that is not allowed."""

        def _accept(self) -> None:
            while True:
                try:
                    client, _ = self.listener.accept()
                except OSError:
                    return
                asked = client.recv(65536)
                body = (
                    b""
                    if asked.startswith(b"HEAD")
                    else b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
                )
                client.sendall(
                    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
                    b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
                )
                client.close()

    relay = Refusing(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", relay.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    try:
        for work in (lambda: push(folder, "s3://bucket/run"), lambda: pull("s3://bucket/run", kept=tmp_path)):
            with pytest.raises(
                StoreError, match=r"s3://bucket/run: may not be read or written .*check the rights"
            ) as told:
                work()
            assert "hidden" not in str(told.value)
    finally:
        relay.listener.close()
