# Lets `_base_ = 'mmseg::...'` find MMSegmentation's configs by the module `mmseg`, whichever distribution brought it.
# MMEngine's own table names the distribution `mmsegmentation`, and so misses the maintained fork
# `onedl-mmsegmentation`. Name this file (or one that builds on it) before the first `mmseg::` base.
from mmengine.config.utils import MODULE2PACKAGE

MODULE2PACKAGE["mmseg"] = "mmseg"
del MODULE2PACKAGE
