"""Gradients in 8 bits in PyTorch, with a scale for each bucket of values, summed in float32."""

from __future__ import annotations

import torch

from hvbench.frameworks.pytorch.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.pytorch.operations import start_gather, start_parts, wait
from hvbench.training.compression import CODES, STEP, own_part, part_length


class Int8AllReduce(FeedbackAllReduce):
    """Average gradients that are sent as int8: a reduce-scatter and an all-gather, the two halves of a ring all-reduce.

    Each rank receives all ranks' values of its part of a gradient (all-to-all), averages them in float32 and rounds the average
    again; then all parts are gathered. What the second rounding loses concerns all ranks: the one that sums adds it, times their number,
    to its own residual.
    """

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin to send every rank its part of one gradient, filled up to a multiple of the number of ranks."""
        residual = self.residuals[name].view(-1)
        residual += gradient.view(-1)
        padding = self.world_size * part_length(residual.numel(), self.world_size) - residual.numel()
        parts = torch.nn.functional.pad(residual, (0, padding)).view(self.world_size, -1)
        codes, scales = self._quantize(parts)
        residual -= self._dequantize(codes, scales).view(-1)[: residual.numel()]
        self.pending[name] = (start_parts(f"{name}.parts", _pack(codes, scales)), gradient)

    def finish(self) -> dict[str, torch.Tensor]:
        """Average this rank's parts and gather all parts; canonical name -> average."""
        gathers = {}
        for name, (handle, gradient) in self.pending.items():
            mean = self._unpack(wait(handle), gradient.numel()).mean(0, keepdim=True)
            codes, scales = self._quantize(mean)
            own = own_part(gradient.numel(), rank=self.rank, world_size=self.world_size)
            lost = (mean - self._dequantize(codes, scales)).view(-1)[: own.stop - own.start]
            self.residuals[name].view(-1)[own] += self.world_size * lost
            gathers[name] = (start_gather(f"{name}.averages", _pack(codes, scales)), gradient)
        averages = {}
        for name, (handle, gradient) in gathers.items():
            values = self._unpack(wait(handle), gradient.numel()).view(-1)[: gradient.numel()]
            averages[name] = gradient.copy_(values.view_as(gradient))
        self.pending = {}
        return averages

    def _quantize(self, parts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Values [parts, length] -> int8 [parts, length], to nearest and ties to even, and the step of each bucket [parts, buckets]."""
        buckets = self._in_buckets(parts)
        scales = buckets.abs().amax(2) * STEP
        steps = torch.where(scales > 0, scales, 1.0)
        codes = (buckets / steps[:, :, None]).round().clamp(-CODES, CODES).to(torch.int8)
        return codes.view(len(parts), -1)[:, : parts.shape[1]], scales

    def _dequantize(self, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        """The values [parts, length] that these stand for."""
        values = self._in_buckets(codes).float() * scales[:, :, None]
        return values.view(len(codes), -1)[:, : codes.shape[1]].contiguous()

    def _in_buckets(self, parts: torch.Tensor) -> torch.Tensor:
        """Parts [parts, length] -> [parts, buckets, values], the last bucket filled up with zeros."""
        padding = -parts.shape[1] % self.point.int8_bucket
        return torch.nn.functional.pad(parts, (0, padding)).reshape(len(parts), -1, self.point.int8_bucket)

    def _unpack(self, message: torch.Tensor, values: int) -> torch.Tensor:
        """The values [ranks, length of a part] in what all ranks have sent of a gradient of so many `values`."""
        parts = message.view(self.world_size, -1)
        length = part_length(values, self.world_size)
        return self._dequantize(parts[:, :length], parts[:, length:].contiguous().view(torch.float32))


def _pack(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Bytes that are sent: of each part its values, then its scales."""
    return torch.cat([codes, scales.view(torch.int8)], 1).flatten()
