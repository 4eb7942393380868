_base_ = ["../_base_/rankseg_dice.py", "mmseg::deeplabv3plus/deeplabv3plus_r101-d8_4xb4-160k_ade20k-512x512.py"]

model = dict(type="rankseg_plugins.mmseg.RankSEGEncoderDecoder", test_cfg=dict(rankseg=_base_.rankseg))
