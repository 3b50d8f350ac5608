from .directory import (
    RunDirectory as RunDirectory,
    default_directory as default_directory,
    move_aside as move_aside,
)
from .parts import (
    Parts as Parts,
    accuracy_source as accuracy_source,
    assemble as assemble,
    budgets_of as budgets_of,
    build_scoring as build_scoring,
    build_searched as build_searched,
    build_space as build_space,
    build_table as build_table,
    keep_table as keep_table,
    load_model as load_model,
    open_images as open_images,
    read_path as read_path,
)
from .run import Run as Run
from .scoring import Scoring as Scoring
from .trials import trial_record as trial_record
