"""What must stay of a datastore root: by what its runs wrote, by the policies of the collections, and by the words of
docs/gc.md alone."""

import copy
import re
from fnmatch import fnmatchcase

HOUR = 3600.0
DAY = 24 * HOUR
SILENT = HOUR
"""For at least so long an attempt that shows no sign of life is taken to be running."""


class RootModel:
    """The runs that there are, and what became of them.

    ``going`` are those that a collection rightly began to remove: nothing is promised of them any more.
    """

    def __init__(self, root):
        self.root = root
        self.runs = {}
        self.going = set()
        self.holds = {}
        """Until when each held run is; None: until it is released."""
        self.condemned = {}
        """When the first of the collections began that dropped a run, each of which did since."""
        self.deployed = set()
        """Paths of code packages and IncludeFiles of runs that were the newest of their kind when they went: what is
        deployed there needs them."""

    # ---- what a policy keeps ------------------------------------------------------------

    def began(self, run):
        files = self._files(run)
        of_tasks = [
            moment for path, moment in files.items() if path.startswith(f"{run.name}/") and "/_meta/" not in path
        ]
        earliest = min(of_tasks or files.values(), default=self.root.now)
        if re.fullmatch(r"1\d{15}", run.run):
            return min(int(run.run) / 1e6, earliest)
        # By its first attempt. One that goes on while it is removed, or after that, has lost it.
        steps = ("_parameters", *run.steps)
        attempts = [(steps.index(path.split("/")[2]), path) for path in run.told.keys() & files.keys()]
        return min(run.told[min(attempts)[1]], earliest) if attempts else earliest

    def _files(self, run):
        return {
            path: moment for path, moment in run.files.items() if run.name not in self.going or self.root.there(path)
        }

    def outcome(self, run):
        """How a run ended, by its last task."""
        last = f"{run.name}/{run.steps[-1]}/{len(run.steps)}/0.attempt.json"
        if run.name in self.going and not self.root.there(last):
            return "unfinished"
        return "unfinished" if run.ended_well is None else "successful" if run.ended_well else "failed"

    def recorded(self, run):
        """Whether there is local metadata of it: a run that goes on while it is removed writes no other."""
        return run.record in self._files(run)

    def held(self, name):
        return name in self.holds and (self.holds[name] is None or self.root.now < self.holds[name])

    def expires(self, run):
        days = [int(tag[4:-1]) for tag in run.tags if tag.startswith("ttl:")] if self.recorded(run) else []
        return self.began(run) + max(days) * DAY if days else None

    def kept(self, policy):
        """Why each of the runs stays that have to now."""
        now, kept = self.root.now, {}
        present = [run for run in self.runs.values() if self._files(run)]
        began = {run.name: self.began(run) for run in present}
        over = {run.name for run in present if (end := self.expires(run)) is not None and end <= now}
        judged = [run for run in present if not policy.flows or run.flow in policy.flows]
        for flow in {run.flow for run in judged}:
            group = [run for run in judged if run.flow == flow and run.name not in over]
            group.sort(key=lambda run: (began[run.name], run.run), reverse=True)
            good = [number for number, run in enumerate(group) if self.outcome(run) == "successful"]
            if policy.last:
                down_to = max([policy.last, *(number + 1 for number in good[: policy.last])])
                kept.update((run.name, "last") for run in group[:down_to])
            kept.update((group[number].name, "last successful") for number in good[: policy.last_successful or 0])
            scheduled = [group[number].name for number in good if "-" in group[number].run]
            if policy.deployed and scheduled:
                kept[scheduled[0]] = "deployed"
        for run in present:
            if why := self._wanted(run, policy, began[run.name], run in judged):
                kept[run.name] = why
        waiting = [self.runs[name] for name in kept]
        while waiting:
            origin = waiting.pop().shown
            origin = None if origin is None else self.runs.get(origin.name)
            if origin is not None and origin.name not in kept and self._shows(origin):
                kept[origin.name] = "its cards are shown"
                waiting.append(origin)
        return kept

    def dropped(self, policy):
        """The runs that may go."""
        return self.runs.keys() - self.kept(policy).keys()

    def _wanted(self, run, policy, began, judged):
        """What else keeps a run."""
        now, end = self.root.now, self.expires(run)
        if not judged:
            return "of another flow"
        if self.held(run.name):
            return "held"
        if any(fnmatchcase(run.name, pattern) for pattern in policy.pinned):
            return "pinned"
        if run.running and now - run.last_sign <= SILENT:
            return "running"
        if policy.tags and (not self.recorded(run) or run.tags & {*policy.tags}):
            return "tagged"
        if now - max(self._files(run).values()) < policy.grace:
            return "touched"
        if end is not None:
            return "ttl" if end > now else ""
        return "young" if policy.age is not None and now - began <= policy.age else ""

    def _shows(self, origin):
        return any(path.startswith("mf.cards/") for path in self._files(origin))

    def newest_of_kinds(self):
        """Of each flow, the newest run that was started from a terminal, and by a scheduler."""
        newest = {}
        for run in self.runs.values():
            if self._files(run):
                kind, age = (run.flow, "-" in run.run), (self.began(run), run.run)
                newest[kind] = max(newest.get(kind, (age, run.name)), (age, run.name))
        return {name for _, name in newest.values()}


class RootThen(RootModel):
    """The runs as an inventory of this moment has them. They are judged by what time it is, and by what holds them, when
    it is read."""

    def __init__(self, model):
        super().__init__(model.root)
        self.holds = model.holds
        self._model = model
        for name, run in model.runs.items():
            then = self.runs[name] = copy.copy(run)
            then.files, then.attempt = dict(model._files(run)), copy.copy(run.attempt)

    def dropped(self, policy):
        # Tags are read now. What is read of runs that lost files since then is not known: as if they were there, or not.
        for name in self.runs.keys() & self._model.runs.keys():
            self.runs[name].tags = self._model.runs[name].tags
        found = super().dropped(policy)
        runs, there = self.runs, self.root.times()
        self.runs = {name: run for name, run in runs.items() if run.files.keys() <= there.keys()}
        if len(self.runs) < len(runs):
            found |= super().dropped(policy)
        self.runs = runs
        return found

    def changed(self):
        """Runs that were written to since, and those whose cards a newer one shows."""
        runs = self._model.runs.values()
        written = {
            run.name
            for run in runs if run.name in self.runs and any(
                abs(self.runs[run.name].files.get(path, 0.0) - moment) >= 2.0 for path, moment in run.files.items()
            )
        }  # fmt: skip
        shown, waiting = set(), [run for run in runs if run.name not in self.runs]
        while waiting:
            origin = waiting.pop().shown
            origin = None if origin is None else self._model.runs.get(origin.name)
            if origin is not None and origin.name not in shown and self._shows(origin):
                shown.add(origin.name)
                waiting.append(origin)
        return written | shown
