"""The recipe's schema, loading, and errors that name the line."""

from pipeline.errors import RecipeError
from pipeline.recipe.budget import BudgetUnit, parse_budget
from pipeline.recipe.data import Data
from pipeline.recipe.launch import Launch
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.recipe.sections import (
    Accuracy,
    Hardware,
    RetrainSettings,
    Search,
    Space,
    Tracking,
    TrainSettings,
)
from pipeline.recipe.tasks import TaskSection

__all__ = [
    "Accuracy",
    "BudgetUnit",
    "Data",
    "Hardware",
    "Launch",
    "Recipe",
    "RecipeError",
    "RetrainSettings",
    "Search",
    "Space",
    "TaskSection",
    "Tracking",
    "TrainSettings",
    "load_recipe",
    "parse_budget",
]
