"""`namm-llm train distil | evolve | calibrate`: a NAMM for a model, one file for each command."""

import click

from namm_lab.cli.train.calibrate import calibrate
from namm_lab.cli.train.distil import distil
from namm_lab.cli.train.evolve import evolve


@click.group()
def train() -> None:
    """Make a NAMM for a model.

    distil learns one from what the full cache uses (minutes), evolve improves one by trial (hours),
    calibrate fits one that another model has to this one (seconds).
    """


train.add_command(distil)
train.add_command(evolve)
train.add_command(calibrate)
