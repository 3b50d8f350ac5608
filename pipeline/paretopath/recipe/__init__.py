"""The recipe's schema, loading, and errors that name the line."""

from paretopath.errors import RecipeError
from paretopath.recipe.budget import parse_budget
from paretopath.recipe.data import Data
from paretopath.recipe.launch import Launch
from paretopath.recipe.recipe import Recipe, load_recipe, load_resolved
from paretopath.recipe.search import Racing, Search
from paretopath.recipe.sections import Accuracy, Hardware, Space, Tracking
from paretopath.recipe.tasks import TaskSection
from paretopath.recipe.training import RetrainSettings, TrainSettings

__all__ = [
    "Accuracy",
    "Data",
    "Hardware",
    "Launch",
    "Racing",
    "Recipe",
    "RecipeError",
    "RetrainSettings",
    "Search",
    "Space",
    "TaskSection",
    "Tracking",
    "TrainSettings",
    "load_recipe",
    "load_resolved",
    "parse_budget",
]
