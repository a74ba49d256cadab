"""Servers as engines of a run: reached or launched, with the key that the caller looked up, and ended afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from quantgate import plugins
from quantgate.endpoint_config import EndpointConfig, is_address, split_address
from quantgate.errors import UsageError
from quantgate.models.locate import REFERENCE, locate
from quantgate.pipeline.runtimes import TORCH
from quantgate.records import digest_file, digest_of, parse
from quantgate.variant_config import RuntimeConfig

if TYPE_CHECKING:
    from quantgate.engines.openai import OpenAIEngine
    from quantgate.models import OpenedModel
    from quantgate.quantize import Artifact

OPENAI = "openai"
Tell = Callable[[str, int, int, str], None]  # stage, done, total, note


@dataclass(frozen=True)
class Served:
    """What a server is to run: the path or name that its command gets, and what is known of those bytes."""

    path: str
    weights: str = ""  # digest; "" when the bytes cannot be seen from here
    model: OpenedModel | None = None  # whose tokenizer and chat template it carries

    @classmethod
    def of(cls, ref: str) -> Served:
        """A folder, a file or ``quantgate/reference``, with the digest of its content; of a hub's id just the name."""
        path = locate(ref) if ref == REFERENCE else Path(ref).expanduser()
        return cls(str(path.resolve()), content_digest(path)) if path.exists() else cls(ref)

    @classmethod
    def artifact(cls, artifact: Artifact, model: OpenedModel) -> Served:
        """An artifact of ``model``, or the model itself."""
        from quantgate.quantize.gguf.artifact import GgufArtifact

        if artifact.is_baseline:
            return cls(str(model.path.resolve()), model.weights_digest, model)
        path = artifact.tensors.file.path if isinstance(artifact, GgufArtifact) else artifact.path
        return cls(str(path.resolve()), artifact.manifest.digest, model)


def content_digest(path: Path) -> str:
    """Digest of a file's bytes, or of the names and bytes of all files in a folder."""
    if path.is_file():
        return digest_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    return digest_of([[file.relative_to(path).as_posix(), digest_file(file)] for file in files])


def endpoint_of(ref: str, launch: str | None, settings: Mapping[str, object]) -> EndpointConfig | None:
    """How one side of a comparison is served: an address, a model to launch, or neither (None). Raises UsageError."""
    told = {name: value for name, value in settings.items() if value is not None}
    if is_address(ref):
        url, model = split_address(ref)
        return parse(EndpointConfig, {**told, "url": url} | ({"model": model} if model else {}), where=ref)
    return parse(EndpointConfig, {**told, "launch": launch}, where="compare") if launch else None


def check_keys(endpoints: Sequence[EndpointConfig | None], secrets: Mapping[str, str]) -> None:
    """Before anything slow: raises UsageError for a key that is not there."""
    for one in endpoints:
        name = one.api_key_env if one else None
        if name is not None and not secrets.get(name):
            raise UsageError(f"endpoint: the variable {name} is not set; export it, or leave 'api_key_env' out")


@contextmanager
def served(
    endpoint: EndpointConfig, what: Served, name: str, out: Path, secrets: Mapping[str, str], tell: Tell
) -> Iterator[OpenAIEngine]:
    """The engine of an endpoint while the block runs; the log of one that is launched is ``servers/NAME.log``.

    Raises EngineError when the server cannot be asked, UsageError for a placeholder without a value or a missing key.
    """
    from quantgate.engines._launch import Launched
    from quantgate.engines._openai_http import Patience

    check_keys([endpoint], secrets)
    key = secrets[endpoint.api_key_env] if endpoint.api_key_env else None
    open_engine = plugins.get("engines", OPENAI)
    with ExitStack() as stack:
        url, more = endpoint.url or "", {}
        if endpoint.launch is not None:
            values = {"artifact": what.path, "model": endpoint.model or Path(what.path).name}
            values |= {one: str(value) for one, value in endpoint.settings.items()}
            server = stack.enter_context(
                Launched(
                    endpoint.launch,
                    values,
                    log=out / "servers" / f"{name}.log",
                    startup_s=endpoint.startup,
                    progress=lambda _seconds, note: tell(note, 0, 1, ""),
                )
            )
            server.wait({"Authorization": f"Bearer {key}"} if key else {})
            tell(f"waiting for {server.program}", 1, 1, "")
            url, more = server.url, _known(endpoint, what) | {"dead": server.dead}
        yield open_engine(
            url,
            model=endpoint.model or "",
            key=key,
            concurrency=endpoint.concurrency,
            patience=Patience(timeout_s=endpoint.timeout, tries=endpoint.tries),
            sampling=endpoint.sampling,
            schemas=endpoint.schemas,
            stream=endpoint.stream,
            body=endpoint.request,
            revision=endpoint.revision or "",
            **more,
        )


def _known(endpoint: EndpointConfig, what: Served) -> dict[str, object]:
    """What a launched server's identity may hold: real digests, where the command was given the artifact itself."""
    launch, settings = endpoint.launch or "", endpoint.settings
    known: dict[str, object] = {
        "launched": (f"launch={launch}", *(f"{name}={_setting(value)}" for name, value in sorted(settings.items())))
    }
    if "{artifact}" not in launch:
        return known
    known["weights"] = what.weights
    if what.model is not None:
        model = what.model
        known["template"], known["tokenizer"] = model.template_digest, model.tokenizer_digest
        known["render"] = lambda turns: model.render([{"role": role, "content": content} for role, content in turns])
    return known


def _setting(value: str | int | float) -> str:
    """A setting as the identity keeps it: of a file or a folder, what is in it."""
    path = Path(str(value)).expanduser()
    return f"{path.name} {content_digest(path)[7:23]}" if isinstance(value, str) and path.exists() else str(value)


class Servers:
    """The servers of a comparison, ended when the block is left; ``told`` says who answered."""

    def __init__(
        self,
        baseline: EndpointConfig | None,
        variant: EndpointConfig | None,
        out: Path,
        secrets: Mapping[str, str],
        tell: Tell,
    ) -> None:
        self.baseline, self.variant = baseline, variant
        self.out, self.secrets, self.tell = out, secrets, tell
        self.stack, self.told = ExitStack(), dict[str, str]()

    def check(self, engine: str, runtime: RuntimeConfig | None, *, each: bool) -> None:
        """Before anything slow: raises UsageError for missing keys, and for settings of engines that run here."""
        check_keys([self.baseline, self.variant], self.secrets)
        if self.variant is None and engine == OPENAI:
            raise UsageError("engine openai asks a server; name its address in place of the model, or add --launch")
        if self.variant is not None and (runtime is not None or each or engine not in (OPENAI, TORCH)):
            raise UsageError(
                "the variant is a server, whose settings stand in its own command; leave --engine, --each and the "
                "settings of engines out"
            )

    def open(self, name: str, ref: str) -> OpenAIEngine:
        """The engine of one side, ``baseline`` or ``variant``."""
        endpoint: EndpointConfig = getattr(self, name)
        what = Served("") if is_address(ref) else Served.of(ref)
        engine = self.stack.enter_context(served(endpoint, what, name, self.out, self.secrets, self.tell))
        self.told[name] = engine.sentence
        return engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.stack.close()
