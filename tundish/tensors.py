"""Codecs of arrays and tensors: npy for one, safetensors for a dictionary of them. numpy and torch are imported only
where a type comes from them.

Both formats carry a header that says how much follows; neither is believed before it was held against the body.
"""

import io
from typing import Any, get_args, get_origin

from tundish.artifact.safetensors import header_length
from tundish.codec import Codec, DecodeError, EncodeError
from tundish.media import NPY, SAFETENSORS

#: Bytes of a safetensors header: some ten thousand tensors.
HEADER_MAX = 1 << 20


def tensors_codec(type_: Any) -> Codec | None:
    """For `numpy.ndarray`, `torch.Tensor`, and dictionaries of either by `str`; None for other types."""
    if library := _library(type_):
        return _Npy(torch=library == "torch")
    if get_origin(type_) is dict:
        key, value = get_args(type_)
        if key is str and (library := _library(value)):
            return _Safetensors(torch=library == "torch")
    return None


def _library(type_: Any) -> str | None:
    """Of an array type; `numpy.typing.NDArray[...]` is an alias of one."""
    module = str(getattr(get_origin(type_) or type_, "__module__", "")).partition(".")[0]
    return module if module in ("numpy", "torch") else None


class _Npy(Codec):
    content_type = NPY

    def __init__(self, torch: bool) -> None:
        self._torch = torch

    def decode(self, body: bytes) -> Any:
        import numpy

        try:
            array = numpy.load(io.BytesIO(body), allow_pickle=False)
        except Exception as error:  # a header is read by Python's own tokenizer, and may raise all that it raises
            raise DecodeError(f"not an npy file: {error}") from error
        if not isinstance(array, numpy.ndarray):
            raise DecodeError("an npz archive, not an npy file")
        if not self._torch:
            return array
        import torch

        try:
            return torch.from_numpy(array)
        except (TypeError, ValueError) as error:
            raise DecodeError(str(error)) from error

    def encode(self, value: Any) -> bytes:
        import numpy

        try:
            array = value.detach().cpu().numpy() if self._torch and hasattr(value, "detach") else value
        except TypeError as error:  # bfloat16, which `half` computes in on a CPU, or no plain layout
            raise EncodeError(f"the output cannot be written as npy: {error}; give it as .float(), dense") from error
        if not isinstance(array, numpy.ndarray) or array.dtype.hasobject:
            raise EncodeError(f"the output is of type {type(value).__name__}, not an array of numbers")
        _check_finite(array)
        file = io.BytesIO()
        numpy.save(file, array, allow_pickle=False)
        return file.getvalue()


class _Safetensors(Codec):
    content_type = SAFETENSORS

    def __init__(self, torch: bool) -> None:
        self._torch = torch

    def decode(self, body: bytes) -> Any:
        try:
            header_length(body[:8], len(body), HEADER_MAX)
            if self._torch:
                import safetensors.torch

                return safetensors.torch.load(body)
            import safetensors.numpy

            return safetensors.numpy.load(body)
        except Exception as error:  # its own, and those of what makes arrays of it
            raise DecodeError(f"not a safetensors file: {error}") from error

    def encode(self, value: Any) -> bytes:
        from safetensors import SafetensorError

        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise EncodeError(f"the output is of type {type(value).__name__}, not a dictionary of tensors by name")
        try:
            return self._of_torch(value) if self._torch else self._of_numpy(value)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise EncodeError(f"the output cannot be written as safetensors: {error}") from error

    def _of_numpy(self, value: dict[str, Any]) -> bytes:
        import numpy
        import safetensors.numpy

        for name, array in value.items():
            if not isinstance(array, numpy.ndarray) or array.dtype.hasobject:
                raise EncodeError(f"the output's {name!r} is of type {type(array).__name__}, not an array of numbers")
            _check_finite(array)
        return bytes(safetensors.numpy.save({name: numpy.ascontiguousarray(array) for name, array in value.items()}))

    def _of_torch(self, value: dict[str, Any]) -> bytes:
        import safetensors.torch
        import torch

        whole: dict[str, torch.Tensor] = {}
        for name, tensor in value.items():
            if not isinstance(tensor, torch.Tensor):
                raise EncodeError(f"the output's {name!r} is of type {type(tensor).__name__}, not a tensor")
            # A copy of its own: tensors that share memory are not written.
            whole[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            wide = whole[name].float() if tensor.element_size() == 1 and tensor.is_floating_point() else whole[name]
            if not torch.isfinite(wide).all():
                raise EncodeError(f"the output's {name!r} holds NaN or an infinite number")
        return bytes(safetensors.torch.save(whole))


def _check_finite(array: Any) -> None:
    import numpy

    if array.dtype.kind in "fc" and not numpy.isfinite(array).all():
        raise EncodeError("the output holds NaN or an infinite number")
