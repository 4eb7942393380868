_base_ = ["../_base_/rankseg_dice.py", "mmseg::pspnet/pspnet_r101-d8_4xb2-80k_cityscapes-512x1024.py"]

model = dict(type="rankseg_plugins.mmseg.RankSEGEncoderDecoder", test_cfg=dict(rankseg=_base_.rankseg))
