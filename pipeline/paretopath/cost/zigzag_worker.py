"""Runs ZigZag in a process of its own: it prints and logs, which must not reach the caller.

``python -m paretopath.cost.zigzag_worker JOB`` maps the layers that the file JOB lists.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from paretopath.files import write_atomically

FACTOR_LIMIT = 6  # ZigZag's defaults, as in its get_hardware_performance_zigzag
SPATIAL_MAPPINGS = 3


def main(arguments: Sequence[str]) -> int:
    """Maps every layer of a job file.

    A job is a JSON object: ``accelerator`` and ``mapping`` (in ZigZag's formats) and ``entries``,
    each with the ``workload`` of one layer and the ``file`` for its result. Files that exist are
    left as they are.

    Returns:
        The exit status; a layer that ZigZag can't map leaves ``{"error": …}``.
    """
    job = json.loads(Path(arguments[0]).read_text())
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        accelerator, mapping = Path(folder, "accelerator.yaml"), Path(folder, "mapping.yaml")
        accelerator.write_text(yaml.safe_dump(job["accelerator"], sort_keys=False))
        mapping.write_text(yaml.safe_dump(job["mapping"], sort_keys=False))
        os.chdir(folder)
        for entry in job["entries"]:
            if Path(entry["file"]).exists():
                continue
            try:
                result: Mapping[str, Any] = map_layer(
                    str(accelerator), str(mapping), entry["workload"]
                )
            except (
                Exception
            ) as error:  # whatever ZigZag raises: the caller tells the user which layer
                result = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            write_atomically(entry["file"], json.dumps(result))
    return 0


def map_layer(accelerator: str, mapping: str, workload: Mapping[str, Any]) -> dict[str, Any]:
    """What ZigZag finds for one layer.

    Args:
        accelerator, mapping: ZigZag's YAML files.
        workload: one entry of ZigZag's workload format.

    Returns:
        For each objective (energy, latency, edp) the best mapping's ``energy_pj``, ``cycles`` and
        ``dram_bytes``.
    """
    from zigzag.mapping.temporal_mapping import TemporalMappingType
    from zigzag.stages.evaluation.cost_model_evaluation import CostModelStage
    from zigzag.stages.mapping.spatial_mapping_generation import SpatialMappingGeneratorStage
    from zigzag.stages.mapping.temporal_mapping_generator_stage import TemporalMappingGeneratorStage
    from zigzag.stages.parser.accelerator_parser import AcceleratorParserStage
    from zigzag.stages.parser.workload_parser import WorkloadParserStage
    from zigzag.stages.workload_iterator import WorkloadStage

    # ZigZag's own pipeline, less the stages that plot and save; one pass serves every objective.
    stages = [
        AcceleratorParserStage,
        WorkloadStage,
        SpatialMappingGeneratorStage,
        TemporalMappingGeneratorStage,
        CostModelStage,
    ]
    first = WorkloadParserStage(
        stages,
        workload=[dict(workload)],
        mapping=mapping,
        accelerator=accelerator,
        loma_lpf_limit=FACTOR_LIMIT,
        loma_show_progress_bar=False,
        nb_mappings_generated=SPATIAL_MAPPINGS,
        enable_mix_spatial_mapping_generation=False,
        access_same_data_considered_as_no_access=True,
        temporal_mapping_type=TemporalMappingType.UNEVEN,
    )
    best: dict[str, tuple[tuple[float, float], dict[str, float]]] = {}
    for evaluation, _ in first.run():
        energy, cycles = float(evaluation.energy_total), float(evaluation.latency_total2)
        keys = {
            "energy": (energy, cycles),
            "latency": (cycles, energy),
            "edp": (energy * cycles, energy),
        }
        for objective, key in keys.items():
            if objective not in best or key < best[objective][0]:
                found = {
                    "energy_pj": energy,
                    "cycles": cycles,
                    "dram_bytes": _outermost_bytes(evaluation),
                }
                best[objective] = (key, found)
    return {objective: found for objective, (_, found) in best.items()}


def _outermost_bytes(evaluation: Any) -> float:
    total = 0.0
    for layer_operand, accesses in evaluation.memory_word_access.items():
        operand = evaluation.memory_operand_links.layer_to_mem_op(layer_operand)
        level = len(accesses) - 1
        memory = evaluation.accelerator.get_memory_level(operand, level)
        for direction, words in accesses[level].data.items():
            if words:
                total += words * memory.get_max_bandwidth(operand, direction) / 8
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
