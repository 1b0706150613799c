"""imgzoo under the names, paths and signatures that code written for timm imports. Importing this brings no torch.

`import imgzoo_timm as timm`, or `install()` before a client imports timm, or `python -m imgzoo_timm SCRIPT ...`.
"""

from ._door import furnish
from .standin import install as install
from .standin import uninstall as uninstall
from .version import __version__ as __version__

NAMES = """
-  .models._registry  list_models list_pretrained list_modules is_model is_model_pretrained model_entrypoint
-  .models._registry  get_pretrained_cfg get_pretrained_cfg_value
-  .models._factory   create_model
-  .layers._config    is_exportable is_scriptable set_exportable set_scriptable
"""
PACKAGES = ("data", "layers", "loss", "models", "optim", "scheduler", "task", "utils", "version")

__getattr__, __dir__ = furnish(__name__, NAMES, "imgzoo's own interface is `import imgzoo`", PACKAGES)
