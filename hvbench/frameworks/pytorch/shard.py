"""What the ranks share in PyTorch (ZeRO, arXiv:1910.02054): averages of parts of gradients, all-gathers of parameters, norms of parts.

`Shards` takes the place of the all-reduce: `start(name, gradient)`, called as soon as a gradient is final, and `finish()`, which returns
this rank's parts of the averages. `hvbench.spec.shard` says what is shared, `hvbench.training.parts` how arrays are cut.

Averages are an all-to-all and a mean on each rank, and not Horovod's reduce-scatter, which sends as much: over Gloo that copies a rank's result
to where it still sends from, and on three ranks averages were wrong (docs/communication.md).
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import horovod.torch as hvd
import numpy as np
import torch

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.pytorch.layers import Layers
from hvbench.frameworks.pytorch.norms import exact_norms
from hvbench.frameworks.pytorch.operations import start_gather, start_parts, start_reduction, wait
from hvbench.frameworks.pytorch.optimizer import Optimizer, make_optimizer
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.optimizers import state_shapes
from hvbench.training.parts import WINDOW_BYTES, group_by_window, part_size, take_part

WIRE_DTYPES = {"none": None, "fp16": torch.float16, "bf16": torch.bfloat16}  # None: the gradients' own
_ROW = 1024  # values of which a norm is taken in their own dtype


class _Sent(NamedTuple):
    """A gradient whose parts are being sent."""

    name: str
    handle: int
    dtype: torch.dtype  # of the gradient
    size: int  # bytes


class Shards:
    """This rank's parts of what trains, by canonical name: `parts` of the parameters [k] is what the optimizer updates."""

    def __init__(self, point: Point, parameters: dict[str, torch.nn.Parameter], *, rank: int, world_size: int) -> None:
        self.mode = SHARDS[point.shard]
        self.rank = rank
        self.world_size = world_size
        self.wire_dtype = WIRE_DTYPES[point.compression]
        self.shapes = {name: tuple(value.shape) for name, value in parameters.items()}
        self.sizes = {name: part_size(shape, world_size=world_size) for name, shape in self.shapes.items()}
        self.pending: deque[_Sent] = deque()
        self.sent: set[str] = set()  # their names, which Horovod takes once at a time
        self.sums: dict[str, torch.Tensor] = {}  # of the passes so far: this rank's parts
        self.wholes: dict[
            str, torch.Tensor
        ] = {}  # [n k]: the memory of the parameters, and of `parts`, which are views of it
        self.parts: dict[str, torch.Tensor] = {}
        for name, value in parameters.items():
            whole = self._padded(value.detach())
            if self.mode.of_parameters:
                self.parts[name] = torch.nn.Parameter(whole[self._own(name)].clone())
                continue
            self.wholes[name] = whole = whole.clone()
            value.data = self._unpadded(name, whole)
            self.parts[name] = whole[self._own(name)]
        self.sends = True  # whether gradients of gathered parameters are reduced; else this rank's own are kept whole
        self.kept: dict[str, torch.Tensor] = {}

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin to send every rank its part of one gradient."""
        while self.pending and (name in self.sent or self._is_crowded(gradient) or hvd.poll(self.pending[0].handle)):
            self._collect()  # what has been reduced is freed while the others are sent
        wire = self._padded(gradient).to(self.wire_dtype or gradient.dtype)
        wire = wire.view(torch.float16) if wire.dtype == torch.bfloat16 else wire  # Horovod only copies the bits
        handle = start_parts(f"{name}.parts", wire)
        self.pending.append(_Sent(name, handle, gradient.dtype, gradient.nbytes))
        self.sent.add(name)

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for all that were started; canonical name -> this rank's part [k] of the average, of several passes their sum."""
        while self.pending:
            self._collect()
        parts = {name: self.sums[name] for name in self.shapes if name in self.sums}
        self.sums = {}
        return parts

    def take(self, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """This rank's parts [k] of whole tensors; nothing is sent."""
        return {name: self._padded(value)[self._own(name)] for name, value in gradients.items()}

    def gather(self, parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Every rank's parts [k] -> the whole tensors, on all ranks."""
        return {name: self._unpadded(name, whole) for name, whole in self._gather(parts)}

    def take_kept(self) -> dict[str, torch.Tensor]:
        """This rank's own gradients of gathered parameters, whole, which were not sent; they are kept no longer."""
        kept, self.kept = self.kept, {}
        return {name: kept[name] for name in self.shapes if name in kept}

    def gather_parameters(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Whole parameters, whose gradients are reduced into this rank's parts."""
        handles = {name: start_gather(f"{name}.whole", self.parts[name].detach()) for name in names}
        return {
            name: _Gathered.apply(self.parts[name], self, name, self._unpadded(name, wait(handle)))
            for name, handle in handles.items()
        }

    def receive(self, name: str, gradient: torch.Tensor) -> None:
        """Take the gradient of a gathered parameter, one of each time that it was used."""
        if self.sends:
            self.start(name, gradient)
        else:
            self.kept[name] = self.kept[name] + gradient if name in self.kept else gradient

    def spread(self) -> None:
        """Give all ranks the parameters of which each has updated its part, unless they are gathered when they are used."""
        for name, whole in self._gather(self.parts if self.wholes else {}):
            self.wholes[name].copy_(whole)

    def join(self, state: Arrays) -> Arrays:
        """The optimizer's state of parts [k], `SLOT/NAME`, as whole arrays; all ranks call it."""
        return {key: self._join(key, value) for key, value in state.items()}

    def cut(self, state: Arrays) -> Arrays:
        """What `join` returns -> this rank's parts."""
        choices = {"rank": self.rank, "world_size": self.world_size}
        return {
            key: take_part(value, **choices) if _named(key) in self.shapes else value for key, value in state.items()
        }

    def load(self, state: Arrays) -> None:
        """Take this rank's parts of the parameters from `state`, `parameters/NAME`."""
        for name, part in self.parts.items():
            own = take_part(state[f"parameters/{name}"], rank=self.rank, world_size=self.world_size)
            part.detach().copy_(torch.from_numpy(own))

    def global_norm(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """L2 norm of all of `parts` together, of all ranks, in float64."""
        return self._sum_over_ranks(_squares(parts).sum()[None])[0].sqrt()

    def measure_norms(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        """L2 norm of each tensor of which `parts` are this rank's, rounded to its dtype."""
        norms = self._sum_over_ranks(_squares(parts)).sqrt()
        return [norm.to(part.dtype) for norm, part in zip(norms, parts, strict=True)]

    def _collect(self) -> None:
        name, handle, dtype, _ = self.pending.popleft()
        parts = wait(handle)  # of all ranks, one behind the other
        parts = parts.view(self.wire_dtype or dtype).view(self.world_size, -1)
        part = parts.to(dtype).mean(dim=0)
        self.sent.remove(name)
        self.sums[name] = self.sums[name].add_(part) if name in self.sums else part

    def _is_crowded(self, gradient: torch.Tensor) -> bool:
        """Whether a backward pass is so far ahead of the wire that gradients would pile up where only parts should be kept."""
        return self.mode.of_gradients and sum(each.size for each in self.pending) + gradient.nbytes > WINDOW_BYTES

    def _gather(self, parts: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and whole tensors [n k], some of them at a time."""
        for window in group_by_window({name: self.world_size * part.nbytes for name, part in parts.items()}):
            handles = {name: start_gather(f"{name}.whole", parts[name]) for name in window}
            for name in window:
                yield name, wait(handles.pop(name))

    def _join(self, key: str, value: np.ndarray) -> np.ndarray:
        name = _named(key)
        if name not in self.shapes:
            return value
        whole = wait(start_gather(f"{key}.whole", torch.from_numpy(value)))
        return self._unpadded(name, whole).numpy()

    def _sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        return wait(start_reduction(f"norms.{len(values)}", values, op=hvd.Sum))

    def _padded(self, value: torch.Tensor) -> torch.Tensor:
        """A tensor, flat, with zeros behind it [n k]; the same memory where none are needed."""
        padding = -value.numel() % self.world_size
        flat = value.reshape(-1)
        return torch.nn.functional.pad(flat, (0, padding)) if padding else flat

    def _unpadded(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        shape = self.shapes[name]
        return whole[: math.prod(shape)].view(shape)

    def _own(self, name: str) -> slice:
        return slice(self.rank * self.sizes[name], (self.rank + 1) * self.sizes[name])


class GatheredParameters(Mapping[str, torch.Tensor]):
    """A model's parameters by canonical name, of which each rank holds a part: whole while they are held, or for one use."""

    def __init__(self, shards: Shards, others: dict[str, torch.Tensor], names: Iterable[str]) -> None:
        self.shards = shards
        self.others = others  # that do not train, and are whole
        self.names = tuple(names)
        self.held: dict[str, torch.Tensor] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self.held:
            return self.held[name]
        return self.others[name] if name in self.others else self.shards.gather_parameters([name])[name]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @contextlib.contextmanager
    def hold(self, prefix: str, x: torch.Tensor) -> Iterator[None]:
        """Within it the parameters whose names begin so are whole, for what reads x."""
        names = [name for name in self.shards.shapes if name.startswith(prefix) and name not in self.held]
        self.held |= self.shards.gather_parameters(names)
        try:
            yield
        finally:
            for name in names:
                del self.held[name]


class _Gathered(torch.autograd.Function):
    """A gathered parameter as a function of this rank's part, whose gradient goes to all ranks' parts."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, shards: Shards, name: str, whole: torch.Tensor) -> torch.Tensor:
        ctx.shards, ctx.name = shards, name
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, ...]:
        ctx.shards.receive(ctx.name, gradient)
        return None, None, None, None


class _ZeroRedundancy:
    """PyTorch's own ZeroRedundancyOptimizer with the update rule of the point: each rank updates the tensors that it owns and sends them to the others.

    The interface of `hvbench.frameworks.pytorch.optimizer.Optimizer`; `slots` are of the tensors of this rank alone.
    """

    def __init__(self, parameters: dict[str, torch.nn.Parameter], *, point: Point) -> None:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        self.parameters = parameters
        self.shapes = state_shapes(point)
        self.spreads = True  # whether an update is sent to the other ranks
        names = {parameter: name for name, parameter in parameters.items()}
        rule = partial(_UpdateRule, names=names, point=point)
        self.zero = ZeroRedundancyOptimizer(list(parameters.values()), optimizer_class=rule, lr=0.0)
        self.own: Optimizer = self.zero.optim.rule

    @property
    def slots(self) -> dict[str, dict[str, torch.Tensor]]:
        """What this rank keeps."""
        return self.own.slots

    def update(self, gradients: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        """One update; `gradients`: canonical name -> gradient, averaged, unscaled and clipped, the same on all ranks."""
        for name, gradient in gradients.items():
            self.parameters[name].grad = gradient
        for optimizer in (self.zero, self.zero.optim):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        (self.zero if self.spreads else self.zero.optim).step()

    def state(self) -> Arrays:
        """The state of all ranks, as that of an optimizer that has it whole; all ranks call it."""
        state: Arrays = {"updates": np.array(self.own.updates, np.int64)}
        for slot, shapes in self.shapes.items():
            for name, shape in shapes.items():
                own = self.own.slots[slot].get(name)
                whole = self.parameters[name].new_zeros(shape) if own is None else own.clone()
                torch.distributed.all_reduce(whole)  # one rank has values, the others zeros
                state[f"{slot}/{name}"] = whole.detach().cpu().numpy()
        return state

    def reset(self) -> None:
        """Begin anew: no moments, no updates made."""
        self.own.reset()

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`, of which this rank takes its part. Raises KeyError where an array is missing."""
        self.own.load_state(state)


class _UpdateRule(torch.optim.Optimizer):
    """A point's optimizer as ZeroRedundancyOptimizer makes and steps it, for the tensors that it gives to this rank."""

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, names: dict[torch.nn.Parameter, str], point: Point
    ) -> None:
        super().__init__(groups, {"lr": lr})
        owned = {names[each] for group in groups for each in group["params"]}
        self.own = {name: each for each, name in names.items() if name in owned}  # in the order of the model's
        self.rule = make_optimizer(self.own, point=point)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        gradients = {name: parameter.grad for name, parameter in self.own.items()}
        if gradients:
            self.rule.update(gradients, learning_rate=self.param_groups[0]["lr"])
        else:
            self.rule.updates += 1


def make_shards(point: Point, model: Layers, *, rank: int, world_size: int) -> Shards | None:
    """What the ranks of `point` share of a model, whose parameters it takes from it if those are shared; None where each rank holds everything."""
    if not point.is_sharded or point.shares_by_itself:
        return None
    shards = Shards(point, model.trained, rank=rank, world_size=world_size)
    if shards.mode.of_parameters:
        others = {name: value for name, value in model.parameters.items() if name not in model.trained}
        model.parameters = GatheredParameters(shards, others, model.parameters)
        model.trained = shards.parts
    return shards


def _squares(parts: list[torch.Tensor]) -> torch.Tensor:
    """Squares of the L2 norms [len(parts)] in float64, each from norms of rows in the part's dtype."""
    rows = [part[: len(part) // _ROW * _ROW].view(-1, _ROW) for part in parts]
    rests = [part[len(part) // _ROW * _ROW :] for part in parts]
    return torch.stack(exact_norms(rows)).square() + torch.stack(exact_norms(rests)).square()


def _named(key: str) -> str:
    """The canonical name in `SLOT/NAME`."""
    return key.partition("/")[2]
