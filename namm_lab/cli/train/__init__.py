"""`namm-llm train`: a NAMM for a model, or a model for its NAMM; one file for each command."""

import click

from namm_lab.cli.train.adapt import adapt
from namm_lab.cli.train.calibrate import calibrate
from namm_lab.cli.train.distil import distil
from namm_lab.cli.train.evolve import evolve


@click.group()
def train() -> None:
    """Make a NAMM for a model, or adapt a model to eviction.

    distil learns a NAMM from what the full cache uses (minutes), evolve improves one by trial
    (hours), calibrate fits one that another model has to this one (seconds). adapt trains the
    model's weights (LoRA) while its cache evicts (hours).
    """


train.add_command(adapt)
train.add_command(distil)
train.add_command(evolve)
train.add_command(calibrate)
