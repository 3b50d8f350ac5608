"""Who evaluates what: trials claimed by workers, and given to another when a worker dies.

Everything rests on one thing that all storages do: they put new trials in an order. Beside the
study there is another one, its *claims*: each entry names the trials that a worker wants and, for
each, the entry that is thought to hold it. Whoever reads the entries in their order comes to the
same holders: an entry takes a trial if the entry that it names holds it at that point, else it
does not. So of two workers that want the same trial one gets it, and of two that find the same
worker dead one takes its trial over, without locks, on a journal as on a database.

A worker shows that it lives by a count that it raises at intervals. Others measure its silence in
their own counts, so neither clocks of different machines nor a pause of all of them (a laptop's
sleep, a suspended job) make a living worker seem dead.
"""

import os
import socket
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from paretopath.search.storage import StudyStorage

BEATS = 4  # in a lease
PROPOSING = -1  # the right to propose, claimed as a trial is
_OBSERVE_SECONDS = 1.0
_ENTRY = "claim"
_WORKER = "worker:"


@dataclass(frozen=True)
class WorkerInfo:
    """A worker, for others.

    Attributes:
        name: unlike that of any other worker of the study, those that are gone included.
        host: its machine.
        process: its process id there.
    """

    name: str
    host: str
    process: int

    @classmethod
    def here(cls, name: str) -> Self:
        """This process."""
        return cls(name, socket.gethostname(), os.getpid())


class Claims:
    """The claims of one study, and which of their workers live.

    Args:
        storage: of the study.
        lease_seconds: a worker that is silent for so long is dead.
    """

    def __init__(self, storage: StudyStorage, *, lease_seconds: float) -> None:
        self._storage = storage
        self._lease_seconds = lease_seconds
        name = _claims_of(storage)
        with storage.batch():
            self._study = optuna.create_study(
                study_name=name, storage=storage.optuna, load_if_exists=True
            )
        self._study_id = storage.optuna.get_study_id_from_name(name)
        self._entries: list[tuple[int, str]] = []  # trial id of an entry, its worker
        self._holders: dict[int, int] = {}  # trial number -> entry
        self.done: set[int] = set()  # trials that are known to be finished
        self.proposals = 0  # how often the right to propose was given back
        self._seen: dict[str, tuple[Any, int]] = {}  # worker -> its last sign, own count then
        self._left: set[str] = set()
        self._observed, self._observed_s = -1, 0.0  # own count and time at the last look
        self._heart: Heart | None = None

    def join(self, worker: WorkerInfo) -> "Heart":
        """Lets a worker live from now on, in a thread that ends with the returned context."""
        interval = self._lease_seconds / BEATS
        self._heart = Heart(self._storage.for_thread(), self._study_id, worker, interval)
        return self._heart

    @property
    def me(self) -> str:
        """The name of the worker that joined here."""
        assert self._heart is not None, "join first"
        return self._heart.worker.name

    def refresh(self) -> None:
        """Reads the entries of others."""
        entries = self._study.get_trials(deepcopy=False)
        for number, entry in enumerate(entries[len(self._entries) :], start=len(self._entries)):
            content = entry.user_attrs[_ENTRY]
            self.done.update(content["done"])
            self.proposals += content["free"]
            self._entries.append((entry._trial_id, content["worker"]))
            for trial, expected in content["trials"]:
                if self._holders.get(trial) != expected:
                    continue
                if content["free"]:
                    del self._holders[trial]
                else:
                    self._holders[trial] = number

    def observe(self) -> None:
        """Looks who lives, at most once a beat or second."""
        count = self._heart.count if self._heart else 0
        if self._observed == count and time.monotonic() - self._observed_s < _OBSERVE_SECONDS:
            return
        self._observed, self._observed_s = count, time.monotonic()
        for name, sign in _signs(self._storage.optuna, self._study_id).items():
            if name not in self._seen or self._seen[name][0] != sign:
                self._seen[name] = sign, count
            if sign["left"]:
                self._left.add(name)

    def lives(self, worker: str) -> bool:
        """Whether a worker has neither left nor been silent for a lease, as last observed."""
        if self._heart is not None and worker == self._heart.worker.name:
            return True
        if worker in self._left:
            return False
        count = self._heart.count if self._heart else 0
        return worker not in self._seen or count - self._seen[worker][1] <= BEATS

    @property
    def living(self) -> int:
        """How many workers live, this one included."""
        return sum(self.lives(worker) for worker in {*self._seen, self.me})

    def holder(self, trial: int) -> int | None:
        """The entry that holds a trial."""
        return self._holders.get(trial)

    def is_mine(self, trial: int) -> bool:
        """Whether this worker holds a trial."""
        entry = self._holders.get(trial)
        return entry is not None and self._entries[entry][1] == self.me

    def is_free(self, trial: int) -> bool:
        """Whether nobody who lives holds a trial."""
        entry = self._holders.get(trial)
        return entry is None or not self.lives(self._entries[entry][1])

    def claim(self, trials: Mapping[int, int | None]) -> list[int]:
        """Takes trials; those that it got.

        Args:
            trials: number -> the entry that holds it now, None if none does.
        """
        trial_id = self._append(trials)
        entry = next(
            number
            for number in range(len(self._entries) - 1, -1, -1)
            if self._entries[number][0] == trial_id
        )
        return [number for number in trials if self._holders.get(number) == entry]

    def release(self, trial: int) -> None:
        """Gives back the right to propose, or a trial that this worker holds."""
        self._append({trial: self._holders[trial]}, free=True)

    def finish(self, trials: Sequence[int]) -> None:
        """Tells others that trials have been recorded, so that they need not read them."""
        self._append({}, done=trials)

    def _append(
        self, trials: Mapping[int, int | None], *, free: bool = False, done: Sequence[int] = ()
    ) -> int:
        """Adds an entry; its trial id."""
        pairs = [[number, holder] for number, holder in trials.items()]
        content = {"worker": self.me, "trials": pairs, "free": free, "done": [*done]}
        template = create_trial(state=TrialState.FAIL, user_attrs={_ENTRY: content})
        trial_id = self._storage.optuna.create_new_trial(self._study_id, template_trial=template)
        self.refresh()
        return trial_id


class Heart:
    """Shows that a worker lives, from a thread of its own, until the context ends.

    Args:
        storage: for that thread.
        study_id: of the claims.
        worker: who lives.
        interval: seconds between beats.
    """

    def __init__(
        self, storage: StudyStorage, study_id: int, worker: WorkerInfo, interval: float
    ) -> None:
        self.worker = worker
        self.count = 0  # of beats since the start
        self._storage = storage
        self._study_id = study_id
        self._interval = interval
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._sign(left=False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self._sign(left=True)

    def _beat(self) -> None:
        while not self._ends.wait(self._interval):
            # A database that is away for a moment is met by the next beat; one that stays away is
            # an error of the worker's own, who uses it too. Drivers have many errors for it.
            try:
                self._sign(left=False)
                self.count += 1
            except Exception as error:
                warnings.warn(f"a heartbeat was not recorded: {error}", stacklevel=1)

    def _sign(self, *, left: bool) -> None:
        sign = {**asdict(self.worker), "count": self.count, "left": left}
        name = _WORKER + self.worker.name
        self._storage.optuna.set_study_user_attr(self._study_id, name, sign)


def is_shared(storage: StudyStorage) -> bool:
    """Whether workers have shared this study."""
    try:
        storage.optuna.get_study_id_from_name(_claims_of(storage))
    except KeyError:
        return False
    return True


def bury(storage: StudyStorage, worker: str) -> None:
    """Says that a worker's process has ended, by whoever knows; its trials go to others at once."""
    study_id = storage.optuna.get_study_id_from_name(_claims_of(storage))
    sign = _signs(storage.optuna, study_id).get(worker)
    if sign is not None and not sign["left"]:
        storage.optuna.set_study_user_attr(study_id, _WORKER + worker, {**sign, "left": True})


def _claims_of(storage: StudyStorage) -> str:
    return f"{storage.study}.claims"


def _signs(storage: BaseStorage, study_id: int) -> dict[str, Any]:
    """The last sign of each worker that ever joined, by name."""
    attrs = storage.get_study_user_attrs(study_id)
    return {
        key.removeprefix(_WORKER): value for key, value in attrs.items() if key.startswith(_WORKER)
    }
