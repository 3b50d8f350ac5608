"""Do policies that are chosen for a loss keep to it on other images? Over random splits.

    python benchmarks/exit_promises.py OUTPUTS [--max-loss 0.5] [--splits 20] [--seen 4000]

OUTPUTS holds what exits said of labelled images: a file that ``benchmarks/natural_exits.py`` left
in its cache (``outputs_mlp.npz``), or a run directory whose validation and test images are put
together. Each split chooses on some of them, and looks at the others. Beside the policies of
``paretopath exits`` stands the way of before: one threshold on the highest probability for all
exits, the lowest that keeps to the loss on the images that are seen; and a multi-exit study's rule,
by which a batch leaves whole, when its least sure image is sure, at the lowest threshold alike.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import save

from paretopath.deploy.loading import load_deployable
from paretopath.front.dynamic import Policy, within_loss
from paretopath.paths import ExecutionPath
from paretopath.policies.costs import ExitCosts
from paretopath.policies.outputs import ExitOutputs, gather_outputs
from paretopath.policies.points import PathPolicies, dynamic_points, split_result
from paretopath.policies.search import search_policies
from paretopath.run import Run, build_space, open_images

THRESHOLDS = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outputs", type=Path)
    parser.add_argument("--max-loss", type=float, default=0.5)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seen", type=int, default=4000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    everything = read_outputs(arguments.outputs)
    depth = np.array([float(name.rsplit(".", 1)[1]) for name in everything.exits])
    costs = ExitCosts({"macs": depth}, {"macs": np.full(len(depth), 0.01)})  # in blocks
    bound, seen_images = arguments.max_loss / 100, arguments.seen
    rows: dict[str, list[dict[str, Any]]] = {"before": [], "promised": []}
    for seed in range(arguments.splits):
        order = np.random.default_rng(seed).permutation(len(everything))
        seen, unseen = everything[order[:seen_images]], everything[order[seen_images:]]
        for name, choose in (("before", before), ("promised", promised)):
            policy = choose(seen, costs, bound)
            held_out = split_result(policy, unseen, unseen.right[-1], costs, "macs")
            rows[name].append(
                {
                    "loss": held_out.loss,
                    "loss_error": held_out.loss_error,
                    "exceeds": held_out.loss - held_out.loss_error > bound,
                    "gain": (depth[-1] + 0.01) / held_out.cost,
                }
            )
    summary = {}
    for name, found in rows.items():
        exceeding = sum(row["exceeds"] for row in found)
        loss = float(np.mean([row["loss"] for row in found]))
        gain = float(np.mean([row["gain"] for row in found]))
        summary[name] = {"exceeding": exceeding, "mean_loss": loss, "mean_gain_in_blocks": gain}
        print(
            f"{name:>9}: {exceeding} of {len(found)} exceed {arguments.max_loss} points by more "
            f"than a standard error; mean loss {100 * loss:.2f}, mean gain in blocks {gain:.2f}x"
        )
    rule = whole_batches(everything, depth, bound, seen_images)
    print("batches that leave whole, by images a batch:")
    for row in rule:
        print(
            f"{row['batch']:>9}: {row['gain']:.2f}x, lost {100 * row['loss']:.2f}; of a threshold "
            f"of 0.9, {100 * row['leave_at_0.9']:.2g} % leave by the exit before the last"
        )
    save(
        f"exit_promises_{arguments.outputs.stem}",
        {
            "outputs": arguments.outputs.name,
            "images": len(everything),
            "seen": seen_images,
            "max_loss": bound,
            "summary": summary,
            "whole_batches": rule,
            "splits": rows,
        },
    )


def read_outputs(source: Path) -> ExitOutputs:
    """The outputs of all exits, of a file or of a run's full path."""
    if source.is_dir():
        found = load_deployable(source, device="cpu")
        model = next(iter(found.models.values()))
        recipe = Run.open(source, device="cpu").recipe
        data = open_images(recipe, build_space(recipe))
        batches = [*data.loader("validation"), *data.loader("test")]
        return gather_outputs(model, model.space.full, batches, found.task)
    kept = np.load(source)
    logits, targets = torch.from_numpy(kept["logits"]), torch.from_numpy(kept["targets"])
    right = (logits.argmax(-1) == targets).numpy()
    return ExitOutputs(tuple(kept["exits"].tolist()), logits, targets, right)


def before(seen: ExitOutputs, costs: ExitCosts, bound: float) -> Policy:
    """The lowest of some thresholds that loses no more on the images that are seen."""
    early = len(seen.exits) - 1
    for threshold in THRESHOLDS:
        policy = Policy("maximum", seen.exits, (threshold,) * early, (1.0,) * early)
        if split_result(policy, seen, seen.right[-1], costs, "macs").loss <= bound:
            return policy
    return Policy("maximum", seen.exits[-1:], (), ())


def whole_batches(
    everything: ExitOutputs, depth: np.ndarray, bound: float, seen: int
) -> list[dict[str, float]]:
    """What the study's rule gives: chosen on the images that are seen, looked at on the others."""
    order = np.random.default_rng(0).permutation(len(everything))
    sure = everything.logits.softmax(-1).amax(-1).numpy()
    rows = []
    for batch in (1, 4, 16, 32, 64):

        def run(images: np.ndarray, threshold: float, batch: int = batch) -> tuple[float, ...]:
            """Loss, mean depth, and the share of batches that leave early."""
            groups = images[: len(images) // batch * batch].reshape(-1, batch)
            whole = (sure[:, groups] >= threshold).all(axis=2)
            whole[-1] = True
            taken = whole.argmax(axis=0)
            right = everything.right[taken[:, None], groups].mean()
            loss = everything.right[-1, groups].mean() - right
            return float(loss), float(depth[taken].mean()), float((taken < len(depth) - 1).mean())

        grid = np.linspace(0.1, 1.0, 181)
        chosen = next(t for t in (*grid, 1.1) if run(order[:seen], t)[0] <= bound)
        loss, mean_depth, _ = run(order[seen:], chosen)
        leave = run(order[seen:], 0.9)[2]
        gain = float(depth[-1] / mean_depth)
        rows.append({"batch": batch, "gain": gain, "loss": loss, "leave_at_0.9": leave})
    return rows


def promised(seen: ExitOutputs, costs: ExitCosts, bound: float) -> Policy:
    """What ``paretopath exits --max-loss`` chooses."""
    tried = search_policies(seen, costs, seen.right[-1], cost="macs")
    path = ExecutionPath({})
    found = PathPolicies(path, "searched", seen, costs, tried)
    return within_loss(dynamic_points([found], found, cost="macs"), bound).policy


if __name__ == "__main__":
    main()
