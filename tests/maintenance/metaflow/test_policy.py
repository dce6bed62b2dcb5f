"""Which runs a policy keeps, against docs/gc.md read as slowly as it is written."""

import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfstore import errors
from mfstore.maintenance.metaflow.collecting import facts
from mfstore.maintenance.metaflow.collecting.decision import decide_runs, newest_of_deployments
from mfstore.maintenance.metaflow.collecting.facts import RunFacts
from mfstore.maintenance.metaflow.collecting.planned import policy_text
from mfstore.maintenance.metaflow.collecting.policy import RunPolicy
from mfstore.maintenance.metaflow.collecting.run_table import RunTable

HOUR, DAY = 3600.0, 86400.0
NOW = datetime(2026, 11, 30, 14, 30, tzinfo=UTC).timestamp()
STATES = ("successful", "failed", "unfinished", "unknown", "running")


def run(number, ago=0.0, state="successful", *, flow="Flow", tags=(), name="", **more):
    """A run that began so many days ago and was not touched since."""
    began = NOW - ago * DAY
    tags = None if tags is None else frozenset(tags)
    expires, unclear = (None, "") if tags is None else facts.expiry(tags, began)
    name = name or str(number)
    return RunFacts(
        flow, name, began, more.pop("touched", began), state == "running", tags, state=state,
        branch=facts.branch(flow, name, tags), deployment=facts.deployment(name, tags or ()), expires=expires,
        unclear=unclear, **{"user": facts.user(tags or ()), **more},
    )  # fmt: skip


def kept(runs, **policy):
    return {name for _, name in decide_runs(RunTable(runs), RunPolicy(**{"grace": 0.0, **policy}), NOW).kept}


def nights(states):
    """One run a night, the newest first: r0, r1, …"""
    return [run(f"r{n}", n + 1, state) for n, state in enumerate(states)]


F, S, U, O, R = "failed", "successful", "unfinished", "unknown", "running"  # noqa: E741


@pytest.mark.parametrize(
    ("states", "policy", "expected"),
    [
        ((F, S, S, S), {"last": 1}, "r0 r1"),  # the failed one pushes no good one out
        ((F, S, S, S), {"last": 3}, "r0 r1 r2 r3"),
        ((S, F, S, F, S), {"last": 2}, "r0 r1 r2"),
        ((S, F, S, F, S), {"last_successful": 2}, "r0 r2"),
        ((S, U, O, F, S), {"last": 2}, "r0 r1 r2"),  # of unknown end: not failed
        ((F, F, S, F, F), {"last": 3}, "r0 r1 r2"),  # fewer count than are wanted: down to the last that does
        ((F, F, U, F, F), {"last": 3}, "r0 r1 r2"),  # none does
        ((F, F, U, F, F), {"last_successful": 3}, ""),
        ((R, F, S, R, S), {"last": 1}, "r0 r1 r2 r3"),  # what is running stays, and does not count
        ((R, F, S, R, S), {"last_successful": 1}, "r0 r2 r3"),
        ((S, S, S), {"last": 0}, ""),
    ],
)  # fmt: skip
def test_runs_that_did_not_end_well_do_not_count(states, policy, expected):
    assert kept(nights(states), **policy) == {*expected.split()}


def test_each_branch_has_its_own_last_runs():
    def of(branch):
        return ("project:p", f"project_branch:{branch}") if branch else ()

    runs = [run(f"{branch}{n}", n, tags=of(branch)) for branch in ("prod", "test.x", "user.ann", "") for n in range(3)]
    assert kept(runs, last=1) == {"prod0", "test.x0", "user.ann0", "0"}
    assert kept(runs, last=2, group_by=("flow",)) == {"test.x0", "user.ann0"}  # of one moment; the names decide
    people = [run(f"{who}{n}", n, tags=(f"user:{who}",)) for who in ("ann", "bo") for n in range(3)]
    assert kept(people, last=1, group_by=("user",)) == {"ann0", "bo0"}
    places = [run("", n, name=f"{where}{n}") for where in ("argo-a-", "sfn-", "17") for n in range(3)]
    assert kept(places, last=1, group_by=("flow", "origin"), deployed=False) == {"argo-a-0", "sfn-0", "170"}


def test_what_deployments_last_ran_well_stays():
    def deployed(name, ago, state="successful", tags=()):
        return run("", ago, state, name=name, tags=tags)

    runs = [
        deployed("argo-p.prod.flow-a", 200), deployed("argo-p.prod.flow-b", 100), deployed("argo-p.prod.flow-c", 90, F),
        deployed("argo-p.test.x.flow-d", 300), deployed("sfn-1", 400, tags=("production:token-1",)),
        deployed("sfn-2", 500, tags=("production:token-2",)), deployed("sfn-3", 450, tags=("production:token-1",)),
        deployed("17", 100),
    ]  # fmt: skip
    stay = {"argo-p.prod.flow-b", "argo-p.test.x.flow-d", "sfn-1", "sfn-2"}
    assert kept(runs, age=DAY) == stay
    assert {name for _, name in newest_of_deployments(runs, NOW)} == stay
    assert kept(runs, age=DAY, deployed=False) == set()
    assert kept([run("", 5, name="argo-f-a", tags=("ttl:1d",))], age=DAY) == set()


def test_the_branch_is_told_by_tags_or_by_what_argo_calls_the_deployment():
    assert facts.branch("My_Flow", "argo-p.prod.myflow-x1", None) == "prod"
    assert facts.branch("My_Flow", "argo-p.test.new.myflow-x1", None) == "test.new"
    assert facts.branch("My_Flow", "argo-p.test.new.other-x1", None) == ""
    assert facts.branch("My_Flow", "argo-myflow-x1", None) == ""
    assert facts.branch("My_Flow", "argo-p.prod.myflow-x1", frozenset()) == ""
    assert facts.branch("My_Flow", "17", frozenset(("project_branch:user.ann",))) == "user.ann"
    assert [facts.deployment(name, ()) for name in ("argo-a-b-x1", "argo-", "sfn-1", "17")] == ["a-b", "", "", ""]


def test_a_run_says_how_long_it_stays():
    runs = [
        run("over", 31, tags=("ttl:30d",)), run("not over", 29, tags=("ttl:30d",)),
        run("longest", 31, tags=("ttl:30d", "ttl:32d")), run("unclear", 31, tags=("ttl:30d", "ttl:soon")),
        run("young and over", 1, tags=("ttl:1h",)), run("none", 31), run("running", 31, R, tags=("ttl:30d",)),
        run("pinned", 31, tags=("ttl:30d",)), run("release", 31, tags=("ttl:30d", "good")),
        run("held", 31, tags=("ttl:30d",), held="held by ann"), run("bare", 31, tags=("ttl:30",)),
    ]  # fmt: skip
    always = {"not over", "longest", "unclear", "running", "pinned", "release", "held", "bare"}
    policy = {"pinned": ("Flow/pinned",), "tags": ("good",)}
    assert kept(runs, age=2 * DAY, **policy) == always
    assert kept(runs, age=1000 * DAY, **policy) == always | {"none"}
    assert kept(runs, age=1000 * DAY, ttl=False, **policy) == {entry.run for entry in runs}
    assert kept(runs, age=2 * DAY, ttl=False, **policy) == always | {"young and over"}
    # What is over its time takes no place of another.
    pair = [run("new", 2, tags=("ttl:1d",)), run("old", 3)]
    assert kept(pair, last=1) == {"old"}
    why = decide_runs(RunTable(pair), RunPolicy(last=1, grace=0.0), NOW).dropped
    assert why == {("Flow", "new"): "its ttl is over"}


@pytest.mark.parametrize(
    "policy",
    [{}, {"last": -1}, {"daily": -1}, {"age": 1.0, "grace": -1}, {"last": 1, "pinned": ("x",)},
     {"last": 1, "max_drop": 1.5}, {"last": 1, "max_drop": -0.1}, {"last": 1, "group_by": ("colour",)}],
)  # fmt: skip
def test_policies_that_make_no_sense(policy):
    with pytest.raises(errors.InvalidKey):
        RunPolicy(**policy).check()


def test_a_policy_in_words():
    policy = RunPolicy(
        last=5, last_successful=2, daily=7, monthly=1, age=90 * DAY, tags=("release*",), pinned=("F/1", "F/2"),
        flows=("T*",), group_by=("flow",), max_drop=0.3, ttl=False,
    )  # fmt: skip
    assert policy_text(policy) == (
        "keep of each flow the last 5, the last 2 successful, the last of each of 7 days, the last of each of 1 month; "
        "runs that began within 90 days; what each deployment last ran; runs tagged release*; 2 pinned names and "
        "patterns; all runs of flows other than T*. Grace period 24 h; no run goes by its ttl; at most 30% of the runs "
        "are condemned at once"
    )


# ---- docs/gc.md, sentence by sentence ---------------------------------------------------


def counts(entry):
    """A run counts if it was successful, or if nothing tells how it ended."""
    return entry.state in ("successful", "unknown")


def over(entry):
    return entry.expires is not None and entry.expires <= NOW


def period(kind, moment):
    date = datetime.fromtimestamp(moment, UTC)
    return {
        "hourly": (date.date(), date.hour), "daily": date.date(), "weekly": date.isocalendar()[:2],
        "monthly": (date.year, date.month), "yearly": date.year,
    }[kind]  # fmt: skip


def slow(runs, policy):
    """The names of the runs that stay."""
    if not policy.ttl:
        runs = [entry if not over(entry) else RunFacts(**{**fields(entry), "expires": None}) for entry in runs]
    stay = set()
    for entry in runs:
        of_group = [other for other in runs if group(other, policy) == group(entry, policy) and not over(other)]
        of_group = [other for other in of_group if other.flow != "Kept"]
        newer = [other for other in of_group if rank(other) > rank(entry)]
        if entry.flow == "Kept":
            stay.add(entry.run)  # of another flow
        elif (
            entry.held
            or entry.state == "running"
            or entry.run == "pinned"
            or entry.unclear
            or (entry.expires is not None and not over(entry))
        ):
            stay.add(entry.run)
        elif over(entry):
            pass
        elif (
            in_stretch(entry, of_group, newer, policy.last or 0)
            or (counts(entry) and sum(map(counts, newer)) < (policy.last_successful or 0))
            or (
                counts(entry)
                and any(
                    is_last_of_period(entry, [other for other in of_group if counts(other)], kind, number or 0)
                    for kind, number in policy.periods.items()
                )
            )
            or (policy.age is not None and NOW - entry.began <= policy.age)
            or (policy.deployed and is_last_of_deployment(entry, runs))
        ):
            stay.add(entry.run)
        if NOW - entry.touched < policy.grace:
            stay.add(entry.run)
    return stay


def fields(entry):
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def rank(entry):
    """The greater the newer; what began at once is told apart by its name."""
    return entry.began, entry.flow, entry.run


def group(entry, policy):
    return [getattr(entry, name) for name in policy.group_by]


def in_stretch(entry, of_group, newer, last):
    if not last:
        return False
    this_or_older = [other for other in of_group if other not in newer and counts(other)]
    return len(newer) < last or (bool(this_or_older) and sum(map(counts, newer)) < last)


def is_last_of_period(entry, counting, kind, number):
    later = {period(kind, other.began) for other in counting if rank(other) > rank(entry)}
    return period(kind, entry.began) not in later and len(later) < number


def is_last_of_deployment(entry, runs):
    def of(other):
        return other.flow, other.branch, facts.origin(other.run), other.deployment

    same = [other for other in runs if of(other) == of(entry) and counts(other) and not over(other)]
    return facts.origin(entry.run) != "" and counts(entry) and not any(rank(other) > rank(entry) for other in same)


AGES = st.integers(0, 24 * 60).map(lambda hours: hours / 24) | st.integers(0, 900).map(float)
ANY_RUN = st.builds(
    lambda ago, state, where, branch, user, flow, ttl, held, later: {
        "ago": ago, "state": state, "where": where, "flow": flow, "held": held, "touched": NOW - later * ago * DAY,
        "tags": None if user is None else tuple(filter(None, (branch and f"project_branch:{branch}", f"user:{user}", ttl))),
    },
    AGES, st.sampled_from(STATES), st.sampled_from(("", "argo-p.prod.flow-", "argo-x-", "sfn-")),
    st.sampled_from(("", "prod", "test.x")), st.sampled_from((None, "ann", "bo")),
    st.sampled_from(("Flow", "Other", "Kept")), st.sampled_from(("", "", "", "ttl:30d", "ttl:365d", "ttl:x")),
    st.sampled_from(("", "", "", "held")), st.floats(0, 1),
)  # fmt: skip
SMALL = st.none() | st.integers(0, 4)
ANY_POLICY = st.builds(
    RunPolicy, last=SMALL, last_successful=SMALL, hourly=SMALL, daily=SMALL, weekly=SMALL, monthly=SMALL, yearly=SMALL,
    age=st.none() | st.sampled_from((0.0, 3 * DAY, 100 * DAY)), grace=st.sampled_from((0.0, HOUR, 30 * DAY)),
    group_by=st.lists(st.sampled_from(("flow", "branch", "user", "origin")), unique=True).map(tuple),
    deployed=st.booleans(), ttl=st.booleans(), flows=st.just(("Flow", "Other")), pinned=st.just(("Flow/pinned",)),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(ANY_RUN, max_size=14), ANY_POLICY)
def test_any_policy_keeps_what_the_documentation_says(given_runs, policy):
    runs = [run("", entry.pop("ago"), entry.pop("state"), name=entry.pop("where") + f"r{n}", **entry)
            for n, entry in enumerate(map(dict, given_runs))]  # fmt: skip
    decision = decide_runs(RunTable(runs), policy, NOW)
    assert {name for _, name in decision.kept} == slow(runs, policy)
    assert decision.kept.keys() | decision.dropped.keys() == {(entry.flow, entry.run) for entry in runs}
    assert not decision.kept.keys() & decision.dropped.keys()
    assert all(decision.kept.values()) and all(decision.dropped.values())


@settings(max_examples=150, deadline=None)
@given(st.lists(ANY_RUN, max_size=14), ANY_POLICY, st.integers(1, 5), st.integers(0, 4))
def test_a_failed_run_pushes_no_good_one_out(given_runs, policy, failures, last):
    """However many runs fail, and whenever: what the policy kept of runs that count it keeps."""
    runs = [run("", entry.pop("ago"), entry.pop("state"), name=entry.pop("where") + f"r{n}", **entry)
            for n, entry in enumerate(map(dict, given_runs))]  # fmt: skip
    bad = [run("", 0, F, name=f"bad{n}", flow=entry.flow, tags=entry.tags and tuple(t for t in entry.tags if "ttl" not in t))
           for n, entry in enumerate(runs[:failures])]  # fmt: skip
    before = decide_runs(RunTable(runs), policy, NOW).kept.keys()
    after = decide_runs(RunTable(runs + bad), policy, NOW).kept.keys()
    assert not {name for name in before - after if name in {(r.flow, r.run) for r in runs if r.counts}}


def test_deciding_about_many_runs_asks_of_each_a_few_times():
    """10,000 runs of one group: no rule compares each with each."""
    looks = Counter()

    class Counted(str):
        def __lt__(self, other):
            looks["compared"] += 1
            return str.__lt__(self, other)

    runs = [run("", n / 24, S if n % 3 else F, name=Counted(f"r{n}")) for n in range(10_000)]
    assert len(kept(runs, last=5, last_successful=5, daily=7, weekly=5, monthly=12)) > 12
    assert looks["compared"] < 50 * len(runs)
    assert time.gmtime(NOW).tm_year == 2026
