_base_ = ["../_base_/rankseg_dice.py", "mmseg::unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py"]

# One channel of foreground probabilities instead of two competing ones; RankSEG takes the place of `threshold`.
one_channel = dict(out_channels=1, threshold=0.5, loss_decode=dict(use_sigmoid=True))
model = dict(
    type="rankseg_plugins.mmseg.RankSEGEncoderDecoder",
    decode_head=one_channel,
    auxiliary_head=one_channel,
    test_cfg=dict(rankseg=_base_.rankseg),
)
