"""Patches with which XTuner 0.2.0 starts without a GPU. launcher.py puts this folder on PYTHONPATH only on such hosts.

XTuner asks torch.cpu for bfloat16 support (a function that does not exist), calls torch.cuda.set_device, and imports
torchvision for image models that are not used here; torchvision's registry wheel is a CUDA build that fails with a CPU
torch. Packages that only take time to import are left out too: a small model is trained in seconds.
"""

import gc
import os
import sys
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

gc.disable()  # what is imported here stays

import torch  # noqa: E402


def stub(name: str) -> ModuleType:
    """Return an empty module that can be imported. Without metadata, transformers takes the package as absent."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    sys.modules[name] = module
    above, _, last = name.rpartition(".")
    if above in sys.modules:
        setattr(sys.modules[above], last, module)
    return module


def leave_out(*names: str) -> None:
    """Put stubs in the place of modules whose names are imported and never used; each name is an empty exception."""
    for name in names:
        module = stub(name)
        module.__file__, module.__getattr__ = __file__, lambda name: type(name, (Exception,), {})


def light_torch() -> None:
    """Leave out torch's parts for several GPUs; they would import SymPy."""
    parts = ("fsdp", "fsdp.api", "fsdp.fully_sharded_data_parallel", "tensor", "tensor.parallel")
    leave_out(*(f"torch.distributed.{part}" for part in parts))
    sys.modules["torch.distributed.optim"] = None


if not torch.cuda.is_available():
    torch.cpu.is_bf16_supported = lambda *_, **__: True
    torch.cuda.set_device = lambda *_, **__: None
    vision, transforms = stub("torchvision"), stub("torchvision.transforms")
    functional = stub("torchvision.transforms.functional")
    vision.__version__ = "0+stub"
    transforms.InterpolationMode = functional.InterpolationMode = type("InterpolationMode", (), {})
    images = stub("skimage")  # for data sets with images; it would import SciPy
    images.io = stub("skimage.io")
    # mmengine formats the config for its log, and again for each checkpoint.
    layout, _, formatter = map(stub, ("yapf", "yapf.yapflib", "yapf.yapflib.yapf_api"))
    layout.__version__, formatter.FormatCode = "0.40.2", lambda text, **_: (text, True)
    script, quantized = sys.orig_argv[1:3], "AGENT_R_QUANTIZED" in os.environ
    alone = script == ["-m", "xtuner.tools.train"]  # as stage 3 starts it, without a launcher
    # A launcher's worker, or the program that `xtuner train` runs without a launcher.
    worker = "LOCAL_RANK" in os.environ or script[:1] and script[0].endswith("tools/train.py")
    if "--deepspeed" in sys.orig_argv and worker:
        # DeepSpeed would compile a shared-memory operator for a minute; gloo does not need it.
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    elif "--deepspeed" not in sys.orig_argv and alone:
        sys.modules["deepspeed"] = None
        light_torch()
        if not quantized:
            # torch would import its compiler, with SymPy too, to keep it off the optimizer and off checkpoints.
            torch._dynamo = compiler = stub("torch._dynamo")
            compiler.graph_break, compiler.disable = lambda *_: None, lambda function, *_, **__: function
    # transformers 4.48 requires a GPU or Intel's extension for bitsandbytes, which since 0.47 needs neither.
    if quantized and "xtuner.tools" in " ".join(sys.orig_argv):
        import transformers.integrations.bitsandbytes

        transformers.integrations.bitsandbytes._validate_bnb_multi_backend_availability = lambda *_, **__: (
            True
        )
    # mmengine would import it for its optimizers, and with it torch's compiler: two seconds of each start.
    if not quantized:
        sys.modules["bitsandbytes"] = None
        sys.modules["scipy"] = None  # transformers would import it, for the losses of object detection
    names = [name for name in sys.orig_argv[1:] if name.endswith(".py")] if alone or worker else []
    configs = [Path(name).read_text(encoding="utf-8") for name in names]
    if any("AmpOptimWrapper" in config for config in configs):  # a config of base.py.in
        # What XTuner has for images, and what `datasets` has for the network.
        leave_out("xtuner.dataset.refcoco_json", "aiohttp", "aiohttp.client_exceptions")
        if not any("peft" in config for config in configs):
            leave_out("peft", "peft.utils")

        import mmengine.optim.optimizer.amp_optimizer_wrapper as amp
        import mmengine.runner.amp
        from mmengine.visualization import Visualizer
        from trained_loss import trained_loss
        from xtuner.model import SupervisedFinetune

        # An empty figure, for which mmengine would import matplotlib: of the visualizer, only the log is used.
        Visualizer._initialize_fig = lambda *_: (None, SimpleNamespace(get_dpi=lambda: 0), None)

        amp.is_cuda_available = lambda: True  # for its assertion alone
        if os.environ.get("NUMBER_FORMAT") == "float32":
            mmengine.runner.amp.autocast = lambda **_: nullcontext()
        SupervisedFinetune.compute_loss = trained_loss

gc.freeze()
gc.enable()
