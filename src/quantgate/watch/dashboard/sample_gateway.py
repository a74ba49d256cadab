"""A gateway around a made-up trial: a real registry with a passed decision, real keys, exchanges, scripted models."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.records import digest_of, parse
from quantgate.release import Variant
from quantgate.serve import Sink
from quantgate.serve.settings import Application
from quantgate.serve_config import ServeConfig
from quantgate.watch import Trial
from quantgate.watch.dashboard.app import Dashboard
from quantgate.watch.dashboard.sample import Sample, Story

TARGET = "assistant"
BASE = Variant(name="BF16", artifact=digest_of("weights"), engine=digest_of("engine of it"), is_baseline=True)
ENGINE = digest_of("engine")
NAMES = ("W4A16-awq", "W8A8-gptq", "W3A16")
CANARY = 0.05
WHY = {
    "W4A16-awq": ("pass", "keeps all 3 rules: at worst 1.9 % of the baseline's score lost"),
    "W8A8-gptq": ("pass", "keeps all 3 rules: at worst 0.8 % of the baseline's score lost"),
    "W3A16": ("fail", "damages json_tools: at least 4.1 % lost, more than the 3 % allowed"),
}
RULES = (
    ("math within 3 %", "math: 81.2 % -> 80.9 % over 1,200 cases (21 lost, 17 gained); at worst 1.9 % lost"),
    ("json_tools within 3 %", "json_tools: 96.4 % -> 96.2 % over 1,200 cases (9 lost, 6 gained); at worst 1.3 % lost"),
    (
        "refusals within 3 %, both ways",
        "refusals: 92.1 % -> 92.0 % over 800 cases (6 lost, 5 gained); at worst 1.6 % lost",
    ),
)


def variant(name: str) -> Variant:
    return Variant(name=name, artifact=digest_of(name), engine=ENGINE)


@dataclass
class Beside:
    """See ``serve.settings.Attached``: the dashboard over a sample instead of the watch's own evidence."""

    sink: Sink
    apps: Mapping[str, Application]
    dashboard: Dashboard
    reads_text: bool = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing runs: the sample steps when it is told to."""

    def close(self) -> None:
        self.dashboard.close()
        self.dashboard.known.reader.close()

    def warnings(self) -> Sequence[str]:
        return ()


@dataclass
class World:
    """What a look or a test needs; ``keys`` by scope, empty where there are none."""

    url: str
    sample: Sample
    registry: Any
    gateway: Any
    keys: Mapping[str, str]

    def write(self) -> None:
        """The sample's exchanges as they are now, into the journal; those that are there stay as they are."""
        journal = self.gateway.parts.journal
        wanted = journal.written
        for one in self.sample.exchanges():
            journal.put(one)
            wanted += 1
        while journal.written < wanted and journal.trouble is None:
            time.sleep(0.01)


@contextlib.contextmanager
def opened(
    folder: Path, story: Story = "healthy", *, minutes: int = 100, keys: bool = True, canary: bool = True
) -> Iterator[World]:
    """A gateway on loopback until the block ends; its evidence stands still but for ``sample.step``."""
    from quantgate.release.lifecycle import promote, ramp
    from quantgate.release.store import Registry
    from quantgate.serve._ledger_sql import connect
    from quantgate.serve.exchanges import Reader
    from quantgate.serve.open import Around, Parts, open_gateway
    from quantgate.serve.scripted import ScriptedUpstream
    from quantgate.serve.server import Running

    url = f"sqlite:///{folder / 'quantgate.db'}"
    registry = Registry.open(url, "ada", create=True)
    _register(registry)
    if canary:
        promote(registry, TARGET, NAMES[0], canary=0.01, holdback=0.02, why="smallest that passed")
        ramp(registry, TARGET, CANARY, why="forty quiet minutes")
    trial = Trial(
        target=TARGET, variant=NAMES[0], artifact=digest_of(NAMES[0]), control=BASE.name, control_artifact=BASE.artifact
    )
    sample = Sample(trial, story, began=time.time() - minutes * 60.0, minutes=minutes)
    made = contextlib.ExitStack()

    def attach(parts: Parts) -> Beside:
        dashboard = Dashboard(parts, sample, Reader(connect(parts.folder.exchanges)))
        return Beside(parts.journal, {"dashboard": dashboard}, dashboard)

    with made:
        made.callback(registry.close)
        models = {name: made.enter_context(ScriptedUpstream()) for name in (BASE.name, *NAMES)}
        config = _config(folder, url, models)
        secrets = _keys(config) if keys else {}
        gateway = open_gateway(config, Around({}, attach=attach))
        running = made.enter_context(Running(gateway))
        world = World(f"http://127.0.0.1:{running.port}", sample, registry, gateway, secrets)
        world.write()
        yield world


def _config(folder: Path, url: str, models: Mapping[str, Any]) -> ServeConfig:
    variants = {name: {"endpoint": {"url": one.url, "model": "scripted"}} for name, one in models.items()}
    given = {"target": TARGET, "registry": url, "data": str(folder / "data"), "variants": variants}
    return parse(ServeConfig, given, where="serve.yaml")


def _keys(config: ServeConfig) -> dict[str, str]:
    """One of each scope, made before the gateway starts, so that it asks for them."""
    from quantgate.serve._ledger_sql import connect, create
    from quantgate.serve.folder import DataFolder
    from quantgate.serve.keys import KeyBook

    folder = DataFolder(Path(config.data))
    folder.make()
    engine = connect(folder.database)
    create(engine)
    book = KeyBook(engine, folder.pepper)
    made = {scope: book.new(scope, frozenset({scope}))[1] for scope in ("admin", "watch", "use")}
    engine.dispose()
    return made


def _register(registry: Any) -> None:
    from quantgate.decide.known import Finding
    from quantgate.decide.rules import TargetRules
    from quantgate.decide.targets import TargetDecision, TargetVerdict
    from quantgate.evaluate.evidence import Gate
    from quantgate.hardware.targets import Place

    gates = tuple(Gate(capability=name, suite=name, margin=0.03) for name in ("math", "json_tools", "refusals"))
    rules = TargetRules(name=TARGET, place=Place(hardware="h100-sxm", runtime="vllm"), gates=gates)
    verdicts = []
    for at, name in enumerate(NAMES):
        verdict, sentence = WHY[name]
        found = tuple(
            Finding(about="capability", rule=rule, verdict="pass", sentence=said, by="proven") for rule, said in RULES
        )
        verdicts.append(
            TargetVerdict.model_validate(
                {"variant": name, "artifact": digest_of(name), "engine": ENGINE, "verdict": verdict}
                | {"eligible": verdict == "pass", "sentence": sentence, "stored_bytes": 10**9 * (9 - at)}
                | {"findings": found if verdict == "pass" else ()}
            )
        )
    decision = TargetDecision(
        target=TARGET,
        rules=rules,
        order="e-bonferroni",
        alpha=0.05,
        baseline=BASE.artifact,
        chosen=NAMES[0],
        sentence=f"{TARGET}: {NAMES[0]}, the smallest that keeps every rule",
        verdicts=tuple(verdicts),
    )
    registry.register([variant(name) for name in NAMES], decided={TARGET: decision}, baseline=BASE)


def main() -> None:
    """Serves it until Ctrl-C; a minute of its traffic passes every two seconds."""
    asked = argparse.ArgumentParser(prog="python -m quantgate.watch.dashboard.sample", description=main.__doc__)
    asked.add_argument("--story", choices=("healthy", "worse"), default="healthy")
    asked.add_argument("--minutes", type=int, default=100, help="of traffic that are past when it starts")
    asked.add_argument("--open", action="store_true", help="without keys: anybody on this machine may look")
    asked.add_argument("--still", action="store_true", help="no time passes")
    given = asked.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(Path(folder), given.story, minutes=given.minutes, keys=not given.open) as world,
    ):
        print(f"{world.url}/dashboard", flush=True)
        for scope, secret in world.keys.items():
            print(f"{scope}: {secret}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while not threading.Event().wait(2.0):
                if not given.still:
                    world.sample.step()
