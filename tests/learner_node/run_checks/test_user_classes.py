"""Each fault of a user's critic or algorithm is found before a run starts, and is one clear error or warning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import ConfigError, LastingError
from common.run.run import Run, RunSpec, make_run_spec
from learner_node.engine import make_engine
from learner_node.run_checks.sizes import sizes_of
from learner_node.run_checks.user_classes import check_user_classes
from learner_node.trainer import Trainer
from tests.learner_node.own_classes import Doubled
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records
from tests.learner_node.test_trainer import CPU, records_of

HERE = "tests.learner_node.own_classes"
SMALL = {"policy_hidden": (8,), "critic_hidden": (8,)}


def spec_of(*, critic: str = "mlp", **algorithm: Any) -> RunSpec:
    settings = {"network": {**SMALL, "critic": critic}, "algorithm": algorithm}
    return make_run_spec({"scenario": "simple_spread"}, settings)


@pytest.mark.parametrize("team", ["spread", "tag", "mixed", "masked", "alone"])
@pytest.mark.parametrize("name", ["matd3", "iddpg", f"{HERE}:Doubled"])
def test_usable_classes_pass_without_a_warning(team: str, name: str) -> None:
    for critic in ("Mlp", "Normed", "Structured", "Clamped"):
        assert check_user_classes(spec_of(critic=f"{HERE}:{critic}", name=name), TEAMS[team]) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Flat", r"forward\(x\) for x of shape \[8, 69\] returned shape \[8\]. Return one value a row: shape \[8, 1\]"),
        ("Numbers", r"returned list. Return a tensor of shape \[8, 1\]"),
        ("Detached", "returned values without a gradient"),
        ("NotFinite", "Return finite numbers"),
        ("Fails", r"(?s)forward\(x\) for x of shape \[8, 69\]: RuntimeError: wrong turn\n.*own_classes.py:\d+"),
        ("FailsWhenMade", r"making a critic: RuntimeError: no licence\n  .*own_classes.py:\d+"),
        ("WithoutParameters", "the module has no parameters"),
        ("Constant", "requires_grad is False for scale. Make constants buffers"),
        ("function", "function is not a class derived from torch.nn.Module"),
        ("Doubled", "Doubled is not a class derived from torch.nn.Module"),
        ("Mpl", "has no Mpl; did you mean Mlp?"),
    ],
)
def test_a_critic_that_cannot_be_used_is_refused_with_the_way_out(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        check_user_classes(spec_of(critic=f"{HERE}:{name}"), TEAMS["spread"])
    assert str(error.value).startswith(f"network.critic = '{HERE}:{name}': ")


def test_a_module_that_is_missing_or_raises_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_netz.py").write_text("raise OSError('no disk')\n")
    with pytest.raises(ConfigError, match=r"\./my_netz.py is here: export PYTHONPATH=.*The learner imports it"):
        check_user_classes(spec_of(critic="my_netz:MyCritic"), TEAMS["spread"])
    with pytest.raises(ConfigError, match=r"algorithm.name = 'my_netz:Mine': cannot import my_netz"):
        check_user_classes(spec_of(name="my_netz:Mine"), TEAMS["spread"])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"importing my_netz: OSError: no disk\n  .*my_netz.py:1 in <mod"):
        check_user_classes(spec_of(critic="my_netz:MyCritic"), TEAMS["spread"])


def test_parameters_without_a_gradient_and_an_unseen_action_are_warnings() -> None:
    (unused,) = check_user_classes(spec_of(critic=f"{HERE}:Unused"), TEAMS["spread"])
    assert unused.endswith("forward does not use spare.weight, spare.bias, which will not be learnt")
    (blind,) = check_user_classes(spec_of(critic=f"{HERE}:Blind"), TEAMS["spread"])
    assert blind.endswith("do not depend on the critic's own action (columns 18 to 22), so its policy learns nothing")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("FailsInTheLoss", r"(?s)an update on 8 random transitions: ValueError: no loss today\n.*own_classes.py:\d+"),
        ("FewWeights", r"policy_weights\(\) returned \d+ numbers. Return \d+"),
        ("NotAnEngine", "NotAnEngine is not a class derived from Maddpg, and has no method network_states"),
        ("function", "function is not a class derived from Maddpg"),
        ("Dubled", "has no Dubled; did you mean Doubled?"),
    ],
)
def test_an_algorithm_that_cannot_be_used_is_refused_with_the_way_out(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        check_user_classes(spec_of(name=f"{HERE}:{name}"), TEAMS["spread"])
    assert str(error.value).startswith(f"algorithm.name = '{HERE}:{name}': ")


def test_the_class_is_the_engine_and_its_variant_chooses_the_networks() -> None:
    for variant, critics in (("maddpg", 3), ("matd3", 6), ("joint", 1)):
        run = Run("r", spec_of(name=f"{HERE}:Doubled", variant=variant), TEAMS["spread"])
        engine = make_engine(run, torch.zeros(()))
        assert isinstance(engine, Doubled)
        assert len(engine.layout.critics) == critics
    assert engine.layout.policy_delay == 1


def test_a_class_with_deterministic_policies_does_not_build_on_masac() -> None:
    with pytest.raises(ConfigError, match=r"algorithm.variant = 'masac': .* Derive the class from .*Masac"):
        check_user_classes(spec_of(name=f"{HERE}:Doubled", variant="masac"), TEAMS["spread"])
    assert check_user_classes(spec_of(name=f"{HERE}:Softer", variant="masac"), TEAMS["spread"]) == []


def test_the_loss_of_the_class_is_descended() -> None:
    plain, doubled = (
        make_engine(Run("r", spec_of(name=name, gradient_clip=0.0), TEAMS["spread"]), torch.zeros(()))
        for name in ("maddpg", f"{HERE}:Doubled")
    )
    batch = as_batch(as_fields(random_records(TEAMS["spread"], 16, 0), torch.float32))
    norms = [engine.update(batch, 1e-3, 1e-3).critic_squared_norms for engine in (plain, doubled)]
    torch.testing.assert_close(norms[1], 4 * norms[0])


def test_the_sizes_count_the_parameters_of_the_users_module() -> None:
    sizes = sizes_of(spec_of(critic=f"{HERE}:Mlp", name="matd3"), TEAMS["spread"])
    assert sizes.critic_parameters == 2 * (70 * 8 + 9)  # matd3: two shared critics with 69 inputs and 8 units
    assert sizes.engine.line == f"engine: autograd (stacked does not cover network.critic={HERE}:Mlp)"


@pytest.mark.parametrize(
    ("own", "setting"),
    [({"critic": f"{HERE}:Mlp"}, "network.critic"), ({"name": f"{HERE}:Doubled"}, "algorithm.name")],
)
def test_the_stacked_engine_is_refused_for_own_classes(own: dict[str, str], setting: str) -> None:
    said = f"algorithm.engine = 'stacked': it does not cover {setting}={HERE}:"
    with pytest.raises(ConfigError, match=re.escape(said)):
        sizes_of(spec_of(engine="stacked", **own), TEAMS["spread"])


def test_a_fault_after_the_trial_ends_the_run_with_its_reason() -> None:
    run = Run("r", spec_of(name=f"{HERE}:LateFault"), TEAMS["spread"])
    assert check_user_classes(run.spec, TEAMS["spread"]) == []
    trainer = Trainer(run, CPU)
    for i in range(4):
        trainer.update(records_of(run, i), i, 0.0, 0.0)
    with pytest.raises(
        LastingError, match=r"(?s)LateFault': an update: ValueError: five is too much\n.*own_classes.py"
    ):
        trainer.update(records_of(run, 4), 4, 0.0, 0.0)
