import msgspec
import pytest

from common.errors import ConfigError, FinishedError, WorldError
from common.run.directory import RunDirectory
from common.run.normalisation import resolve_normalisation
from common.run.open_run import DEFAULT_SECONDS, RunOptions, open_run
from common.run.run import make_run_spec, parse_assignments
from common.worlds import world_spec

NOTHING = RunOptions()


@pytest.fixture
def new(tmp_path):
    """Returns the spec of a new run with these options and sections of a file."""

    def make(options=NOTHING, scenario="simple_spread", **sections):
        path = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        directory, run = open_run(str(path), scenario, options, sections, resume=False, role="learner")
        assert directory.run == run
        return run.spec

    return make


@pytest.fixture
def resumed(tmp_path):
    """Returns the spec of a run made with some options and resumed with others."""

    def resume(stored, options=NOTHING, scenario="", **sections):
        path = str(tmp_path / "stored")
        directory, run = open_run(path, "simple_spread", stored, {}, resume=False, role="learner")
        again, resumed = open_run(path, scenario, options, sections, resume=True, role="other")
        assert (again.path, resumed.id, resumed.joint) == (directory.path, run.id, run.joint)
        assert again.run == resumed, "the directory holds what the run is now"
        return run.spec, resumed.spec

    return resume


def test_without_anything_given_a_run_has_the_defaults_and_five_minutes(new):
    made = new()
    assert (made.scenario, made.seed, made.algorithm.name, made.replay.n_step) == ("simple_spread", 0, "maddpg", 3)
    assert (made.budget.steps, made.budget.seconds) == (0, DEFAULT_SECONDS)


def test_the_order_is_preset_file_options_set(new):
    sections = {"replay": {"batch": 512, "capacity": 50_000}, "algorithm": {"discount": 0.9}}
    paper = RunOptions(preset="paper")
    assert new(paper).replay.batch == 1024
    assert new(paper, **sections).replay.batch == 512
    made = new(RunOptions(preset="paper", set=("replay.batch=64",)), **sections)
    assert (made.replay.batch, made.replay.capacity) == (64, 50_000)
    assert made.replay.samples_per_insert == 10.24, "what nobody changed is the preset's"
    assert made.algorithm.discount == 0.9


def test_options_win_over_the_file_and_set_over_options(new):
    assert new(RunOptions(seed=3)).seed == 3
    assert new(RunOptions(seed=3, set=("seed=4",))).seed == 4
    made = new(RunOptions(steps=100), budget={"seconds": 60, "steps": 5})
    assert (made.budget.steps, made.budget.seconds) == (100, 0.0), "one budget replaces the other"


@pytest.mark.parametrize(
    ("options", "sections", "budget"),
    [
        (RunOptions(steps=10), {}, (10, 0.0)),
        (RunOptions(time=90.0), {}, (0, 90.0)),
        (RunOptions(steps=10, time=90.0), {}, (10, 90.0)),
        (RunOptions(preset="paper"), {}, (1_500_000, 0.0)),
        (RunOptions(preset="paper", time=90.0), {}, (0, 90.0)),
        (RunOptions(), {"budget": {"seconds": 7}}, (0, 7.0)),
        (RunOptions(set=("budget.steps=8",)), {}, (8, 0.0)),
    ],
)
def test_the_budget(new, options, sections, budget):
    made = new(options, **sections)
    assert (made.budget.steps, made.budget.seconds) == budget


def test_the_team_is_that_of_the_world_with_its_options(tmp_path):
    _, run = open_run(
        str(tmp_path / "run"), "simple_spread", RunOptions(set=("world.N=2",)), {}, resume=False, role="learner"
    )
    assert run.joint == world_spec("simple_spread", N=2)


def test_a_run_without_a_directory_gets_one_of_its_scenario_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory, run = open_run("", "simple_tag", NOTHING, {}, resume=False, role="learner")
    assert directory.path.parent.name == "runs"
    assert directory.path.name.startswith("simple_tag-")
    assert RunDirectory(tmp_path / directory.path).run == run


@pytest.mark.parametrize(
    ("options", "sections", "message"),
    [
        (RunOptions(algorithm="ppo"), {}, r"algorithm\.name = 'ppo': not one of 'maddpg', 'matd3'"),
        (NOTHING, {"algoritm": {"discount": 0.9}}, r"algoritm is not a setting; did you mean algorithm\?"),
        (RunOptions(set=("world.M=1",)), {}, r"simple_spread has no option 'M'"),
        (RunOptions(set=("world.N=0",)), {}, r"simple_spread: N=0 is not allowed"),
        (
            RunOptions(set=("network.head=force", "world.continuous_actions=false")),
            {},
            r"network\.head = 'force': no agent of this world acts by a force",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_leaves_no_directory(tmp_path, options, sections, message):
    with pytest.raises(ConfigError, match=message):
        open_run(str(tmp_path / "run"), "simple_spread", options, sections, resume=False, role="learner")
    assert not list(tmp_path.iterdir())


def test_a_scenario_must_be_named_and_known(tmp_path):
    with pytest.raises(ConfigError, match=r"No scenario is given\. Pass one of `shoal scenarios`"):
        open_run(str(tmp_path / "run"), "", NOTHING, {}, resume=False, role="learner")
    with pytest.raises(ConfigError, match="no scenario 'simple_sprad'; did you mean simple_spread"):
        open_run(str(tmp_path / "run"), "simple_sprad", NOTHING, {}, resume=False, role="learner")


def test_an_environment_that_fails_while_it_is_measured_leaves_no_directory(tmp_path):
    world, broken = "pettingzoo:tests.shoal.commands.check.checked_env", RunOptions(set=("world.fault=step",))
    with pytest.raises(WorldError, match="the motor is gone"):
        open_run(str(tmp_path / "run"), world, broken, {}, resume=False, role="learner")
    assert not list(tmp_path.iterdir())


LONG = "x" * 900


@pytest.mark.parametrize(
    ("scenario", "options"),
    [
        (LONG, NOTHING),
        ("simple_tag", RunOptions(algorithm=LONG)),
        ("simple_tag", RunOptions(algorithm=f"{LONG}=maddpg")),
        ("simple_tag", RunOptions(set=(f"network.{LONG}=5",))),
        ("simple_tag", RunOptions(set=(f'network.sides={{a=["{LONG}"]}}',))),
    ],
    ids=["scenario", "algorithm", "side", "setting", "agent"],
)
def test_messages_shorten_long_names(tmp_path, scenario, options):
    with pytest.raises(ConfigError) as error:
        open_run(str(tmp_path / "run"), scenario, options, {}, resume=False, role="learner")
    assert "xxx..." in str(error.value)
    assert len(str(error.value)) < 800


def test_a_run_resumed_with_nothing_is_as_it_was(resumed):
    stored, spec = resumed(RunOptions(preset="paper", seed=3, time=60.0, set=("replay.batch=64", "world.N=2")))
    assert spec == stored


def test_a_resumed_run_takes_what_is_given_now_on_top(resumed):
    stored, spec = resumed(
        RunOptions(seed=3, time=60.0, set=("world.N=2",)),
        RunOptions(time=120.0, set=("replay.batch=32",)),
        scenario="simple_spread",
        replay={"batch": 16, "min_size": 100},
    )
    assert (spec.budget.seconds, spec.seed, spec.world) == (120.0, 3, {"N": 2})
    assert (spec.replay.batch, spec.replay.min_size) == (32, 100)
    assert spec.algorithm == stored.algorithm


@pytest.mark.parametrize(
    ("begun", "resumed_with"), [((), ("world.N=3",)), (("world.N=3",), ("world.local_ratio=0.5",))]
)
def test_a_default_written_out_is_the_same_world(resumed, begun, resumed_with):
    stored, spec = resumed(RunOptions(set=begun), RunOptions(set=resumed_with))
    assert spec == stored


KINDS = "pettingzoo:tests.shoal.commands.team_kinds"


@pytest.fixture
def chosen(tmp_path):
    """Returns the choice and the settings of a new run."""

    def choose(scenario, options=NOTHING, largest=10**9, **sections):
        found = []
        path = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        _, run = open_run(
            str(path),
            scenario,
            options,
            sections,
            resume=False,
            role="learner",
            on_chosen=lambda choice, spec: found.append((choice, spec)),
            max_capacity=lambda _spec, _agents: largest,
        )
        assert found[0][1] == run.spec
        return found[0][0], run.spec

    return choose


def test_without_a_preset_particle_worlds_have_the_defaults(chosen):
    for scenario in ("simple_spread", "mpe2:simple_tag", "pettingzoo:mpe2.simple_spread_v3"):
        choice, spec = chosen(scenario)
        defaults = make_run_spec({"scenario": scenario, "budget": {"seconds": DEFAULT_SECONDS}})
        assert (choice.preset, choice.copies, spec) == ("particle", 32, resolve_normalisation(defaults))


def test_without_a_preset_long_episodes_have_those_of_control_under_the_users_own(chosen):
    options = RunOptions(set=("world.length=400", "replay.n_step=5"))
    choice, spec = chosen(KINDS, options, largest=500_000, algorithm={"discount": 0.97})
    assert (choice.preset, choice.episode_steps) == ("control", 400)
    assert (spec.replay.samples_per_insert, spec.replay.capacity, spec.replay.n_step) == ("auto", 500_000, 5)
    assert (spec.algorithm.discount, spec.algorithm.final_learning_rate_share) == (0.97, 1.0)
    assert spec.episode.stagger_steps == 400


def test_without_a_preset_short_episodes_have_the_defaults(chosen):
    choice, spec = chosen(KINDS, RunOptions(set=("world.length=30",)))
    assert choice.preset == "particle"
    assert spec.replay.samples_per_insert == 4.0
    assert chosen(KINDS, RunOptions(set=("world.length=400",), max_episode_steps=30))[0].preset == "particle"


def test_a_reproducible_choice_does_not_depend_on_speed_and_memory(tmp_path):
    found = []
    for delay in (0.0, 0.03):
        options = RunOptions(set=("world.length=400", f"world.delay_s={delay}"))
        path = str(tmp_path / f"run-{delay}")
        _, run = open_run(
            path,
            KINDS,
            options,
            {},
            resume=False,
            role="learner",
            on_chosen=lambda choice, _: found.append(choice.copies),
            max_capacity=lambda *_: 40_000,
            reproducible=True,
        )
        assert (run.spec.replay.capacity, run.spec.replay.min_size) == (1_000_000, 8_000)
    assert found == [4, 4]


def test_what_was_chosen_stays_when_the_run_is_resumed(tmp_path):
    path = str(tmp_path / "run")
    options = RunOptions(set=("world.length=400", "world.delay_s=0.02"), steps=1_000)
    _, run = open_run(path, KINDS, options, {}, resume=False, role="learner", max_capacity=lambda *_: 40_000)
    assert (run.spec.replay.capacity, run.spec.replay.min_size < 8_000) == (40_000, True)
    for again in (NOTHING, RunOptions(preset="control"), options):
        _, resumed = open_run(path, "", again, {}, resume=True, role=f"{id(again)}")
        assert resumed.spec == run.spec


def test_a_resumed_run_takes_a_preset_only_when_one_is_named(resumed):
    _, spec = resumed(RunOptions(time=60.0), RunOptions(preset="paper"))
    assert spec.replay.batch == 1024


@pytest.mark.parametrize(
    ("scenario", "options", "message"),
    [
        ("simple_tag", NOTHING, r"contains a run of simple_spread, not of simple_tag"),
        (
            "",
            RunOptions(set=("world.N=5",)),
            r"of simple_spread with its default options, not of simple_spread with world.N=5\. Resume it with its own",
        ),
        ("", RunOptions(set=("scenario=simple_tag",)), r"not of simple_tag"),
    ],
)
def test_a_run_is_not_resumed_over_another_world(resumed, tmp_path, scenario, options, message):
    with pytest.raises(ConfigError, match=message):
        resumed(RunOptions(seed=3), options, scenario)
    assert RunDirectory(tmp_path / "stored").run.spec.seed == 3


def test_a_run_is_not_resumed_with_another_activation(resumed, tmp_path):
    with pytest.raises(ConfigError, match=r"learnt with 'relu'\. Resume with --set network\.activation=relu"):
        resumed(RunOptions(), RunOptions(set=("network.activation=tanh",)))
    assert RunDirectory(tmp_path / "stored").run.spec.network.activation == "relu"


def test_resuming_needs_a_directory_that_contains_a_run(tmp_path):
    with pytest.raises(ConfigError, match=r"--resume needs the run's directory\. Pass --run DIR"):
        open_run("", "simple_spread", NOTHING, {}, resume=True, role="other")
    with pytest.raises(ConfigError, match="does not contain a run"):
        open_run(str(tmp_path), "", NOTHING, {}, resume=True, role="other")


@pytest.fixture
def finished(tmp_path):
    """Makes the directory of a run that has used its budget of a minute."""
    path = str(tmp_path / "finished")
    directory, _ = open_run(path, "simple_spread", RunOptions(time=60.0), {}, resume=False, role="learner")
    directory.finished_file.touch()
    return path, directory.finished_file


def test_a_service_begins_its_run_and_goes_on_with_it_by_the_same_options(tmp_path):
    options = RunOptions(seed=3, time=60.0)
    runs = []
    for role in ("learner", "learner started again"):
        _, run = open_run(str(tmp_path / "run"), "simple_spread", options, {}, resume=True, role=role)
        runs.append(run)
    assert runs[0] == runs[1]
    assert (runs[0].spec.seed, runs[0].spec.budget.seconds) == (3, 60.0)


def test_a_finished_run_is_resumed_with_a_larger_budget_only(finished):
    path, marker = finished
    for options in (NOTHING, RunOptions(time=60.0), RunOptions(time=30.0), RunOptions(set=("replay.batch=32",))):
        with pytest.raises(FinishedError, match=r"has used its budget\. Pass a larger total with --time or --steps"):
            open_run(path, "", options, {}, resume=True, role="other")
        assert marker.exists()
    open_run(path, "", RunOptions(time=120.0), {}, resume=True, role="other")
    assert not marker.exists()


def test_a_finished_run_is_resumed_with_a_limit_of_another_kind(finished):
    path, marker = finished
    open_run(path, "", RunOptions(steps=1_000_000), {}, resume=True, role="other")
    assert not marker.exists()


def test_a_finished_run_stays_finished_when_it_cannot_be_resumed(finished):
    path, marker = finished
    with pytest.raises(ConfigError, match="Resume it with its own world"):
        open_run(path, "", RunOptions(time=120.0, set=("world.N=5",)), {}, resume=True, role="other")
    assert marker.exists()


def test_a_run_that_another_process_of_the_role_has_is_not_opened(tmp_path):
    path = str(tmp_path / "run")
    stored = open_run(path, "simple_spread", NOTHING, {}, resume=False, role="learner")
    with pytest.raises(ConfigError, match="in use by another learner"):
        open_run(path, "", NOTHING, {}, resume=True, role="learner")
    assert stored[0].run == open_run(path, "", NOTHING, {}, resume=True, role="launcher")[1]


def test_options_come_back_from_their_builtins():
    options = RunOptions(preset="paper", seed=1, steps=2, time=3.0, set=("a.b=1",))
    assert msgspec.convert(msgspec.to_builtins(options), RunOptions) == options


def test_a_word_that_is_a_choice_needs_no_quotes() -> None:
    assert parse_assignments(["replay.limit=off"]) == {"replay": {"limit": "off"}}
    with pytest.raises(ConfigError, match="write false"):
        parse_assignments(["world.shaped=off"])
