_base_ = ["../_base_/rankseg_dice.py", "mmseg::segformer/segformer_mit-b4_8xb1-160k_cityscapes-1024x1024.py"]

model = dict(type="rankseg_plugins.mmseg.RankSEGEncoderDecoder", test_cfg=dict(rankseg=_base_.rankseg))
