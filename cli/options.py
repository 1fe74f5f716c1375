"""Options that several verbs have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Features = Annotated[Path, typer.Option(help="The feature store.")]
RunOrModel = Annotated[Path, typer.Argument(help="A run's folder, or one model-SEED.pt of it.")]
Videos = Annotated[
    list[str], typer.Argument(metavar="VIDEO...", help="Files, folders or patterns.")
]
Folds = Annotated[
    Path | None,
    typer.Option(help="JSON lists of videos: train, valid, test.", show_default="the dataset's"),
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="How the dataset's folder is laid out: mmsa, cmu-mosi, cmu-mosei, or "
        "package.module:Class.",
        show_default="found by a look",
    ),
]
# As the shipped profiles and networks are called; a test holds these texts to it, since asking them
# would load torch.
Profile = Annotated[str, typer.Option(help="audioclip, paper, tiny, or a TOML file.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="In place of a variant: tfn, lmf, mult, misa, mfn, mfm, mag, self-mm, mmim, tpmsa, "
        "hycon, wscl-cl, or your own as package.module:Class.",
        metavar="NAME",
    ),
]
Seeds = Annotated[str, typer.Option(help="One training each, separated by commas.")]
SEEDS = "1111,1112,1113"
Config = Annotated[Path | None, typer.Option(help="A TOML file with tables model and training.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; repeatable.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Trainers = Annotated[
    int | None, typer.Option(min=1, help="Seeds trained side by side.", show_default="one a core")
]
Replace = Annotated[
    bool, typer.Option("--overwrite", help="Replace the folder's runs of other settings or data.")
]
Checkpoints = Annotated[str, typer.Option(help="pretrained, or a folder of the checkpoints.")]
Transcribe = Annotated[
    bool, typer.Option("--transcribe", help="Hear what is said (English, wav2vec 2.0).")
]
MaxSeconds = Annotated[
    float, typer.Option(min=1, help="Longest utterance where pauses cut a video.")
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE",
        help="Code of your own that the files may name, as package.module; repeatable.",
    ),
]


def parse_seeds(text: str) -> list[int]:
    """`1111,1112` as numbers."""
    from clipmsa.cache.errors import ConfigError
    from clipmsa.fusion.training.config import check_seeds

    try:
        numbers = [int(seed) for seed in text.split(",")]
        check_seeds(numbers)
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--seeds") from None
    except ValueError:
        raise typer.BadParameter(
            f"'{text[:60]}' must be whole numbers separated by commas", param_hint="--seeds"
        ) from None
    return numbers
