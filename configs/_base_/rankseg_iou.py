_base_ = "./mmseg_package.py"

# Goes into `model.test_cfg.rankseg`: every option of rankseg_plugins.RankSEG, `activation` and `compare`.
rankseg = dict(metric="iou")
