# A small UNet from scratch on CamVid (SegNet's split and 11 classes, 180x240), minutes on a processor. The data:
# img_dir/{train,val} and ann_dir/{train,val} in data/camvid, or wherever the environment variable CAMVID points.
_base_ = [
    "../_base_/rankseg_compare.py",
    "mmseg::_base_/models/fcn_unet_s5-d16.py",
    "mmseg::_base_/default_runtime.py",
    "mmseg::_base_/schedules/schedule_20k.py",
]

crop_size = (144, 192)
norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    type="rankseg_plugins.mmseg.RankSEGEncoderDecoder",
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size_divisor=16)),
    backbone=dict(
        base_channels=16,
        num_stages=4,
        strides=(1, 1, 1, 1),
        enc_num_convs=(1, 2, 2, 2),
        dec_num_convs=(1, 2, 2),
        downsamples=(True, True, True),
        enc_dilations=(1, 1, 1, 1),
        dec_dilations=(1, 1, 1),
        norm_cfg=norm_cfg,
    ),
    decode_head=dict(
        in_channels=16,
        in_index=3,
        channels=32,
        num_classes=11,
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode="whole", rankseg=_base_.rankseg),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(240, 180), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]

# fmt: off
classes = ["sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
palette = [[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
           [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]]
# fmt: on
dataset = dict(
    type="BaseSegDataset",
    data_root="{{$CAMVID:data/camvid}}",
    metainfo=dict(
        classes=classes,
        palette=palette,
    ),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path="img_dir/train", seg_map_path="ann_dir/train"), pipeline=train_pipeline, **dataset
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path="img_dir/val", seg_map_path="ann_dir/val"), pipeline=test_pipeline, **dataset
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="rankseg_plugins.mmseg.MultiLevelIoUMetric")
test_evaluator = val_evaluator

optim_wrapper = dict(_delete_=True, type="OptimWrapper", optimizer=dict(type="AdamW", lr=4e-3, weight_decay=1e-2))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, begin=0, end=100, by_epoch=False),
    dict(type="PolyLR", eta_min=1e-5, power=0.9, begin=100, end=1000, by_epoch=False),
]
train_cfg = dict(max_iters=1000, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=1000, save_best="image_mDice"), logger=dict(interval=50))
