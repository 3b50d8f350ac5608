from .browsing import track_outcome as track_outcome, track_sensitivity as track_sensitivity
from .drafting import Draft as Draft, draft as draft, write_recipe as write_recipe
from .evaluation import (
    Rescored as Rescored,
    evaluate_run as evaluate_run,
    load_separate as load_separate,
    measure_run as measure_run,
    rescore as rescore,
)
from .exits import exits_run as exits_run
from .first_paths import sensitivity_run as sensitivity_run
from .planning import (
    SearchPlan as SearchPlan,
    WeightsPlan as WeightsPlan,
    plan_search as plan_search,
)
from .retraining.cluster import launch_retraining as launch_retraining
from .retraining.job import (
    collect as collect,
    retrain as retrain,
    retrain_tracked as retrain_tracked,
)
from .retraining.plan import (
    PathResult as PathResult,
    RetrainJob as RetrainJob,
    plan_retraining as plan_retraining,
)
from .retraining.status import (
    RetrainStatus as RetrainStatus,
    collect_finished as collect_finished,
    statuses as statuses,
)
from .searching import (
    make_front as make_front,
    save_report as save_report,
    search_run as search_run,
)
from .starting import started as started
from .weights import prepare_weights as prepare_weights
from .worker import work_on as work_on
