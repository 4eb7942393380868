# MMSegmentation has no SegFormer config for VOC12Aug: its model and data bases, with SegFormer's own optimizer.
_base_ = [
    "../_base_/rankseg_dice.py",
    "mmseg::_base_/models/segformer_mit-b0.py",
    "mmseg::_base_/datasets/pascal_voc12_aug.py",
    "mmseg::_base_/default_runtime.py",
    "mmseg::_base_/schedules/schedule_40k.py",
]

model = dict(
    type="rankseg_plugins.mmseg.RankSEGEncoderDecoder",
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=21),
    test_cfg=dict(rankseg=_base_.rankseg),
)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys=dict(pos_block=dict(decay_mult=0.0), norm=dict(decay_mult=0.0), head=dict(lr_mult=10.0))
    ),
)
train_dataloader = dict(batch_size=2, num_workers=2)
