"""Alarms reach whoever wants them, signed, however often a server fails first; and nothing waits for it."""

from __future__ import annotations

import hashlib
import hmac
import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from tests.watch.houses import house, url
from tests.watch.made import alarm
from tests.watch.traffic import CONFIG, exchanges, until, write

from quantgate.errors import UsageError
from quantgate.serve._ledger_sql import connect
from quantgate.watch.store import Delivery, Step, Store
from quantgate.watch.webhooks import Postman, deliveries, hooks_of
from quantgate.watch_config import WebhookConfig

__all__ = ["house", "url"]
KEY = "a key of eighty bits"
NOTHING: Mapping[str, str] = {}


class Inbox:
    """A real server. ``answers``: status of each request in turn, the last one for ever; "cut" and "hang" do that."""

    def __init__(self, *answers: int | str) -> None:
        self.answers, self.got = list(answers), list[tuple[str, dict[str, str], bytes]]()
        self.over = threading.Event()
        inbox = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                inbox.got.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                answer = inbox.answers.pop(0) if len(inbox.answers) > 1 else inbox.answers[0]
                if answer == "hang":
                    inbox.over.wait(60)
                elif answer == "trickle":  # a byte now and then, so that no single wait is too long
                    while not inbox.over.wait(0.05):
                        try:
                            self.wfile.write(b"H")
                        except OSError:
                            return
                elif answer == "cut":
                    self.connection.shutdown(socket.SHUT_RDWR)
                else:
                    self.send_response(int(answer))
                    self.send_header("location", "http://127.0.0.1:9/elsewhere")
                    self.end_headers()
                    self.wfile.write(b"a secret answer")

            def log_message(self, *_: object) -> None: ...

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=s3cret"

    def hook(self, **more: object) -> dict[str, object]:
        return {"url": self.url, "timeout": "1s", **more}


@contextmanager
def served(*answers: int | str) -> Iterator[Inbox]:
    inbox = Inbox(*answers)
    thread = threading.Thread(target=inbox.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield inbox
    finally:
        inbox.over.set()
        inbox.server.shutdown()
        inbox.server.server_close()
        thread.join()


class Desk:
    """A store with a leader, and a postman over it."""

    def __init__(
        self, url: str, *hooks: Mapping[str, object], environment: Mapping[str, str] = NOTHING, for_s: float = 600.0
    ) -> None:
        self.store = Store(connect(url))
        self.store.create()
        self.fence = self.store.claim("fleet", "one")
        self.hooks = hooks_of([WebhookConfig.model_validate(one) for one in hooks], environment)
        self.postman = Postman("fleet", self.hooks, self.store, self.saved, first_s=0.02, for_s=for_s)

    def saved(self, one: Delivery) -> None:
        self.store.save("fleet", self.fence, Step(deliveries=[one]))

    def tell(self, **told: object) -> str:
        one = alarm().model_copy(update={"done": "moved", "told": "revision 3"} | told)
        posts = deliveries(self.hooks, one, time.time())
        self.store.save("fleet", self.fence, Step(alarms=[one], deliveries=posts))
        self.postman.wake()
        return one.id

    def told(self, id: str, word: str) -> tuple[str, ...]:
        """What webhooks are known to have answered, once ``word`` is among it."""

        def look() -> tuple[str, ...]:
            found = self.store.alarm(id)
            return found.webhooks if found and any(word in one for one in found.webhooks) else ()

        found: tuple[str, ...] = until(look)
        return found

    def close(self) -> None:
        self.postman.close()
        self.store.close()


@contextmanager
def desk(url: str, *hooks: Mapping[str, object], **more: Any) -> Iterator[Desk]:
    made = Desk(url, *hooks, **more)
    made.postman.start()
    try:
        yield made
    finally:
        made.close()


def file(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'watch.db'}"


def test_an_alarm_arrives_as_json_and_its_signature_holds(url):
    with served(204) as inbox, desk(url, inbox.hook(secret_env="HOOK_KEY"), environment={"HOOK_KEY": KEY}) as made:
        id = made.tell()
        assert made.told(id, "answered 204") == ("127.0.0.1: answered 204, try 1",)
        ((path, headers, body),) = inbox.got
        assert made.store.due("fleet") == []
    assert path == "/hook?token=s3cret"
    assert (headers["content-type"], headers["x-quantgate-event"]) == ("application/json", "rollback")
    stamp = headers["x-quantgate-timestamp"]
    expected = hmac.new(KEY.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-quantgate-signature"] == f"sha256={expected}"
    assert abs(int(stamp) - time.time()) < 120
    said = json.loads(body)
    assert (said["event"], said["target"], said["done"], said["told"]) == ("rollback", "fleet", "moved", "revision 3")
    assert said["verdict"]["findings"][0]["ratio"] == 3.9
    assert headers["x-quantgate-delivery"].startswith(id)


def test_it_is_tried_again_under_one_id_until_it_arrives(tmp_path):
    with served(500, "cut", 302, 429, 200) as inbox, desk(file(tmp_path), inbox.hook()) as made:
        id = made.tell()
        assert made.told(id, "answered 200") == ("127.0.0.1: answered 200, try 5",)
        assert len({headers["x-quantgate-delivery"] for _, headers, _ in inbox.got}) == 1
        assert all("x-quantgate-signature" not in headers for _, headers, _ in inbox.got)
        assert made.postman.trouble is None


@pytest.mark.parametrize("answer", ["hang", "trickle"])
def test_a_server_that_does_not_end_its_answer_is_given_up_in_time(tmp_path, answer):
    with served(answer, 200) as inbox, desk(file(tmp_path), inbox.hook(timeout="0.3s")) as made:
        assert made.told(made.tell(), "answered 200") == ("127.0.0.1: answered 200, try 2",)


def test_nobody_there_is_told_and_given_up_after_its_time(tmp_path, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = {"url": f"http://127.0.0.1:{free.getsockname()[1]}/s3cret", "timeout": "1s"}
        with desk(file(tmp_path), nobody, for_s=0.3) as made, caplog.at_level(logging.INFO):
            id = made.tell()
            (told,) = made.told(id, "given up")
            assert "no answer (connection refused)" in told
            assert made.postman.trouble == "webhook at 127.0.0.1: no answer (connection refused)"
            assert made.store.due("fleet") == []
    assert "s3cret" not in caplog.text
    assert b"s3cret" not in (tmp_path / "watch.db").read_bytes()


def test_redirects_are_not_followed(tmp_path):
    with served(200) as elsewhere, served(307) as inbox:
        inbox.answers = [307]
        with desk(file(tmp_path), inbox.hook(), for_s=0.1) as made:
            (told,) = made.told(made.tell(), "given up")
        assert "answered 307, redirects are not followed" in told
        assert elsewhere.got == []


def test_what_was_not_delivered_survives_a_restart(url):
    with served(503) as inbox:
        with desk(url, inbox.hook()) as made:
            id = made.tell()
            until(lambda: len(inbox.got) >= 2)
        inbox.answers = [200]
        with desk(url, inbox.hook()) as again:
            (told,) = again.told(id, "answered 200")
        assert len({headers["x-quantgate-delivery"] for _, headers, _ in inbox.got}) == 1
        assert int(told.split()[-1]) >= 3  # tries are counted over restarts


def test_a_webhook_that_left_the_configuration_is_not_told(tmp_path):
    with served(503) as inbox, served(200) as other:
        with desk(file(tmp_path), inbox.hook()) as made:
            id = made.tell()
            until(lambda: inbox.got)
        with desk(file(tmp_path), other.hook()) as again:
            assert "not in the configuration any more" in again.told(id, "given up")[0]
        assert other.got == []


def test_each_is_told_of_what_it_asks_for(tmp_path):
    with served(200) as promotions, served(200) as all_of_it:
        wanted = promotions.hook(alarms=["promote"]), all_of_it.hook(alarms=["rollback", "promote", "hold"])
        with desk(file(tmp_path), *wanted) as made:
            made.tell()
            id = made.tell(id="p", verdict=alarm("promote", next_share=0.25).verdict)
            assert len(made.told(id, "answered 200")) == 2
            until(lambda: len(promotions.got) == 1 and len(all_of_it.got) == 2)
    assert [headers["x-quantgate-event"] for _, headers, _ in promotions.got] == ["promote"]


def test_a_rollback_does_not_wait_for_a_webhook_that_hangs(house):
    with served("hang") as inbox:
        hook = WebhookConfig.model_validate(inbox.hook(timeout="2s"))
        watcher = house.watch(CONFIG.model_copy(update={"webhooks": (hook,)}))
        write(house.url, exchanges(house.live, 600, bad=0.5))
        assert house.alarm().done == "moved"
        until(lambda: inbox.got)
        assert house.live.canary is None and house.store.alarms("fleet")[0].webhooks == ("127.0.0.1: waits",)
        inbox.over.set()
        inbox.answers = [200]
        until(lambda: "answered 200" in house.store.alarms("fleet")[0].webhooks[0])
        assert watcher.moves == 1


@pytest.mark.parametrize("url", ["http://a..b/", f"http://{'x' * 64}.example/", "http://127.0.0.1:0/", "http://h/ö"])
def test_an_address_that_nobody_can_reach_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(UsageError, match=r"watch\.webhooks\[0\]\.url: not an address"):
        hooks_of([WebhookConfig(url=url)], {})
