"""`python -m namm_lab.film`: train the tiny LLaVA, ask it about held-out films, print the table."""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path

from PIL import Image

from namm_lab.film.evaluate import held_out, table
from namm_lab.film.train import Recipe, train


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m namm_lab.film", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="of the training")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--films", type=int, default=64, help="held-out films, 7 questions each")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.25, 0.125])
    parser.add_argument(
        "--namm", action="append", default=[], metavar="NAME=FILE", help="one more row, a NAMM's"
    )
    return parser.parse_args()


def write_sample(folder: Path) -> None:
    """The frames of one held-out film, to ask by hand, and its answers."""
    folder.mkdir(exist_ok=True)
    [sample] = held_out(1)
    for number, frame in enumerate(sample.frames):
        Image.fromarray(frame).save(folder / f"{number:03}.png")
    (folder / "answers.json").write_text(json.dumps(sample.answers) + "\n")


def main() -> None:
    given = parse_arguments()
    if not (given.out / "config.json").exists():
        train(given.out, Recipe(steps=given.steps, seed=given.seed))
    write_sample(given.out / "film")
    text_trained = Path(str(files("namm_llm") / "models" / "namm-tiny" / "namm.safetensors"))
    namms = [("namm of text, zero-shot", text_trained)]
    for each in given.namm:
        name, _, path = each.partition("=")
        namms.append((name, Path(path)))
    columns = ("policy", "budget", "right answers", "95 %", "slope", "scenes held")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    with (given.out / "films.jsonl").open("w") as rows:
        for row in table(given.out, count=given.films, budgets=given.budgets, namms=namms):
            found = row.to_dict()
            rows.write(json.dumps(found) + "\n")
            print(
                f"| {row.policy} | {row.budget or ''} | {found['accuracy']:.3f} | "
                f"{found['low']:.3f} to {found['high']:.3f} | {row.slope:.2f} | {row.scenes:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
