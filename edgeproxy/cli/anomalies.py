"""Commands about anomalies of usage: `anomalies replay`."""

from pathlib import Path
from typing import Annotated

import typer

from edgeproxy.cli.outcome import fail


def anomalies_replay(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="An access log, or rows of hour,customer,meter,value; else made-up usage."
        ),
    ] = None,
    weeks: Annotated[int, typer.Option(min=4, max=104, help="Weeks of each history that is made up or drawn.")] = 16,
    customers: Annotated[int, typer.Option(min=1, max=1000, help="How many are made up or drawn.")] = 50,
    seed: Annotated[int, typer.Option(help="The seed of everything random.")] = 1,
    score: Annotated[float, typer.Option(min=1.0, help="As anomalies.score of collector.yaml.")] = 3.0,
    similarity: Annotated[float, typer.Option(min=0.0, max=1.0, help="As anomalies.similarity.")] = 0.9,
    plant: Annotated[bool, typer.Option(help="Plant changes that should be detected.")] = True,
) -> None:
    """Judge a history as the collector would have done, and count the planted changes that it detects."""
    from edgeproxy.collector.anomalies import history
    from edgeproxy.collector.anomalies.replay import format_result, replay_histories
    from edgeproxy.config.collector.anomalies import Thresholds

    try:
        if file is None:
            histories = history.generate_histories(weeks, customers, seed)
        else:
            histories = history.read_history(file, weeks, customers, seed)
    except history.InvalidHistoryError as error:
        fail(str(error), 2)
    typer.echo(
        format_result(replay_histories(histories, Thresholds(score=score, similarity=similarity), seed, planting=plant))
    )
