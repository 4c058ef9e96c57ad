"""Wide residual networks for images of 32 x 32 pixels (Zagoruyko & Komodakis 2016).

WRN-d-k of the paper has d convolutions and k times the width of a plain residual network. In each
block, normalisation and activation come before the convolutions (section 2), and dropout between
the two convolutions (section 2.4).
"""

import torch
from torch import Tensor, nn

STAGES = ((16, 1), (32, 2), (64, 2))
"""Channels, before widening, and stride of each of the three groups (table 1)."""
FIRST = 16
"""Channels of the first convolution."""


class Block(nn.Module):
    """B(3, 3): two convolutions of 3 x 3 and a shortcut.

    Args:
        inputs, outputs: number of channels.
        stride: stride of the first convolution.
        dropout: dropout probability between the two convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.around = None if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        active = torch.relu(self.norm1(x))
        around = x if self.around is None else self.around(active)
        y = self.conv1(active)
        y = self.conv2(self.dropout(torch.relu(self.norm2(y))))
        result: Tensor = y + around
        return result


class WideResNet(nn.Module):
    """WRN-`depth`-`width`: WRN-16-4 has 2.8 million weights, WRN-10-1 has 77,850.

    Args:
        depth: number of convolutions, 6 n + 4.
        width: factor for the channels of all groups.
        classes: number of classes.
        dropout: dropout probability within each block.

    Raises:
        ValueError: `depth` or `width` is invalid.
    """

    def __init__(self, depth: int, width: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise ValueError(f"depth {depth}: must be 6 n + 4, such as 10, 16, 22, 28 or 40")
        if width < 1:
            raise ValueError(f"width {width}: must be 1 at least")
        layers: list[nn.Module] = [nn.Conv2d(3, FIRST, 3, padding=1, bias=False)]
        channels = FIRST
        for base, stride in STAGES:
            for number in range(blocks):
                outputs = base * width
                layers.append(Block(channels, outputs, stride if number == 0 else 1, dropout))
                channels = outputs
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.classify = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classify.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Shape (n, 3, h, w) to logits of shape (n, classes)."""
        x = torch.relu(self.norm(self.layers(images)))
        logits: Tensor = self.classify(x.mean((2, 3)))
        return logits

    def set_dropout(self, dropout: float) -> None:
        """Change the dropout probability within each block."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
