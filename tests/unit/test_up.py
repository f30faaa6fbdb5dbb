"""What `./dev up` prints to try."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from local.http import Api
from local.up import curl


@dataclass(frozen=True)
class Told(Api):
    """An API that tells of models, and of what could not be loaded."""

    models: Sequence[Any] = ()
    errors: Mapping[str, str] = field(default_factory=dict)

    def get(self, path: str) -> Any:
        places = {target: {"error": error} for target, error in self.errors.items()}
        return {"data": self.models if path == "/v1/models" else [{"places": places}] * 2}


def told(name: str, means: str, *versions: str) -> dict[str, Any]:
    """A model of which a worker serves these versions, and whose name alone means another or one of them."""
    served = [{"version": each, "workers": [1], "example": {"of": each}} for each in versions]
    return {"name": name, "aliases": {"default": {"weights": {means: 100}}}, "versions": served}


def test_the_line_to_try_asks_for_what_is_served_and_could_be_loaded() -> None:
    assert '"model": "first", "input": {"of": "1"}' in curl(Told("http://a", models=[told("first", "1", "1")]))
    assert '"model": "first@2", "input": {"of": "2"}' in curl(Told("http://a", models=[told("first", "1", "2")]))
    both = [told("first", "1", "1"), told("second", "1", "1")]
    assert '"model": "second"' in curl(Told("http://a", models=both, errors={"first@1": "the weights are not there"}))
