"""From what a user writes to a folder on disk: a path, ``quantgate/reference``, or a Hugging Face id."""

from __future__ import annotations

import re
from pathlib import Path

from quantgate.errors import ModelError
from quantgate.store import is_address, pull

REFERENCE = "quantgate/reference"
REFERENCE_FOLDER = Path(__file__).parent / "reference"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]  # never a pickle


def locate(ref: str, *, hub: str | None = None, cache: Path | None = None) -> Path:
    """The folder that ``ref`` means; one at an address is fetched. Raises ModelError when there is none, StoreError.

    ``hub`` is another hub's address and ``cache`` another cache folder than huggingface_hub's own.
    """
    if ref == REFERENCE:
        if not (REFERENCE_FOLDER / "config.json").is_file():
            raise ModelError(
                f"{REFERENCE}: its files are not installed; run `quantgate train reference`, or name a folder"
            )
        return REFERENCE_FOLDER
    path = pull(ref) if is_address(ref) else Path(ref).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path}: no config.json in this folder; expected a Hugging Face model folder")
        return path
    if path.exists():
        raise ModelError(f"{path}: is a file; name the folder that holds config.json and the safetensors files")
    if HUB_ID.fullmatch(ref):
        return _from_hub(ref, hub, cache)
    raise ModelError(f"{ref}: no such folder; name a model folder, a Hugging Face id (owner/name) or '{REFERENCE}'")


def _from_hub(ref: str, hub: str | None, cache: Path | None) -> Path:
    """What the hub's local cache holds if it is whole, else a download of configuration, tokenizer and safetensors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        local = Path(snapshot_download(ref, allow_patterns=WANTED, cache_dir=cache, local_files_only=True))
        if (local / "config.json").is_file() and any(local.glob("*.safetensors")):
            return local
    except (LocalEntryNotFoundError, HFValidationError):
        pass  # not downloaded yet, or not a possible id, which the next call says better
    try:
        return Path(snapshot_download(ref, allow_patterns=WANTED, cache_dir=cache, endpoint=hub))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as problem:
        reason = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
        raise ModelError(
            f"{ref}: neither a folder here nor in the local Hugging Face cache, and the hub did not give it "
            f"({reason.rstrip('.')}); check the name and the network, or give a folder"
        ) from None
