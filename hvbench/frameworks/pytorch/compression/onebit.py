"""Momenta as signs in PyTorch, with a scale for each bucket of values: 1-bit Adam."""

from __future__ import annotations

import horovod.torch as hvd
import torch

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.pytorch.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.pytorch.operations import start_gather, start_parts, start_reduction, wait
from hvbench.spec.point import Point
from hvbench.training.compression import PACKING, SIGNS, SIGNS_IN_A_BYTE, MomentumLayout, momentum_layout, own_part

_PARTS = "part_residuals/"


class OneBitAllReduce(FeedbackAllReduce):
    """Average gradients as they are, and momenta as signs: a reduce-scatter and an all-gather, the two halves of a ring all-reduce.

    Each rank receives all ranks' signs of its part of every momentum (all-to-all), averages what they stand for and makes signs of the
    average again; then all parts are gathered. `part_residuals` are what these second signs have yet to send of this rank's parts.
    """

    def __init__(self, point: Point, *, rank: int, device: str) -> None:
        super().__init__(point, rank=rank, device=device)
        self.signs = torch.from_numpy(SIGNS).to(device)
        self.layouts = {name: momentum_layout(value.numel(), point) for name, value in self.residuals.items()}
        self.bucket_sizes = {
            name: torch.from_numpy(layout.bucket_sizes).to(device) for name, layout in self.layouts.items()
        }
        self.part_residuals = {
            name: torch.zeros(layout.filled_length, device=device) for name, layout in self.layouts.items()
        }

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin to average one gradient, uncompressed."""
        self.pending[name] = (start_reduction(name, gradient, op=hvd.Average),)

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for all that were started; canonical name -> average."""
        averages = {name: wait(handle) for name, (handle,) in self.pending.items()}
        self.pending = {}
        return averages

    def average_momenta(self, momenta: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Canonical name -> average of what all ranks send of their momenta, where these lay; whether all are finite, the same on all ranks.

        All momenta are one message.
        """
        widths = [self.layouts[name].message_bytes for name in momenta]
        parts = torch.cat([self._send(name, value) for name, value in momenta.items()], 1)
        received = wait(start_parts("momenta.parts", parts.view(-1))).view(self.world_size, -1).split(widths, 1)
        averages = torch.cat([self._send_part(*each) for each in zip(momenta, received, strict=True)], 1)
        gathered = wait(start_gather("momenta.averages", averages)).split(widths, 1)
        are_finite = []
        for (name, value), messages in zip(momenta.items(), gathered, strict=True):
            layout = self.layouts[name]
            values = self._decode(layout, messages)[:, : layout.length].reshape(-1)
            value.copy_(values[: value.numel()].view_as(value))
            are_finite.append(_scales(layout, messages).isfinite().all())
        return momenta, torch.stack(are_finite).all()

    def _send(self, name: str, momentum: torch.Tensor) -> torch.Tensor:
        """The messages [ranks, bytes] of one momentum with what was left of it before; keeps what they leave."""
        layout, residual = self.layouts[name], self.residuals[name].view(-1)
        residual += momentum.view(-1)
        parts = _fill(residual, self.world_size * layout.length).view(self.world_size, -1)
        parts = _fill(parts, layout.filled_length)
        message, sent = _encode(layout, parts, self.bucket_sizes[name])
        residual -= sent[:, : layout.length].reshape(-1)[: residual.numel()]
        return message

    def _send_part(self, name: str, received: torch.Tensor) -> torch.Tensor:
        """The message [1, bytes] of the average of this rank's part of one momentum, with what was left of it before."""
        layout, residual = self.layouts[name], self.part_residuals[name]
        residual += self._decode(layout, received).mean(0)
        own = own_part(layout.values, rank=self.rank, world_size=self.world_size)
        residual[own.stop - own.start :] = 0.0  # of what fills the part up
        message, sent = _encode(layout, residual[None], self.bucket_sizes[name][self.rank, None])
        residual -= sent[0]
        residual[own.stop - own.start :] = 0.0
        return message

    def _decode(self, layout: MomentumLayout, messages: torch.Tensor) -> torch.Tensor:
        """The values [ranks, filled length] that messages [ranks, bytes] stand for."""
        bits = messages[:, : layout.sign_bytes].flatten().int()
        signs = self.signs.index_select(0, bits).view(len(messages), -1)
        signs = _fill(signs, layout.filled_length).view(len(messages), -1, layout.bucket)
        return signs.mul_(_scales(layout, messages)[:, :, None]).flatten(1)

    def state(self) -> Arrays:
        """`residuals/NAME`, and `part_residuals/NAME`: what the averages of this rank's part have yet to send."""
        parts = {f"{_PARTS}{name}": value.cpu().numpy().copy() for name, value in self.part_residuals.items()}
        return super().state() | parts

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`. Raises KeyError where an array is missing."""
        super().load_state(state)
        for name, value in self.part_residuals.items():
            value.copy_(torch.from_numpy(state[f"{_PARTS}{name}"]))


def _encode(layout: MomentumLayout, values: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values [parts, filled length] -> messages [parts, bytes]: signs, then scales; and the values that these stand for.

    Scales are summed in float64, so that they do not depend on the order.
    """
    buckets = values.view(len(values), -1, layout.bucket)
    scales = (buckets.abs().sum(2, dtype=torch.float64) / sizes).float()
    are_positive = buckets >= 0
    packed = (are_positive.view(torch.int64) * PACKING).view(torch.uint8).view(len(values), -1)
    bits = packed[:, SIGNS_IN_A_BYTE - 1 :: SIGNS_IN_A_BYTE][:, : layout.sign_bytes]
    signs = are_positive.float().mul_(2.0).sub_(1.0)  # `where` with scales that are broadcast takes four times as long
    sent = signs.mul_(scales[:, :, None])
    return torch.cat([bits, scales.view(torch.uint8)], 1), sent.view_as(values)


def _fill(values: torch.Tensor, length: int) -> torch.Tensor:
    """Values [..., length], with zeros behind those that there are; the same tensor where there are as many."""
    missing = length - values.shape[-1]
    return torch.nn.functional.pad(values, (0, missing)) if missing else values


def _scales(layout: MomentumLayout, messages: torch.Tensor) -> torch.Tensor:
    """The scales [parts, buckets] in messages [parts, bytes]."""
    return messages[:, layout.sign_bytes :].contiguous().view(torch.float32)
