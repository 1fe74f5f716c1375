"""What several verbs take, read in one place."""

from __future__ import annotations

from typing import Annotated

import typer

Layout = Annotated[
    str | None,
    typer.Option(
        help="How the dataset's folder is laid out: mmsa, cmu-mosi, cmu-mosei, or "
        "package.module:Class.",
        show_default="found by a look",
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
