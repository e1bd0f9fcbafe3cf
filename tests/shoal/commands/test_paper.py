"""Tests of `shoal paper`: its runs, their results, and the page."""

from xml.etree import ElementTree as ET

import pytest

from actor_node.evaluation.evaluate import Estimate, Evaluation
from actor_node.evaluation.task_metrics import MEANINGS
from common.errors import ConfigError
from common.process import command
from common.run.players import algorithms_by_side
from common.run.presets import PRESETS
from common.run.run import make_run_spec, parse_assignments
from common.worlds import world_spec
from shoal.cli import shoal
from shoal.commands.paper.page import Provenance, make_page
from shoal.commands.paper.plan import ExperimentSize, chosen_tasks, options, plan, refuse_other_runs
from shoal.commands.paper.plot import draw_plot
from shoal.commands.paper.scores import Score, compare_with_claim, tables
from shoal.commands.paper.tasks import TASKS
from tests.actor_node.teams import make_team

_SVG = "{http://www.w3.org/2000/svg}"
QUICK = ExperimentSize(quick=True)


def evaluations(value):
    """Returns a function that evaluates a planned run: every measure is `value`."""

    def evaluated(run):
        number = value(run)
        metrics = {name: Estimate(number, (number, number)) for name in MEANINGS}
        return Evaluation("s", "w", 1, 1, 1, "", number, (number, number), 0.0, {}, {}, metrics=metrics)

    return evaluated


# ---- the runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_every_line_is_a_valid_run(task):
    assert {measure.name for measure in task.measures} <= MEANINGS.keys()
    names = {variant.name for variant in task.variants}
    assert {task.claim.ahead, task.claim.behind, *task.published} <= names
    assert task.claim.measure in {measure.title for measure in task.measures}
    for variant in task.variants:
        words = options(task, variant, QUICK)
        settings = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        spec = make_run_spec({"scenario": task.scenario}, parse_assignments(settings))
        joint = world_spec(task.scenario, **spec.world)
        learnt = set(algorithms_by_side(joint, variant.algorithm).values())
        assert learnt <= {"maddpg", "iddpg"}
        assert (spec.network.policy_hidden, spec.network.share_policies) == ((64, 64), False)
    assert len(task.variants) == (2 if len(joint.sides) == 1 else 4)


def test_the_quick_networks_are_those_of_the_papers_preset():
    words = options(TASKS[0], TASKS[0].variants[0], QUICK)
    quick = parse_assignments([words[i + 1] for i, word in enumerate(words) if word == "--set"])["network"]
    paper = PRESETS["paper"]["network"]
    assert {"policy_hidden", "critic_hidden"} <= set(quick)
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in quick.items()} == {
        name: paper[name] for name in quick
    }


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.key)
def test_full_runs_have_the_papers_preset_and_its_environment(task):
    words = options(task, task.variants[0], ExperimentSize(quick=False))
    assert words[:2] == ("--preset", "paper")
    settings = parse_assignments([words[i + 1] for i, word in enumerate(words) if word == "--set"])
    world = settings.get("world", {})
    assert world.get("dynamics", "mpe2") == ("mpe2" if task.key == "covert" else "legacy")
    world_spec(task.scenario, **world)  # raises an exception for an option that the scenario does not have
    assert words[words.index("--steps") + 1] == "1500000"


def test_runs_are_ordered_by_seed_and_have_separate_directories(tmp_path):
    runs = plan(tmp_path, TASKS, QUICK)
    assert len(runs) == 3 * (3 * 2 + 3 * 4)
    assert len({run.job.directory for run in runs}) == len(runs)
    assert [run.job.seed for run in runs] == sorted(run.job.seed for run in runs)
    assert len(plan(tmp_path, chosen_tasks(["covert"]), ExperimentSize(quick=False))) == 40
    assert len(plan(tmp_path, chosen_tasks(["communication"]), ExperimentSize(quick=True, seeds=5))) == 10


def test_runs_of_another_scale_are_refused(tmp_path):
    (task,) = chosen_tasks(["deception"])
    runs = plan(tmp_path, [task], QUICK)
    refuse_other_runs(runs, QUICK)
    make_team(runs[0].job.directory, task.scenario, budget={"steps": task.quick_steps})
    refuse_other_runs(runs, QUICK)
    with pytest.raises(ConfigError, match="Name another directory with --run"):
        refuse_other_runs(runs, ExperimentSize(quick=True, steps=7))
    with pytest.raises(
        ConfigError, match=r"in batches of 256 with network\.head = box, not of 1,500,000 in 1024 with soft"
    ):
        refuse_other_runs(runs, ExperimentSize(quick=False))


# ---- what they come to --------------------------------------------------------------------------------------------


def test_a_line_has_the_mean_over_seeds_with_students_interval(tmp_path):
    tasks = chosen_tasks(["predator-prey"])
    runs = plan(tmp_path, tasks, QUICK)
    (table,) = tables(runs, evaluations(lambda run: 10.0 * run.job.seed))
    assert [line.seeds for line in table.lines] == [(1, 2, 3)] * 4
    score = table.lines[0].scores["touches an episode"]
    assert (score.by_seed, score.mean) == ((10.0, 20.0, 30.0), 20.0)
    assert score.ci95 == pytest.approx((20 - 4.303 * 10 / 3**0.5, 20 + 4.303 * 10 / 3**0.5), abs=1e-3)
    assert table.verdict == "behind", "alike is not ahead"


def test_intervals_of_fractions_are_clipped_and_a_lead_is_a_difference(tmp_path):
    runs = plan(tmp_path, chosen_tasks(["deception"]), QUICK)
    (table,) = tables(runs, evaluations(lambda run: 0.45 * run.job.seed - 0.4))
    line = table.lines[0].scores
    assert line["agents at the goal"].ci95 == (0.0, 1.0)
    assert line["agents' lead"].by_seed == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("ahead", "behind", "verdict"),
    [
        ((16.0, (15.0, 17.0)), (10.0, (9.0, 11.0)), "ahead"),
        ((16.0, (10.5, 21.5)), (10.0, (9.0, 11.0)), "ahead, intervals overlap"),
        ((9.0, (8.0, 10.0)), (10.0, (9.0, 11.0)), "behind"),
        ((16.0, None), (10.0, None), "not told"),
    ],
)
def test_the_verdict_includes_the_intervals(ahead, behind, verdict):
    (tag,) = chosen_tasks(["predator-prey"])
    scores = {tag.claim.ahead: Score((), *ahead), tag.claim.behind: Score((), *behind)}
    assert compare_with_claim(tag, scores) == verdict


def test_less_distance_is_better(tmp_path):
    runs = plan(tmp_path, chosen_tasks(["navigation-3"]), QUICK)
    near = evaluations(lambda run: (1.0 if run.variant.algorithm == "maddpg" else 2.0) + 0.01 * run.job.seed)
    assert tables(runs, near)[0].verdict == "ahead"


# ---- how it is written --------------------------------------------------------------------------------------------


@pytest.fixture
def found(tmp_path):
    return tables(plan(tmp_path, TASKS, QUICK), evaluations(lambda run: 0.1 * run.job.seed))


def test_the_page_has_every_table_figure_command_and_seed(found):
    page = make_page(found, Provenance("shoal paper --quick", QUICK, 1_000, 1_000_000))
    for table in found:
        assert f"## {table.title}" in page
        assert f"]({table.key}.svg)" in page
    assert "seeds 1, 2, 3 of 1,000 episodes" in page
    assert "shoal train simple_spread --seed 1" in page
    assert "--algorithm adversary=iddpg,agent=maddpg" in page
    assert "'network.policy_hidden=[64,64]'" in page, "quoted, as a shell wants it"
    assert "20.0 % (0.0 .. 44.8)" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    widths = {line.count("|") for line in rows}
    assert widths <= {4, 5, 6, 7}
    assert "not re-checked" in page


def test_a_plot_is_svg_with_every_seed_and_interval_inside(found):
    for table in found:
        root = ET.fromstring(draw_plot(table))  # noqa: S314  (our own)
        width = float(root.get("width", 0))
        dots = list(root.iter(f"{_SVG}circle"))
        columns = len(table.lines[0].scores)
        assert len(dots) == columns * len(table.lines) * 4
        assert all(0 < float(dot.get("cx", -1)) < width for dot in dots)
        assert len([p for p in root.iter(f"{_SVG}path") if "interval" in p.get("class", "")]) == columns * len(
            table.lines
        )


def test_one_seed_has_a_page_and_a_plot_without_intervals(tmp_path):
    size = ExperimentSize(quick=True, seeds=1)
    found = tables(plan(tmp_path, chosen_tasks(["covert"]), size), evaluations(lambda run: 0.5))
    assert "50.0 % |" in make_page(found, Provenance("shoal paper", size, 1, 1))
    assert "interval k" not in draw_plot(found[0])


def test_a_mistake_costs_one_line_and_exit_code_2(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cases = {
        "--task deceit does not exist. Choose from communication": ["--task", "deceit"],
        "cannot be created": ["--run", str(tmp_path / "file" / "x")],
        "--jobs": ["--jobs", "-1"],
        "--part 5/4 is invalid. Write I/N": ["--part", "5/4"],
    }
    for message, arguments in cases.items():
        assert command.run(shoal, "shoal", ["paper", "--quick", *arguments]) == 2
        output = capsys.readouterr().err
        assert message in output
        assert "Traceback" not in output
