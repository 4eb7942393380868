_base_ = "./mmseg_package.py"

# Tunes a decoder at every validation and writes it beside the checkpoints.
custom_hooks = [dict(type="rankseg_plugins.mmseg.RankSEGTuningHook", objective="dice_image")]
