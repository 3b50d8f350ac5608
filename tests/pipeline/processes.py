"""Processes to kill: forked from a server that has imported everything, which takes seconds."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.conftest",
        "tests.pipeline.search.shared_search",
        "paretopath.cli.app",
        "paretopath.cli.progressing",
        "paretopath.cli.tables.front",
        "search_spaces.vit",
    ]
)
