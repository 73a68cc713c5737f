"""What lets XTuner 0.2.0 start where there is no GPU. train.py puts this folder on PYTHONPATH there, and only there.

XTuner asks torch.cpu for bfloat16 support (there is no such function), calls torch.cuda.set_device, and imports
torchvision, whose registry wheel is a CUDA build that breaks on a CPU torch, for image models that are not used here.
"""

import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch


def stub(name: str) -> ModuleType:
    """An importable empty module: a spec for find_spec, and no metadata, so that transformers takes it as absent."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    sys.modules[name] = module
    return module


if not torch.cuda.is_available():
    torch.cpu.is_bf16_supported = lambda *_, **__: True
    torch.cuda.set_device = lambda *_, **__: None
    vision, transforms = stub("torchvision"), stub("torchvision.transforms")
    functional = stub("torchvision.transforms.functional")
    vision.__version__, vision.transforms, transforms.functional = "0+stub", transforms, functional
    transforms.InterpolationMode = functional.InterpolationMode = type("InterpolationMode", (), {})
    # DeepSpeed would compile a shared-memory operator for a minute; gloo does without. Only its workers pay the import.
    if "--deepspeed" in sys.orig_argv and "LOCAL_RANK" in os.environ:
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # transformers 4.48 asks bitsandbytes for a GPU or Intel's extension; since 0.47 it computes 4 bits on any CPU.
    if "AGENT_R_QUANTIZED" in os.environ and "xtuner.tools" in " ".join(sys.orig_argv):
        import transformers.integrations.bitsandbytes

        transformers.integrations.bitsandbytes._validate_bnb_multi_backend_availability = lambda *_, **__: (
            True
        )
