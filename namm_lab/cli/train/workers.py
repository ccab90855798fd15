"""Who evaluates candidates, as `--workers` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from namm_lab.cli.train.source import model_settings
from namm_llm import UsageError

if TYPE_CHECKING:
    from namm_lab.train.workers import Workers
    from namm_llm.models.loading import LoadedModel


def workers_of(given: dict[str, Any], loaded: LoadedModel) -> Workers:
    """This process, others, or a cluster's."""
    import torch

    from namm_lab.train.ray_workers import RayWorkers
    from namm_lab.train.workers import LocalWorker, ModelSource, ProcessWorkers

    wanted = given.get("workers", "")
    if not wanted:
        return LocalWorker(loaded.model)
    folder = str(loaded.folder.resolve()) if loaded.folder else loaded.model_id
    if wanted == "ray":
        return RayWorkers(ModelSource(folder, model_settings(given)))
    if not wanted.isdigit() or not int(wanted):
        raise UsageError(f"workers must be ray or a number of processes, not {wanted!r}")
    threads = max(1, torch.get_num_threads() // int(wanted))
    return ProcessWorkers(ModelSource(folder, model_settings(given), threads), int(wanted))
