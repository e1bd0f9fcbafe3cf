import pytest

from common.errors import ConfigError, PeerError, ProtocolError, ShoalError, WorldError
from common.process.exit import BAD_USAGE, FAILED, NO_PEER


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ShoalError, FAILED),
        (ConfigError, BAD_USAGE),
        (PeerError, NO_PEER),
        (ProtocolError, FAILED),
        (WorldError, FAILED),
    ],
)
def test_every_error_is_shoals_and_has_its_exit_code(error, code):
    assert issubclass(error, ShoalError)
    assert error("why").exit_code == code
    assert str(error("why")) == "why"
