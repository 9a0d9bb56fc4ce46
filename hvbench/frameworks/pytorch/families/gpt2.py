"""GPT-2 in PyTorch: layer norms, learned positions, GELU (Radford et al., 2019).

Shapes: B micro-batch, T sequence length, H heads, Q head size, W = H·Q hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hvbench.frameworks.pytorch.layers import Layers, mean_of_tokens

_STRIP_ROWS = 512  # of a layer norm's gradients that are added one after the other


def embed(layers: Layers, inputs: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor:
    """Tokens [B, T] -> their embeddings plus those of their positions [B, T, W]."""
    T, positions = inputs.shape[1], layers.parameters["position_embedding"]
    tokens = F.embedding(inputs, layers.parameters["token_embedding"])
    if starts is None:
        return tokens + positions[:T]
    return tokens + F.embedding(torch.arange(T, device=inputs.device) - starts, positions)


def rotations(layers: Layers, inputs: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor | None:
    """None: queries and keys know positions from the residual stream."""
    return None


def norm(layers: Layers, x: torch.Tensor, name: str) -> torch.Tensor:
    """Layer norm of x [B, T, W] over W (Ba, Kiros & Hinton, arXiv:1607.06450)."""
    gain, bias = layers.parameters[f"{name}.gain"], layers.parameters[f"{name}.bias"]
    epsilon = layers.traits.norm_epsilon
    if x.device.type == "cpu" and layers.point.compile == "none" and x.numel() > 2 * _STRIP_ROWS * x.shape[-1]:
        return _LayerNorm.apply(x, gain, bias, epsilon)
    return F.layer_norm(x, (x.shape[-1],), gain, bias, eps=epsilon)


def finish(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """The last norm [B, T, W]."""
    return norm(layers, x, "final_norm")


def pool(layers: Layers, x: torch.Tensor, starts: torch.Tensor | None, places: torch.Tensor | None) -> torch.Tensor:
    """The mean of the last norm over positions that are no padding: [B, T, W] -> [samples, W].

    Gain and bias are applied after the mean, so that their gradients are sums of B rows. Before the mean they would be
    sums of B·T rows of which T at a time are equal, and float32 rounding errors of such a sum all go the same way.
    """
    normal = mean_of_tokens(F.layer_norm(x, (x.shape[-1],), eps=layers.traits.norm_epsilon), starts, places)
    return normal * layers.parameters["final_norm.gain"] + layers.parameters["final_norm.bias"]


def split_heads(
    layers: Layers, qkv: torch.Tensor, rotation: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [B, T, 3 W] of all heads, one behind the other -> each [B, H, T, Q]."""
    B, T, _ = qkv.shape
    # Not q, k, v = qkv[0], …: the gradient of every index is a tensor of qkv's size, mostly zeros.
    q, k, v = qkv.view(B, T, 3, layers.point.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
    return q, k, v


def mlp(layers: Layers, x: torch.Tensor, name: str) -> torch.Tensor:
    """down(activate(up(x)))."""
    return layers.linear(activate(layers, layers.linear(x, f"{name}.up")), f"{name}.down")


def activate(layers: Layers, x: torch.Tensor) -> torch.Tensor:
    """GELU, exact or by its tanh form (Hendrycks & Gimpel, arXiv:1606.08415), or ReLU."""
    if layers.point.activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if layers.point.activation == "gelu_tanh" else "none")


class _LayerNorm(torch.autograd.Function):
    """F.layer_norm on a CPU, whose gradients of gain and bias are summed in strips of rows, and then the strips' sums.

    PyTorch's kernel adds one row after the other. Rounding errors of that grow with √N: 1.4e-6 of a gain's gradient after
    8,192 rows, where sums of sums are off by 2e-7.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor, epsilon: float) -> torch.Tensor:
        y, mean, inverse_deviation = torch.native_layer_norm(x, (x.shape[-1],), gain, bias, epsilon)
        ctx.save_for_backward(x, mean, inverse_deviation, gain, bias)
        return y

    @staticmethod
    def backward(ctx, dy: torch.Tensor):
        x, mean, inverse_deviation, gain, bias = ctx.saved_tensors
        width, (needs_x, *needs) = x.shape[-1:], ctx.needs_input_grad[:3]
        gradients = torch.ops.aten.native_layer_norm_backward
        whole = [True, False, False]
        d_x = gradients(dy, x, width, mean, inverse_deviation, gain, bias, whole)[0] if needs_x else None
        if not any(needs):
            return d_x, None, None, None
        strips = zip(
            *(value.reshape(-1, *width).split(_STRIP_ROWS) for value in (dy, x)),
            *(value.reshape(-1, 1).split(_STRIP_ROWS) for value in (mean, inverse_deviation)),
            strict=True,
        )
        sums = [
            gradients(d, rows, width, means, inverses, gain, bias, [False, *needs])[1:]
            for d, rows, means, inverses in strips
        ]
        d_gain, d_bias = (
            torch.stack(parts).sum(dim=0) if is_needed else None
            for parts, is_needed in zip(zip(*sums, strict=True), needs, strict=True)
        )
        return d_x, d_gain, d_bias, None
