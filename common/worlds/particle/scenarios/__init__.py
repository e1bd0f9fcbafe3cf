"""The scenarios of MPE, by name. A scenario is one file and one row of this table."""

from __future__ import annotations

from typing import Any

from common.worlds.particle.scenario import Scenario
from common.worlds.particle.scenarios.collect_treasure import CollectTreasure
from common.worlds.particle.scenarios.simple import Simple
from common.worlds.particle.scenarios.simple_adversary import SimpleAdversary
from common.worlds.particle.scenarios.simple_crypto import SimpleCrypto
from common.worlds.particle.scenarios.simple_formation import SimpleFormation
from common.worlds.particle.scenarios.simple_line import SimpleLine
from common.worlds.particle.scenarios.simple_push import SimplePush
from common.worlds.particle.scenarios.simple_reference import SimpleReference
from common.worlds.particle.scenarios.simple_speaker_listener import SimpleSpeakerListener
from common.worlds.particle.scenarios.simple_spread import SimpleSpread
from common.worlds.particle.scenarios.simple_tag import SimpleTag
from common.worlds.particle.scenarios.simple_world_comm import SimpleWorldComm

SCENARIOS: dict[str, type[Scenario[Any]]] = {
    "collect_treasure": CollectTreasure,
    "simple": Simple,
    "simple_adversary": SimpleAdversary,
    "simple_crypto": SimpleCrypto,
    "simple_formation": SimpleFormation,
    "simple_line": SimpleLine,
    "simple_push": SimplePush,
    "simple_reference": SimpleReference,
    "simple_speaker_listener": SimpleSpeakerListener,
    "simple_spread": SimpleSpread,
    "simple_tag": SimpleTag,
    "simple_world_comm": SimpleWorldComm,
}
