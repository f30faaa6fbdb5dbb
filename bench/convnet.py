"""A convolutional net of the size of ResNet-50 (He et al. 2015) in plain torch, with random weights: an image of 224 by
224 as uint8 npy in, 1,000 numbers as npy out. Half precision on a GPU, single on a CPU."""

import io
from collections.abc import Sequence
from typing import TypeAlias

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tundish import Batch, Model, Reject

Image: TypeAlias = NDArray[numpy.uint8]

SIDE = 224
CLASSES = 1_000
#: Blocks of each stage, and their inner width; a block gives four times that.
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
#: Mean and deviation of ImageNet's colours.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Narrow, look around, widen; added to what came in."""

    def __init__(self, given: int, inner: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inner
        self.way = nn.Sequential(
            *_convolution(given, inner, 1),
            nn.ReLU(inplace=True),
            *_convolution(inner, inner, 3, stride),
            nn.ReLU(inplace=True),
            *_convolution(inner, wide, 1),
        )
        same = given == wide and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(given, wide, 1, stride))

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.way(image) + self.shortcut(image))


def _convolution(given: int, wanted: int, side: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(given, wanted, side, stride, padding=side // 2, bias=False)
    return convolution, nn.BatchNorm2d(wanted)


def net() -> nn.Sequential:
    """25.6 million weights."""
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1)]
    width = 64
    for stage, (blocks, inner) in enumerate(STAGES):
        for number in range(blocks):
            layers.append(Block(width, inner, 2 if stage and not number else 1))
            width = 4 * inner
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


class Convnet(Model[Image, Tensor]):
    name = "convnet"
    version = "1"
    max_batch = 128

    def load(self, device: str) -> None:
        torch.manual_seed(1)
        kind = torch.float16 if device.startswith("cuda") else torch.float32
        self.net = net().eval().to(device, kind)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stubs leave it out
        self.mean, self.deviation = (
            torch.tensor(each, device=device, dtype=kind).view(1, 3, 1, 1) * 255 for each in (MEAN, DEVIATION)
        )

    def collate(self, items: Sequence[Image]) -> Tensor:
        """The images that fit, as bytes, for so they take the bus: (images, SIDE, SIDE, 3)."""
        fitting = [item for item in items if _fits(item)]
        return torch.from_numpy(numpy.stack(fitting)) if fitting else torch.empty(0, SIDE, SIDE, 3)

    @torch.inference_mode()
    def predict(self, batch: Batch[Image]) -> list[Tensor | Reject]:
        refused = Reject(f"the image is not uint8 of {SIDE} by {SIDE} by 3")
        scores = iter(self._scores(batch.collated) if len(batch.collated) else ())
        return [next(scores) if _fits(item) else refused for item in batch]

    def _scores(self, bytes_: Tensor) -> Sequence[Tensor]:
        # The last axis becomes the second, which is channels_last already.
        pixels = bytes_.permute(0, 3, 1, 2).to(self.mean.dtype)
        return self.net((pixels - self.mean) / self.deviation).half().unbind()  # type: ignore[no-any-return]


def _fits(image: Image) -> bool:
    return image.dtype == numpy.uint8 and image.shape == (SIDE, SIDE, 3)


def bodies(count: int) -> list[bytes]:
    """Images of noise, a few of them over and over."""
    chance = numpy.random.default_rng(5)
    different = [_npy(chance.integers(0, 256, (SIDE, SIDE, 3), numpy.uint8)) for _ in range(min(count, 64))]
    return [different[number % len(different)] for number in range(count)]


def _npy(image: Image) -> bytes:
    file = io.BytesIO()
    numpy.save(file, image)
    return file.getvalue()
