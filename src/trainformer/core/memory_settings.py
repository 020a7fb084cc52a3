"""Settings of the loop that make room for a large model."""

from trainformer.core.component import Component


class MemorySettings(Component):
    """What is given up for memory: time, or that every process holds the whole model."""

    recompute: bool = False
    """Keep what goes into each layer and compute the rest again for the backward pass (Chen et al. 2016, arXiv:1604.06174)."""
    shard: bool = False
    """Spread weights, gradients and optimiser over the processes of torchrun (Rajbhandari et al. 2020, arXiv:1910.02054)."""
