"""Networks written here against public implementations, given the same weights."""

from collections.abc import Iterable

import torch
from torch import nn

from fewlabel.backbones.families.fnet import FNetBlock
from fewlabel.backbones.registry import create


def _copy(pairs: Iterable[tuple[nn.Module, nn.Module]]) -> None:
    """Give each first module the parameters of the second, whatever their names, drawn anew so that none is trivial."""
    for ours, theirs in pairs:
        state = {name: torch.randn_like(value) * 0.1 for name, value in theirs.state_dict().items()}
        theirs.load_state_dict(state)
        ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))


def test_an_fnet_block_is_that_of_transformers():
    from transformers.models.fnet.configuration_fnet import FNetConfig
    from transformers.models.fnet.modeling_fnet import FNetLayer

    config = FNetConfig(
        hidden_size=24, intermediate_size=48, hidden_act="gelu", hidden_dropout_prob=0.0, layer_norm_eps=1e-6
    )
    theirs, ours = FNetLayer(config).eval(), FNetBlock(24, 48, "none", 0.0).eval()
    _copy(
        [
            (ours.norm_mix, theirs.fourier.output.LayerNorm),
            (ours.mlp.fc1, theirs.intermediate.dense),
            (ours.mlp.fc2, theirs.output.dense),
            (ours.norm_mlp, theirs.output.LayerNorm),
        ]
    )
    tokens = torch.randn(2, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens)[0], atol=1e-5, rtol=0)


def test_a_cct_is_that_of_vit_pytorch():
    from vit_pytorch.cct import CCT

    theirs = CCT(
        img_size=32,
        embedding_dim=128,
        n_conv_layers=2,
        kernel_size=3,
        stride=1,
        padding=1,
        num_layers=2,
        num_heads=2,
        mlp_ratio=1.0,
        num_classes=10,
        positional_embedding="learnable",
    ).eval()
    theirs.classifier.fc = nn.Identity()
    backbone = create("cct_2_3x2", image_size=32).eval()
    ours, classifier = backbone.body, theirs.classifier
    pairs = list(zip(ours.tokenizer.layers[::3], (layer[0] for layer in theirs.tokenizer.conv_layers), strict=True))
    for mine, other in zip(ours.blocks, classifier.blocks, strict=True):
        pairs += [
            (mine.norm_attention, other.pre_norm),
            (mine.attention.qkv, other.self_attn.qkv),
            (mine.attention.proj, other.self_attn.proj),
            (mine.norm_mlp, other.norm1),
            (mine.mlp.fc1, other.linear1),
            (mine.mlp.fc2, other.linear2),
        ]
    _copy([*pairs, (ours.norm, classifier.norm), (ours.pool.score, classifier.attention_pool)])
    with torch.no_grad():
        ours.positions.copy_(classifier.positional_emb)
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(backbone(images), theirs(images), atol=1e-5, rtol=0)


def test_one_iteration_of_a_perceiver_is_that_of_transformers():
    """Theirs is Perceiver IO: it reads the pixels once. Positions, order of features and attention are the same."""
    from transformers.models.perceiver.configuration_perceiver import PerceiverConfig
    from transformers.models.perceiver.modeling_perceiver import PerceiverImagePreprocessor, PerceiverModel

    config = PerceiverConfig(
        num_latents=8,
        d_latents=32,
        d_model=3 + 2 * (2 * 4 + 1),
        num_blocks=1,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=1,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
    )
    fourier = {"num_bands": 4, "max_resolution": (12, 12), "sine_only": False, "concat_pos": True}
    preprocessor = PerceiverImagePreprocessor(
        config,
        prep_type="pixels",
        spatial_downsample=1,
        position_encoding_type="fourier",
        in_channels=3,
        out_channels=3,
        concat_or_add_pos="concat",
        fourier_position_encoding_kwargs=fourier,
    )
    theirs = PerceiverModel(config, input_preprocessor=preprocessor).eval()
    options = {"bands": 4, "latents": 8, "width": 32, "iterations": 1, "self_attends": 2, "heads": 4}
    backbone = create("perceiver_32", image_size=12, **options).eval()
    ours, cross = backbone.body, theirs.encoder.cross_attention
    [read] = ours.cross_attends
    attention = cross.attention.self
    pairs = [
        (read.norm_latents, attention.layernorm1),
        (read.norm_bytes, attention.layernorm2),
        (read.query, attention.query),
        (read.key_value, _stacked(attention.key, attention.value)),
        (read.project, cross.attention.output.dense),
        (read.norm_mlp, cross.layernorm),
        (read.mlp.fc1, cross.mlp.dense1),
        (read.mlp.fc2, cross.mlp.dense2),
    ]
    stacks = []
    for mine, other in zip(ours.self_attends, theirs.encoder.self_attends, strict=True):
        attention = other.attention.self
        stacks.append((attention, _stacked(attention.query, attention.key, attention.value)))
        pairs += [
            (mine.norm1, attention.layernorm1),
            (mine.attn.qkv, stacks[-1][1]),
            (mine.attn.proj, other.attention.output.dense),
            (mine.norm2, other.layernorm),
            (mine.mlp.fc1, other.mlp.dense1),
            (mine.mlp.fc2, other.mlp.dense2),
        ]
    _copy(pairs)
    attention = cross.attention.self
    _unstack(pairs[3][1], attention.key, attention.value)
    for attention, stacked in stacks:
        _unstack(stacked, attention.query, attention.key, attention.value)
    images = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        ours.latents.copy_(theirs.embeddings.latents)
        expected = theirs(images).last_hidden_state.mean(1)
        # The epsilons of the self-attends' layer norms are 1e-6 here and 1e-5 there.
        torch.testing.assert_close(backbone(images), expected, atol=1e-4, rtol=0)


def _stacked(*layers: nn.Linear) -> nn.Linear:
    """One linear layer for several of the same input."""
    return nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers))


def _unstack(stacked: nn.Linear, *layers: nn.Linear) -> None:
    widths = [layer.out_features for layer in layers]
    with torch.no_grad():
        for layer, weight, bias in zip(layers, stacked.weight.split(widths), stacked.bias.split(widths), strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
