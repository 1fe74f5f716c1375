"""`clipmsa import`, `clipmsa export`: stores and the files of other programs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.console import tell_oddities
from clipmsa.terminal import note

if TYPE_CHECKING:
    from clipmsa.cache import FeatureStore
    from clipmsa.cache.exchange.imported import Imported


class Source(StrEnum):
    """What can be imported."""

    mmsa = "mmsa"
    csd = "csd"


class Target(StrEnum):
    """What can be exported."""

    mmsa = "mmsa"
    parquet = "parquet"


def import_(
    file: Annotated[Path, typer.Argument(help="A pickle of MMSA's, or CMU's csd of labels.")],
    store: Annotated[Path, typer.Argument(help="The feature store to write.")],
    source: Annotated[Source, typer.Option("--from", help="What the file is.")],
    text: Annotated[Path | None, typer.Option(help="A csd of text features.")] = None,
    audio: Annotated[Path | None, typer.Option(help="A csd of audio features.")] = None,
    vision: Annotated[Path | None, typer.Option(help="A csd of vision features.")] = None,
    words: Annotated[Path | None, typer.Option(help="The csd of time-stamped words.")] = None,
    folds: Annotated[
        Path | None, typer.Option(help="For csd: JSON lists of videos, as for extract.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the store.")] = False,
) -> None:
    """Make a feature store of features that another program made, for `train` to train on.

    From MMSA and MMSA-FET: pickles, aligned or not, read without running what is in them. From
    CMU: computational sequences, cut by the intervals of CMU_MOSEI_Labels.csd or MOSI's.

    Example: clipmsa import --from mmsa unaligned_50.pkl cache/mosi-mmsa.h5
    """
    from clipmsa.cache import FeatureStore
    from clipmsa.cache.errors import ExchangeError
    from clipmsa.cache.files import not_over

    if store.exists() and not overwrite:
        raise ExchangeError(f"{store}: is there already; use another name, or --overwrite")
    not_over(store, file, text, audio, vision, words, folds)
    given = {"text": text, "audio": audio, "vision": vision}
    sequences = {name: path for name, path in given.items() if path is not None}
    if source is Source.csd:
        imported = _import_csd(file, store, sequences, words, folds)
    elif sequences or words or folds:
        raise typer.BadParameter("--text, --audio, --vision, --words and --folds are for csd files")
    else:
        from clipmsa.cache.exchange.mmsa_pickle import import_mmsa

        imported = import_mmsa(file, store)
    for line in imported.notes:
        note("{}", line)
    made = FeatureStore(store)
    if source is Source.mmsa:  # of csd files it has been said
        tell_oddities(made)
    widths = ", ".join(f"{name} {stream.spec.dim}" for name, stream in made.streams.items())
    note("{}: {} utterances ({}); {}", store, len(made), made.counts_by_split, widths)


def _import_csd(
    labels: Path,
    store: Path,
    sequences: dict[str, Path],
    words: Path | None,
    folds: Path | None,
) -> Imported:
    from clipmsa.cache.exchange.csd import import_csd
    from clipmsa.extract.datasets.cmu import read_csd
    from clipmsa.extract.datasets.folds import split

    from .extract import tell_of

    if not sequences:
        raise typer.BadParameter("say which csd is of which modality: --text, --audio, --vision")
    manifest = split(read_csd(labels), folds)
    tell_of(manifest)
    utterances = [clip.utterance for clip in manifest.clips]
    return import_csd(store, manifest.dataset, utterances, sequences, words)


def export(
    store: Annotated[Path, typer.Argument(help="The feature store.")],
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    to: Annotated[Target, typer.Option("--to", help="What to write.")],
    text: Annotated[str | None, typer.Option(help="MMSA's text: a stream by name.")] = None,
    audio: Annotated[str | None, typer.Option(help="MMSA's audio: a stream by name.")] = None,
    vision: Annotated[str | None, typer.Option(help="MMSA's vision: a stream by name.")] = None,
    text_rows: Annotated[
        int | None, typer.Option(min=1, help="Pad or cut to so many.", show_default="the longest")
    ] = None,
    audio_rows: Annotated[
        int | None, typer.Option(min=1, help="Pad or cut to so many.", show_default="the longest")
    ] = None,
    vision_rows: Annotated[
        int | None, typer.Option(min=1, help="Pad or cut to so many.", show_default="the longest")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="A BERT tokenizer's name or folder: adds text_bert to MMSA's file."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=2, help="At most so many, of text_bert.")] = 50,
) -> None:
    """Write a store's features for another program.

    To MMSA: a pickle that its models train on unchanged; by default of the own branch's streams.
    Models that train BERT themselves (MISA, Self-MM) need --tokenizer bert-base-uncased. To
    Parquet: the table, and a column of vectors for each stream, for pandas and others.

    Example: clipmsa export cache/mosi.h5 --to mmsa mosi.pkl
    """
    from clipmsa.cache import FeatureStore
    from clipmsa.cache.files import not_over

    not_over(file, store)
    opened = FeatureStore(store)
    names = {"text": text, "audio": audio, "vision": vision}
    rows = {"text": text_rows, "audio": audio_rows, "vision": vision_rows}
    if to is Target.mmsa:
        chosen = {modality: name for modality, name in names.items() if name}
        _export_mmsa(
            opened, file, chosen, {m: n for m, n in rows.items() if n}, tokenizer, max_tokens
        )
    elif tokenizer or any(names.values()) or any(rows.values()):
        raise typer.BadParameter("--text, --audio, --vision, their rows and --tokenizer are MMSA's")
    else:
        from clipmsa.cache.exchange.parquet import write_parquet

        write_parquet(opened, file)
        note("{}: {} utterances, {}", file, len(opened), ", ".join(opened.streams))


def _export_mmsa(
    store: FeatureStore,
    file: Path,
    chosen: dict[str, str],
    rows: dict[str, int],
    tokenizer: str | None,
    max_tokens: int,
) -> None:
    from clipmsa.cache.errors import ExchangeError
    from clipmsa.cache.exchange.mmsa_pickle import bert_tokens, export_mmsa, streams_for_mmsa

    streams = streams_for_mmsa(store, chosen)
    tokenize = None
    if tokenizer is not None:
        from transformers import AutoTokenizer

        from clipmsa.extract.encoders.transformers_models import reason_of

        try:
            loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
            tokenize = bert_tokens(loaded, max_tokens)
        except (OSError, ValueError) as error:
            raise ExchangeError(
                f"--tokenizer {tokenizer}: cannot be loaded ({reason_of(error)})"
            ) from None
    for line in export_mmsa(store, file, streams, rows, tokenize):
        note("{}", line)
    note(
        "{}: {}{}",
        file,
        ", ".join(f"{modality} = {stream.spec.name}" for modality, stream in streams.items()),
        ", text_bert" if tokenize else "; without text_bert, which MISA and Self-MM need",
    )
