"""The optimizers: their papers, their state, which parameters they treat how, and the papers' constants.

    adamw      Loshchilov & Hutter, arXiv:1711.05101, algorithm 2; epsilon outside the root
    onebit     compression of adamw's: 1-bit Adam, Tang et al., arXiv:2102.02888, algorithm 1, with the differences below
    sgd        momentum as in Goyal et al., arXiv:1706.02677, eq. 9; weight decay is part of the gradient
    lars       You, Gitman & Ginsburg, arXiv:1708.03888, algorithm 1: momentum of steps, learning rate included
    lamb       You et al., arXiv:1904.00962, algorithm 2, with the identity as phi
    adafactor  Shazeer & Stern, arXiv:1804.04235, algorithms 4 and 5: no first moment, factored second moments of
               matrices, updates clipped by their RMS, steps relative to the RMS of the parameter

Weight decay is not applied to biases, gains and the learned positions; the token embedding, which is also the output
projection, decays like any matrix. The trust ratios of LARS and LAMB are not applied to biases and gains, whose norms
do not tell how far they may move (nor do the papers' reference implementations); embeddings have ratios. Queries, keys
and values of a block are one matrix and have one ratio. A ratio is 1 unless both of its norms are above 0.

1-bit Adam freezes second moments after some updates of Adam, and each rank then sends the signs of its first moment m = beta1 m + (1 - beta1) g,
with a scale. A sign is never 0, so an element with hardly a gradient gets the scale of the others: the biases of keys, whose gradients
are rounding errors, were moved by 100 in 40 steps of `tiny`. So what is sent here is m over the root of the frozen second moment (bias
correction included, as at the update before), and epsilon: the step that Adam would take, of which all elements are of one size. As the root no longer
changes, that is the same recursion in other units: u = beta1 u + (1 - beta1) g / root. A gradient that its second moment does not know of makes
no larger step than Adam's would be, whose second moment would have it in it: g / root counts as at most 1 / sqrt(1 - beta2) (`largest_share`).
Elements that had hardly a gradient before do not move: those whose second moment is below LEAST_SECOND_MOMENT of the mean of their parameter's. Each rank clips its own gradients
by the norm of its own, before that; what all ranks together had is not known.

`epsilon` of Adafactor is the square root of its epsilon_1. The paper's 1e-30 (an epsilon of 1e-15) makes full-size updates
from rounding errors where the true gradient is 0, as that of the keys' biases is in every framework; with 1e-8 such
elements move as little as with AdamW.
"""

from __future__ import annotations

from hvbench.spec.optimizer import OPTIMIZERS
from hvbench.spec.point import Point
from hvbench.training.weights import Shape, trained_shapes

EMBEDDINGS = ("token_embedding", "position_embedding", "segment_embedding", "embedding_norm")  # below the first block
ADAFACTOR_DECAY_EXPONENT = 0.8  # of the second moment's decay 1 - t^-0.8 (section 7.2)
ADAFACTOR_CLIP_THRESHOLD = 1.0  # d: largest RMS of an update before it is scaled (section 6)
ADAFACTOR_LEAST_SCALE = 1e-3  # epsilon_2: a parameter's RMS counts as at least so much (section 8)
LEAST_SECOND_MOMENT = (
    1e-10  # of the mean of a parameter's: below are squares of rounding errors in float32, as those of the keys' biases
)

Slots = dict[str, dict[str, Shape]]


def is_adapted(name: str) -> bool:
    """Whether LARS and LAMB scale this parameter's step by its trust ratio: every parameter except biases and gains."""
    return not name.endswith((".bias", ".gain"))


def rate_factor(point: Point, name: str) -> float:
    """What a parameter's learning rate is of the schedule's: layer_lr_decay to the power of its depth below the head.

    The discriminative rates of ULMFiT (Howard & Ruder, arXiv:1801.06146, section 3.2), whose factor from one layer to the next below is
    1 / 2.6, and ELECTRA's layer-wise decay (arXiv:2003.10555, appendix B). The last block has depth 1, the embeddings lie one below the
    first; a token embedding that is also the output projection counts as an embedding.
    """
    block = name.partition(".")[0]
    if block.startswith("block"):
        depth = point.num_layers - int(block.removeprefix("block"))
    else:
        depth = point.num_layers + 1 if block in EMBEDDINGS else 0
    return point.layer_lr_decay**depth


def largest_share(point: Point) -> float:
    """The most that an element's gradient is of its unbiased second moment's root where that moment has it in it: 1 / sqrt(1 - beta2)."""
    return (1 - point.beta2) ** -0.5


def is_factored(shape: Shape) -> bool:
    """Whether Adafactor keeps means of rows and columns instead of all second moments: for matrices."""
    return len(shape) == 2


def state_shapes(point: Point) -> Slots:
    """Slot -> canonical name -> shape: the state of the point's optimizer, of what trains, except the number of updates."""
    shapes = trained_shapes(point)
    optimizer = OPTIMIZERS[point.optimizer]
    if optimizer.keeps_only_with_momentum and not point.momentum:
        return {}
    if not optimizer.is_factored:
        return dict.fromkeys(optimizer.slots, shapes)
    matrices = {name: shape for name, shape in shapes.items() if is_factored(shape)}
    return {
        "row_moments": {name: (rows,) for name, (rows, _) in matrices.items()},
        "column_moments": {name: (columns,) for name, (_, columns) in matrices.items()},
        "second_moments": {name: shape for name, shape in shapes.items() if name not in matrices},
    }
