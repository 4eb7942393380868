"""Networks of Transformers, tiny and at random, and what each returns for a batch of random images."""

import torch
import torchvision_stub  # noqa: F401  (before Transformers imports torchvision)
import transformers as hf

CLASSES, IMAGES = 5, 2
LABELS = {"num_labels": CLASSES}
VIT = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 4}


def pixels(size, channels=3):
    return torch.randn(IMAGES, channels, size, size, generator=torch.Generator().manual_seed(0))


def segformer(**options):
    config = hf.SegformerConfig(
        depths=[1] * 4,
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        **(LABELS | options),
    )
    return hf.SegformerForSemanticSegmentation(config), {"pixel_values": pixels(32)}


def upernet():
    backbone = hf.ConvNextConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = hf.UperNetConfig(backbone_config=backbone, hidden_size=8, use_auxiliary_head=False, **LABELS)
    return hf.UperNetForSemanticSegmentation(config), {"pixel_values": pixels(64)}


def beit():
    config = hf.BeitConfig(
        image_size=32, patch_size=8, out_indices=[1, 2, 3, 4], use_auxiliary_head=False, **VIT, **LABELS
    )
    return hf.BeitForSemanticSegmentation(config), {"pixel_values": pixels(32)}


def data2vec():
    config = hf.Data2VecVisionConfig(
        image_size=32, patch_size=8, out_indices=[0, 1, 2, 3], use_auxiliary_head=False, **VIT, **LABELS
    )
    return hf.Data2VecVisionForSemanticSegmentation(config), {"pixel_values": pixels(32)}


def dpt():
    config = hf.DPTConfig(
        image_size=32,
        patch_size=8,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8,
        use_auxiliary_head=False,
        is_hybrid=False,
        **VIT,
        **LABELS,
    )
    return hf.DPTForSemanticSegmentation(config), {"pixel_values": pixels(32)}


def mobilevit():
    config = hf.MobileViTConfig(
        image_size=64, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8] * 7, aspp_out_channels=16, **LABELS
    )
    return hf.MobileViTForSemanticSegmentation(config), {"pixel_values": pixels(64)}


def mobilevitv2():
    config = hf.MobileViTV2Config(image_size=64, width_multiplier=0.25, aspp_out_channels=16, **LABELS)
    return hf.MobileViTV2ForSemanticSegmentation(config), {"pixel_values": pixels(64)}


def mobilenet_v2():
    config = hf.MobileNetV2Config(image_size=64, depth_multiplier=0.25, **LABELS)
    return hf.MobileNetV2ForSemanticSegmentation(config), {"pixel_values": pixels(64)}


def tipsv2_dpt():
    backbone = hf.Tipsv2VisionConfig(
        image_size=32, patch_size=8, out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False, **VIT
    )
    config = hf.Tipsv2DptConfig(backbone_config=backbone, neck_hidden_sizes=[8] * 4, fusion_hidden_size=8, **LABELS)
    return hf.Tipsv2DptForSemanticSegmentation(config), {"pixel_values": pixels(32)}


def sapiens2():
    head = hf.Sapiens2HeadConfig(upsample_out_channels=[8], conv_out_channels=[8])
    config = hf.Sapiens2Config(image_size=32, patch_size=8, head_config=head, **VIT, **LABELS)
    return hf.Sapiens2ForSemanticSegmentation(config), {"pixel_values": pixels(32)}


def _resnet():
    return hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage1", "stage2", "stage3", "stage4"]
    )


_DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 7,
}


def detr():
    config = hf.DetrConfig(backbone_config=_resnet(), use_timm_backbone=False, backbone=None, **_DETR, **LABELS)
    return hf.DetrForSegmentation(config), {"pixel_values": pixels(64)}


def conditional_detr():
    config = hf.ConditionalDetrConfig(
        backbone_config=_resnet(), use_timm_backbone=False, backbone=None, **_DETR, **LABELS
    )
    return hf.ConditionalDetrForSegmentation(config), {"pixel_values": pixels(64)}


def _swin():
    return hf.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def maskformer():
    decoder = hf.DetrConfig(backbone_config=_resnet(), use_timm_backbone=False, backbone=None, **_DETR)
    config = hf.MaskFormerConfig(
        fpn_feature_size=32, mask_feature_size=32, backbone_config=_swin(), decoder_config=decoder, **LABELS
    )
    return hf.MaskFormerForInstanceSegmentation(config), {"pixel_values": pixels(64)}


_QUERIES = {
    **{"hidden_dim": 32, "encoder_feedforward_dim": 16, "encoder_layers": 1, "decoder_layers": 2},
    **{"num_attention_heads": 2, "dim_feedforward": 16, "num_queries": 7},
}


def mask2former():
    config = hf.Mask2FormerConfig(
        backbone_config=_swin(),
        feature_size=32,
        mask_feature_size=32,
        **_QUERIES,
        **LABELS,
    )
    return hf.Mask2FormerForUniversalSegmentation(config), {"pixel_values": pixels(64)}


def oneformer():
    config = hf.OneFormerConfig(
        backbone_config=_swin(),
        conv_dim=32,
        mask_dim=32,
        task_seq_len=4,
        is_training=False,
        text_encoder_width=32,
        **_QUERIES,
        **LABELS,
    )
    return hf.OneFormerForUniversalSegmentation(config), {
        "pixel_values": pixels(64),
        "task_inputs": torch.ones(IMAGES, 4),
    }


_EOMT = {
    **{"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "num_blocks": 1, "image_size": 32},
    **{"patch_size": 8, "num_queries": 7, "num_register_tokens": 0, "num_upscale_blocks": 1, **LABELS},
}


def eomt():
    return hf.EomtForUniversalSegmentation(hf.EomtConfig(**_EOMT)), {"pixel_values": pixels(32)}


def eomt_dinov3():
    config = hf.EomtDinov3Config(intermediate_size=16, **_EOMT)
    return hf.EomtDinov3ForUniversalSegmentation(config), {"pixel_values": pixels(32)}


def videomt():
    config = hf.VideomtConfig(**_EOMT)
    return hf.VideomtForUniversalSegmentation(config), {"pixel_values_videos": pixels(32)[None]}


def sam3():
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    layers = {**small, "num_layers": 1}
    vit = hf.Sam3ViTConfig(
        image_size=56,
        patch_size=14,
        pretrain_image_size=28,
        window_size=2,
        global_attn_indexes=[1],
        num_hidden_layers=2,
        **small,
    )
    config = hf.Sam3Config(
        vision_config=hf.Sam3VisionConfig(
            backbone_config=vit, fpn_hidden_size=32, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]]
        ),
        text_config=hf.CLIPTextConfig(
            vocab_size=9,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            projection_dim=32,
            max_position_embeddings=8,
        ),
        geometry_encoder_config=hf.Sam3GeometryEncoderConfig(**layers),
        detr_encoder_config=hf.Sam3DETREncoderConfig(**layers),
        detr_decoder_config=hf.Sam3DETRDecoderConfig(num_queries=7, **layers),
        mask_decoder_config=hf.Sam3MaskDecoderConfig(hidden_size=32, num_attention_heads=2),
    )
    words = torch.tensor([[1, 2, 8]] * IMAGES)
    return hf.Sam3Model(config), {
        "pixel_values": pixels(56),
        "input_ids": words,
        "attention_mask": torch.ones_like(words),
    }


def seggpt():
    config = hf.SegGptConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_dim=16,
        image_size=[32, 16],
        patch_size=8,
        pretrain_image_size=16,
        decoder_hidden_size=8,
        merge_index=0,
        intermediate_hidden_state_indices=[0, 1],
    )
    given = {name: pixels(16) for name in ("pixel_values", "prompt_pixel_values", "prompt_masks")}
    return hf.SegGptForImageSegmentation(config), given
