"""What only a GPU can show. Where there is none, each of these tests is skipped."""

import pytest
import torch


@pytest.fixture(autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
