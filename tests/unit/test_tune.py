"""What a model's class asks of the runtime, on a CPU."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.shelves import NO_ARTIFACTS, alone
from tundish import Batch, Model, Reject
from tundish.catalog import Served
from tundish.model import DefinitionError, check
from tundish.testing import Recorder, run
from tundish.tune import padded_size, tune
from workers.batch import Target, Waiting
from workers.gpu import Cpu
from workers.shelf import Shelf


class Doubled(Model[int, float]):
    """One layer that doubles, and the sizes and kinds that it saw."""

    name = "doubled"
    version = "1"
    seen: ClassVar[list[tuple[int, torch.dtype]]] = []

    def load(self, device: str) -> None:
        self.seen.clear()
        self.layers = [torch.nn.Linear(1, 1, bias=False, device=device)]
        torch.nn.init.constant_(self.layers[0].weight, 2.0)

    @torch.inference_mode()
    def predict(self, batch: Batch[int]) -> list[float | Reject]:
        for index in range(len(batch)):
            batch.log(index, f"item {batch[index]}")
        output = self.layers[0](torch.tensor([[float(item)] for item in batch]))
        self.seen.append((len(batch), output.dtype))
        return [Reject("canceled") if batch.canceled(i) else float(each) for i, each in enumerate(output)]


def test_a_batch_is_filled_up_to_the_next_size_and_nobody_hears_of_the_copies() -> None:
    class Padded(Doubled):
        pad_to = (4, 8)
        max_batch = 16

    recorder = Recorder()
    assert run(Padded, [1, 2, 3, 4, 5], reporter=recorder) == [2, 4, 6, 8, 10]
    assert recorder.logged == [(index, f"item {index + 1}") for index in range(5)]
    assert run(Padded, list(range(9))) == [2.0 * item for item in range(9)]
    assert [size for size, _ in Padded.seen] == [9]


def test_what_is_collated_is_filled_up_too() -> None:
    class Collating(Doubled):
        pad_to = (4, 8)

        def collate(self, items: Sequence[int]) -> torch.Tensor:
            return torch.tensor([[float(item)] for item in items])

        def predict(self, batch: Batch[int]) -> list[float | Reject]:
            assert len(batch.collated) == len(batch) in (4, 8)
            return [float(each) for each in self.layers[0](batch.collated)]

    assert run(Collating, [1, 2, 3]) == [2, 4, 6]
    assert run(Collating, [1, 2, 3, 4, 5]) == [2, 4, 6, 8, 10]


def test_a_padded_batch_that_gives_too_few_results_is_told_so() -> None:
    class Short(Doubled):
        pad_to = (4,)

        def predict(self, batch: Batch[int]) -> list[float | Reject]:
            return [1.0]

    with pytest.raises(AssertionError, match="predict gave 1 for 3 items"):
        run(Short, [1, 2, 3])


def test_half_precision_holds_for_weights_and_arithmetic() -> None:
    class Half(Doubled):
        half = True

    assert run(Half, [1, 2]) == [2, 4]
    assert Half.seen == [(2, torch.bfloat16)]


def test_modules_are_compiled_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[dict[str, Any]] = []

    def note(forward: Any, recompile_limit: int, **options: Any) -> Any:
        compiled.append(options)
        return forward

    monkeypatch.setattr(torch, "compile", note)

    class Compiled(Doubled):
        compile = True

    class Recorded(Doubled):
        cuda_graphs = True

    class Both(Compiled):
        cuda_graphs = True

    for kind in (Compiled, Recorded, Both):
        model = kind()
        model.load("cpu")
        tune(model, "cuda:0")
        tune(model, "cpu")
    recorded = compiled.pop(2)
    assert recorded.keys() == {"options"}
    assert recorded["options"].items() >= {"fallback_by_default": True, "triton.cudagraphs": True}.items()
    assert compiled == [{"mode": None}, {"mode": None}, {"mode": "reduce-overhead"}, {"mode": None}]


def test_records_read_the_weights_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorded(Doubled):
        cuda_graphs = True

        def load(self, device: str) -> None:
            self.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))

    from torch._inductor import compile_fx, utils  # it takes seconds

    stay: list[Sequence[int]] = []
    static = compile_fx.get_static_input_idxs

    def noted(fixed: int) -> Any:
        stay.append(static(fixed))
        return stay[-1]

    monkeypatch.setattr(compile_fx, "get_static_input_idxs", noted)
    model = Recorded()
    model.load("cpu")
    items, own = torch.ones(3, 4), model.net.forward
    tune(model, "cuda:0")
    with torch.inference_mode(), utils.fresh_cache():
        assert torch.equal(model.net(items), own(items))  # type: ignore[no-untyped-call]  # it is torch's forward
    assert [len(inputs) for inputs in stay] == [4]  # weights and biases; the items are copied


@pytest.mark.parametrize(("device", "given"), [("cuda:0", [20.0, 40.0]), ("cpu", [60.0, 80.0])])
def test_results_outlive_the_next_call_where_kernels_are_recorded(
    monkeypatch: pytest.MonkeyPatch, device: str, given: list[float]
) -> None:
    class Recorded(Doubled):
        """Gives what lies where each call writes to, as kernels do that are replayed."""

        cuda_graphs = True
        pad_to = (4,)
        memory_of_records = torch.zeros(4)

        def predict(self, batch: Batch[int]) -> list[Any]:
            self.memory_of_records[:] = 10 * torch.tensor(list(batch))
            return list(self.memory_of_records)

    def copied(results: Any) -> Any:
        return [each.clone() for each in results]

    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    monkeypatch.setattr("tundish.staging.apart", copied)
    model = Recorded()
    model.load("cpu")
    tune(model, device)
    first = model.predict(Batch([2, 4], Recorder(), range(2)))
    model.predict(Batch([6, 8], Recorder(), range(2)))
    assert [float(each) for each in first] == given


def test_what_torch_advises_where_it_compiles_for_a_gpu_fails_no_test(
    monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    from torch._inductor.compile_fx import _warn_tf32_disabled  # it takes seconds

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    with pytest.warns(UserWarning, match="TensorFloat32") as told:
        _warn_tf32_disabled.__wrapped__()
    ignored = [line.split(":")[1] for line in pytestconfig.getini("filterwarnings") if line.startswith("ignore:")]
    assert [any(re.match(each, str(warning.message)) for each in ignored) for warning in told] == [True]


class Around(torch.nn.Module):
    """An author's own."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: torch.Tensor) -> Any:
        return self.layer(input)


@pytest.mark.parametrize("around", [torch.nn.Sequential, Around])
def test_a_module_of_torch_or_of_an_author_is_compiled_and_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, around: Callable[[torch.nn.Module], torch.nn.Linear]
) -> None:
    class Compiled(Doubled):
        compile = True

        def load(self, device: str) -> None:
            super().load(device)
            self.layers = [around(self.layers[0])]

    graphs: list[torch.fx.GraphModule] = []
    eager = torch._dynamo.lookup_backend("eager")

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    assert run(Compiled, [1, 2, 3]) == [2, 4, 6]
    assert len(graphs) == 1


def test_each_of_many_modules_is_compiled_and_those_that_are_alike_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Many(Doubled):
        compile = True

        def load(self, device: str) -> None:
            self.layers = [torch.nn.Linear(width, 1) for width in (*range(1, 13), *range(1, 13))]

    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    model = Many()
    model.load("cpu")
    tune(model, "cpu")
    for layer in model.layers:
        layer(torch.ones(2, layer.in_features))
    assert len(graphs) == 12


@pytest.mark.parametrize(("device", "sizes"), [("cuda:0", [1, 1, 8, 8]), ("cpu", [])])
def test_what_is_recorded_is_recorded_anew_within_a_copy(
    monkeypatch: pytest.MonkeyPatch, device: str, sizes: list[int]
) -> None:
    class Recorded(Model[int, int]):
        """Each batch takes a second. It moves its weights itself, for there is no GPU."""

        version = "1"
        max_batch = 8
        memory = 1
        example = 1
        cuda_graphs = True
        ran: ClassVar[list[int]] = []

        def load(self, device: str) -> None:
            """Nothing to load."""

        def to(self, device: str) -> None:
            self.ran.clear()

        def predict(self, batch: Batch[int]) -> list[int | Reject]:
            self.ran.append(len(batch))
            clock.now += 1
            return list(batch)

    class There(Cpu):
        name = device

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    monkeypatch.setattr("workers.shelf.time", SimpleNamespace(monotonic=lambda: clock.now))
    models = [type(name, (Recorded,), {"name": name}) for name in "ab"]
    shelf = Shelf([Served(model) for model in models], There(), NO_ARTIFACTS, alone(1), host_budget=lambda: 2)
    shelf.fill()
    for target in (Target("b", "1"), Target("a", "1")):
        assert shelf.choose({target: Waiting(1.0, 0.0)}, 1e12, idle=True).targets == {target}
        shelf.drafted(target)
        with shelf.lend(target):
            ran = list(Recorded.ran)
    assert ran == sizes
    assert shelf.stock.entries[Target("a", "1")].copy_seconds == len(sizes)


def test_nothing_is_wrapped_where_nothing_is_asked_for() -> None:
    model = Doubled()
    model.load("cpu")
    tune(model, "cpu")
    assert "predict" not in vars(model)


@given(st.integers(1, 100), st.lists(st.integers(1, 100)))
def test_the_next_size_is_the_smallest_that_holds_them(count: int, sizes: list[int]) -> None:
    size = padded_size(count, sizes)
    assert size == count or size in sizes
    assert size >= count
    assert not any(count <= each < size for each in sizes)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("pinned", 1),
        ("half", "yes"),
        ("memory", 0),
        ("memory", "1 GB"),
        ("pad_to", 8),
        ("pad_to", (0,)),
        ("compile", 0),
    ],
)
def test_an_option_that_cannot_be_used_is_named(attribute: str, value: object) -> None:
    wrong = type("Wrong", (Doubled,), {attribute: value})
    with pytest.raises(DefinitionError, match=f"{attribute} is {value!r}".replace("(", r"\(").replace(")", r"\)")):
        check(wrong)
